//! Every configuration that the pages show is one that the edge takes.

use std::path::Path;

use vestibule::config;

#[test]
fn every_configuration_in_the_pages_is_in_order() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let page = entry.unwrap().path();
        let text = std::fs::read_to_string(&page).unwrap();
        for block in text.split("```toml\n").skip(1) {
            let block = block.split("```").next().unwrap();
            let loaded = config::parse(block.to_owned(), &page);
            assert!(loaded.is_ok(), "{}:\n{}", page.display(), loaded.unwrap_err());
            seen += 1;
        }
    }
    assert!(seen >= 4, "{seen} configurations");
}

#[test]
fn the_compose_file_has_an_edge_that_starts() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/edge/vestibule.toml");
    let loaded = config::parse(std::fs::read_to_string(&file).unwrap(), &file);
    assert!(loaded.is_ok(), "{}", loaded.unwrap_err());
}

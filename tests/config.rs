//! The configuration: the examples load, and what is left out has its default.

use std::fs;
use std::path::{Path, PathBuf};

use vestibule::config::model::{Certificate, LogLevel, Serve};
use vestibule::config::{self, Loaded};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|e| e == extension)).collect();
    files.sort();
    files
}

fn load(name: &str, text: &str) -> Loaded {
    config::parse(text.to_owned(), Path::new(name)).unwrap_or_else(|problems| panic!("{problems}"))
}

/// The smallest file around some more of it.
fn with(more: &str) -> Loaded {
    let site =
        "[[site]]\ndomains = ['app.example.com']\nupstream = 'django:8000'\ncertificate = 'internal'\n";
    load("edge.toml", &format!("{more}\n{site}"))
}

#[test]
fn every_example_loads() {
    let examples = files(&root().join("config"), "toml");
    assert!(!examples.is_empty());
    for example in examples {
        config::load(&example).unwrap_or_else(|problems| panic!("{problems}"));
    }
}

#[test]
fn the_smallest_file_has_the_defaults_of_the_product() {
    let loaded = with("");
    let config = &loaded.config;
    let rows: Vec<_> = config.rows.iter().map(|row| (row.bind.to_string(), row.serve, row.backlog)).collect();
    assert_eq!(rows, [("80".into(), Serve::Http, 4096), ("443".into(), Serve::Https, 4096)]);
    let site = &config.sites[0];
    assert_eq!((site.rows.len(), site.routes.len(), site.hsts), (2, 1, None));
    assert_eq!(site.certificate, Certificate::Internal);
    assert_eq!((config.limits.connections, config.limits.body), (20_000, 64 << 20));
    assert_eq!(config.limits.idle_timeout.as_secs(), 75);
    assert_eq!(config.store.path, Path::new("certs"));
    assert_eq!((config.log.level, config.process.grace.as_secs()), (LogLevel::Info, 30));
    assert!(config.process.workers > 0);
    assert!(config.client_address.is_none());
}

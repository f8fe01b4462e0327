//! The one-way imports of the house: a room names only the rooms below it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The rooms, from the street to the cellar. A file may name the rooms of later rows and, inside its own row,
/// its own room alone. `observe` may be named by everyone, and names `config` and the last row.
const ROWS: &[&[&str]] = &[
    &["cli"],
    &["runtime"],
    &["admin", "http", "l4", "acme", "firewall"],
    &["lobby"],
    &["snapshot"],
    &["route"],
    &["upstream", "files", "auth", "client"],
    &["tls", "limit", "net"],
    &["wire"],
    &["config"],
    &["name", "addr", "password", "fault"],
];

#[test]
fn rooms_name_only_rooms_below_them() {
    let mut wrong = Vec::new();
    for (file, source) in sources() {
        let room = room_of(&file);
        for named in rooms_named(&source) {
            if !may_name(&room, &named) {
                wrong.push(format!("{}: `{room}` names `{named}`", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "imports run the wrong way:\n{}", wrong.join("\n"));
}

#[test]
fn every_room_has_a_place_in_the_order() {
    let known: BTreeSet<&str> = ROWS.iter().flat_map(|row| row.iter().copied()).chain(["observe"]).collect();
    let map = fs::read_to_string(src().join("lib.rs")).unwrap();
    let rooms: BTreeSet<&str> =
        map.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    assert_eq!(rooms, known, "src/lib.rs and the order in this test differ");
}

#[test]
fn raw_configuration_stays_in_its_room() {
    for (file, source) in sources() {
        let inside = file.starts_with("config");
        assert!(inside || !code(&source).contains("config::raw"), "{} names config::raw", file.display());
    }
}

#[test]
fn only_the_tls_room_makes_rustls_configurations() {
    for (file, source) in sources() {
        for name in ["ServerConfig", "ClientConfig", "ResolvesServerCert", "CryptoProvider"] {
            let named = code(&source).contains(name);
            assert!(!named || file.starts_with("tls"), "{} names rustls's {name}", file.display());
        }
    }
}

fn may_name(room: &str, named: &str) -> bool {
    let row = |wanted: &str| ROWS.iter().position(|row| row.contains(&wanted));
    match (row(room), row(named)) {
        _ if room == named || named == "observe" => true,
        (None, Some(below)) => room == "lib" || room == "main" || below >= ROWS.len() - 2,
        (Some(here), Some(below)) => here < below,
        _ => false,
    }
}

/// The first words of every `crate::…` and `vestibule::…` path outside comments and unit tests.
fn rooms_named(source: &str) -> BTreeSet<String> {
    let code = code(source);
    let mut named = BTreeSet::new();
    for root in ["crate::", "vestibule::"] {
        for (at, _) in code.match_indices(root) {
            let rest = code.get(at + root.len()..).unwrap_or_default();
            match rest.strip_prefix('{') {
                Some(list) => named.extend(firsts(list)),
                None => named.extend(word(rest)),
            }
        }
    }
    named
}

/// The first word of each entry of a `{a::b, c::{d, e}}` list.
fn firsts(list: &str) -> Vec<String> {
    let (mut depth, mut found, mut entry) = (0, Vec::new(), String::new());
    for letter in list.chars() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => found.extend(word(std::mem::take(&mut entry).trim())),
            _ => {}
        }
        if depth == 0 && letter != ',' {
            entry.push(letter);
        }
    }
    found.extend(word(entry.trim()));
    found
}

fn word(text: &str) -> Option<String> {
    let end = text.find(|letter: char| !letter.is_alphanumeric() && letter != '_').unwrap_or(text.len());
    text.get(..end).filter(|word| !word.is_empty()).map(str::to_owned)
}

/// The source without comments, and without the unit tests at its end.
fn code(source: &str) -> String {
    let live = source.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    live.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

fn room_of(file: &Path) -> String {
    let first = file.components().next().unwrap().as_os_str().to_string_lossy();
    first.trim_end_matches(".rs").to_owned()
}

fn sources() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![src()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let source = fs::read_to_string(&path).unwrap();
                found.push((path.strip_prefix(src()).unwrap().to_owned(), source));
            }
        }
    }
    found
}

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

//! The JSON schema takes what the edge takes, and refuses what no edge would.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::edge;

/// Every configuration that is shipped or shown.
fn shipped() -> Vec<std::path::PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = ["config", "deploy", "deploy/compose", "benches/side-by-side"];
    let entries = folders.iter().filter_map(|folder| std::fs::read_dir(root.join(folder)).ok()).flatten();
    let files = entries.map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|extension| extension == "toml")).collect()
}

#[test]
fn the_schema_validates_every_shipped_configuration() {
    let files = shipped();
    assert!(files.iter().any(|file| file.ends_with("config/vestibule.toml")), "{files:?}");
    let files: Vec<_> = files.iter().map(|file| file.to_str().unwrap()).collect();
    assert_eq!(validate(&files), "");
}

#[test]
fn the_schema_refuses_what_the_edge_refuses() {
    let folder = tempfile::tempdir().unwrap();
    for (text, told) in [
        ("[[site]]\ndomains = [\"a.example\"]\nupstraem = \"b:1\"", "upstraem"),
        ("[[site]]\nupstream = \"b:1\"", "domains"),
        ("site = []\n[limits]\nconnections = 0", "less than the minimum"),
        ("site = []\n[limits]\nheader_timeout = \"10 s\"", "does not match"),
        ("site = []\n[ports]\n443 = { serve = \"ftp\", allow = [\"public\"] }", "443"),
        ("[limits]", "site"),
    ] {
        let file = folder.path().join("wrong.toml");
        std::fs::write(&file, text).unwrap();
        let problems = validate(&[file.to_str().unwrap()]);
        assert!(problems.contains(told), "{text}:\n{problems}");
    }
}

/// What Python's jsonschema has to say about the files; empty where all are in order.
fn validate(files: &[&str]) -> String {
    const SCRIPT: &str = r#"
import json, sys, tomllib
from jsonschema import Draft202012Validator as Validator
schema = json.loads(sys.argv[1])
Validator.check_schema(schema)
for file in sys.argv[2:]:
    with open(file, "rb") as toml:
        for error in Validator(schema).iter_errors(tomllib.load(toml)):
            print(f"{file}: {error.json_path}: {error.message}")
"#;
    let (code, schema, err) = edge::run(&["schema"]);
    assert_eq!(code, Some(0), "{err}");
    let mut python = Command::new("/usr/bin/python3");
    let output = python.args(["-c", SCRIPT, &schema]).args(files).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

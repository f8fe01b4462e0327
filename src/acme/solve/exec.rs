//! A program that writes records: `PROGRAM … present|cleanup NAME VALUE`, NAME with a dot at its end, as lego calls its own.

use std::time::Duration;

use hickory_proto::rr::Name;

use super::super::program::Program;
use super::dns01::Trouble;

pub(super) struct Exec(Program);

impl Exec {
    pub(super) fn new(command: Vec<String>, limit: Duration) -> Self {
        Self(Program::new(command, limit))
    }

    /// Whether it could be run. Reads the disk.
    pub(super) fn check(&self) -> Result<(), String> {
        self.0.check()
    }

    pub(super) async fn run(&self, action: &str, name: &Name, value: &str) -> Result<(), Trouble> {
        let name = name.to_ascii();
        let ended = self.0.run(&[action, &name, value], b"").await;
        ended.map_err(|what| Trouble::Hook { program: self.0.path().to_owned(), name, what })
    }
}

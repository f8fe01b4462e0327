//! `vestibule serve`: the edge itself.

use super::{ConfigFile, Failure, files};
use crate::runtime::{self, Origin, Ready, RunError};

pub(super) fn run(config: ConfigFile) -> Result<(), Failure> {
    run_origin(Origin::File(files::config_file(config.config)?), |_| {})
}

/// Runs an edge to its end.
pub(super) fn run_origin(origin: Origin, ready: impl FnOnce(&Ready)) -> Result<(), Failure> {
    runtime::run(origin, ready).map_err(|error| match error {
        RunError::Config(problems) => problems.into(),
        RunError::Bind(errors) => {
            let lines: Vec<_> = errors.iter().map(|error| format!("error: {error}\n")).collect();
            Failure::wrong(lines.concat())
        }
        error => Failure::new(error),
    })
}

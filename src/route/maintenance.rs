//! Whether a site is in maintenance: set by the control thread, asked by each request.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::addr::{ClientAddr, Source};
use crate::config::model::Errors;

/// A site's maintenance.
#[derive(Debug, Default)]
pub struct Maintenance {
    /// It is on while this file exists.
    pub switch: Option<PathBuf>,
    allow: Vec<Source>,
    on: AtomicBool,
}

impl Maintenance {
    pub(super) fn of(errors: &Errors) -> Self {
        Self { switch: errors.switch.clone(), allow: errors.allow.clone(), on: AtomicBool::new(false) }
    }

    /// Whether it is on.
    pub fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    /// Turns it on or off; true where that is a change.
    pub fn set(&self, on: bool) -> bool {
        self.on.swap(on, Ordering::Relaxed) != on
    }

    /// Whether it keeps this client out.
    pub fn keeps_out(&self, client: ClientAddr) -> bool {
        self.is_on() && !self.allow.iter().any(|source| source.contains(client))
    }
}

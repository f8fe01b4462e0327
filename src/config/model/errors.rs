//! What a site answers where the edge itself has to.

use std::path::PathBuf;

use super::Place;
use crate::addr::Source;

/// `[site.errors]`
#[derive(Debug, Clone, Default)]
pub struct Errors {
    /// Pages by what they are for.
    pub pages: Vec<PageFile>,
    /// The site is in maintenance while this file exists.
    pub switch: Option<PathBuf>,
    /// Who is let in while it is.
    pub allow: Vec<Source>,
}

/// A page's file.
#[derive(Debug, Clone)]
pub struct PageFile {
    /// What it is shown for.
    pub occasion: Occasion,
    /// The file.
    pub path: PathBuf,
    /// Where it stands in the configuration.
    pub place: Place,
}

/// What a page is shown for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occasion {
    /// Maintenance.
    Maintenance,
    /// This status.
    Status(u16),
    /// 400 to 499, or 500 to 599, where the status has no page of its own: the first digit.
    Class(u16),
}

impl Errors {
    /// Whether both say the same, wherever it stands.
    pub fn is_same(&self, other: &Self) -> bool {
        let pages = |errors: &Self| -> Vec<(Occasion, PathBuf)> {
            errors.pages.iter().map(|page| (page.occasion, page.path.clone())).collect()
        };
        let allow =
            |errors: &Self| -> Vec<_> { errors.allow.iter().map(|source| source.name.clone()).collect() };
        (pages(self), &self.switch, allow(self)) == (pages(other), &other.switch, allow(other))
    }
}

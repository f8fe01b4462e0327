//! What a route allows to bodies: how long they may be, and where they wait while somebody is slow.

use std::sync::Arc;

use crate::config::model::{BodyLimit, Buffers, Limits, PathPattern, SetBy};
use crate::config::show_size;
use crate::limit::room::Room;

/// How long a request's body may be.
#[derive(Debug)]
pub struct Ceiling {
    /// In octets.
    pub octets: u64,
    /// The setting that says so, as a person finds it in the file.
    pub setting: Box<str>,
}

/// Where bodies wait.
#[derive(Debug)]
pub struct Shelf {
    /// What the route says of them.
    pub buffers: Buffers,
    /// What bodies of all sites may have in memory together, in octets.
    pub edge_memory: u64,
    /// What bodies of all sites may have on disk together, in octets.
    pub edge_disk: u64,
    /// What the site's bodies have on disk.
    pub site: Arc<Room>,
    /// What logs call the site.
    pub name: Box<str>,
}

impl Ceiling {
    pub(super) fn of(limit: BodyLimit, path: &PathPattern, site: &str) -> Arc<Self> {
        let most = show_size(limit.octets);
        let setting = match limit.set_by {
            SetBy::Route => format!("body = \"{most}\" of the [[site.route]] \"{path}\" of {site}"),
            SetBy::Site => format!("body = \"{most}\" of the [[site]] {site}"),
            SetBy::Limits => format!("body = \"{most}\" in [limits]"),
        };
        Arc::new(Self { octets: limit.octets, setting: setting.into() })
    }
}

impl Shelf {
    pub(super) fn of(buffers: Buffers, limits: &Limits, room: &Arc<Room>, site: &str) -> Arc<Self> {
        Arc::new(Self {
            buffers,
            edge_memory: limits.buffer_memory,
            edge_disk: limits.buffer_disk,
            site: Arc::clone(room),
            name: site.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ceiling_names_its_setting() {
        let path = PathPattern::Prefix("/upload/".into());
        for (set_by, setting) in [
            (SetBy::Route, "body = \"10KiB\" of the [[site.route]] \"/upload/\" of a.test"),
            (SetBy::Site, "body = \"10KiB\" of the [[site]] a.test"),
            (SetBy::Limits, "body = \"10KiB\" in [limits]"),
        ] {
            let ceiling = Ceiling::of(BodyLimit { octets: 10 << 10, set_by }, &path, "a.test");
            assert_eq!((ceiling.octets, &*ceiling.setting), (10 << 10, setting));
        }
    }
}

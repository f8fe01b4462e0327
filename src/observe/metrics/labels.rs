//! Which series belong to which site and route.

use std::collections::HashMap;
use std::sync::Arc;

/// The number of a site's route in the metrics, the same one for as long as the process lives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Series(u32);

impl Series {
    /// What no site was found for.
    pub const NONE: Self = Self(0);

    /// As a number.
    pub(in crate::observe) fn number(self) -> u32 {
        self.0
    }

    /// The series of a number that [`Series::number`] gave.
    pub(in crate::observe) fn of_number(number: u32) -> Self {
        Self(number)
    }

    pub(super) fn index(self) -> usize {
        self.0 as usize
    }
}

/// The labels of every series: sites and routes of the configuration, and nothing that a client could make up. A reload
/// carries them on; those of a route that is gone stay, for its counts do.
#[derive(Debug, Clone)]
pub struct Labels {
    names: Vec<(Arc<str>, Arc<str>)>,
    known: HashMap<(Arc<str>, Arc<str>), Series>,
}

impl Default for Labels {
    fn default() -> Self {
        let mut labels = Self { names: Vec::new(), known: HashMap::new() };
        labels.series("", "");
        labels
    }
}

impl Labels {
    /// The series of a site's route, a new one where it has none. An empty route stands for what met no route.
    pub fn series(&mut self, site: &str, route: &str) -> Series {
        let name: (Arc<str>, Arc<str>) = (site.into(), route.into());
        if let Some(series) = self.known.get(&name) {
            return *series;
        }
        // A process that saw four thousand million routes counts the rest as none.
        let Ok(number) = u32::try_from(self.names.len()) else { return Series::NONE };
        self.names.push(name.clone());
        self.known.insert(name, Series(number));
        Series(number)
    }

    /// The site and the route of a series; empty where there was none.
    pub fn names(&self, series: Series) -> (&str, &str) {
        self.names.get(series.index()).map_or(("", ""), |(site, route)| (site, route))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_keeps_its_series() {
        let mut labels = Labels::default();
        let first = labels.series("a.example.com", "/");
        let mut later = labels.clone();
        let second = later.series("b.example.com", "/");
        assert_eq!(
            (later.series("a.example.com", "/"), labels.names(first)),
            (first, ("a.example.com", "/"))
        );
        assert_ne!(first, second);
        assert_eq!((labels.names(second), labels.names(Series::NONE)), (("", ""), ("", "")));
    }
}

//! Statuses as a label with a bound: those that a registry has, and a class for whatever else an application sends.

use super::cells::{Cell, Cells};

/// The registered ones (RFC 9110 section 15 and its registry), and 499 for a client that left.
const CODES: [u16; 62] = [
    100, 101, 102, 103, 200, 201, 202, 203, 204, 205, 206, 207, 208, 226, 300, 301, 302, 303, 304, 305, 307,
    308, 400, 401, 402, 403, 404, 405, 406, 407, 408, 409, 410, 411, 412, 413, 414, 415, 416, 417, 421, 422,
    423, 424, 425, 426, 428, 429, 431, 451, 499, 500, 501, 502, 503, 504, 505, 506, 507, 508, 510, 511,
];
/// What others are counted as, and what had no answer.
const OTHERS: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];
const COUNT: usize = CODES.len() + OTHERS.len();

/// How many answers had which status.
#[derive(Debug)]
pub(super) struct Statuses([Cell; COUNT]);

/// The same of several threads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ByStatus([u64; COUNT]);

impl Default for Statuses {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Cell::default()))
    }
}

impl Default for ByStatus {
    fn default() -> Self {
        Self([0; COUNT])
    }
}

impl Statuses {
    /// 0 stands for no answer at all.
    pub(super) fn count(&self, status: u16) {
        let other = || CODES.len() + usize::from(status / 100).min(OTHERS.len() - 1);
        if let Some(cell) = self.0.get(CODES.binary_search(&status).unwrap_or_else(|_| other())) {
            cell.add(1);
        }
    }
}

impl Cells for Statuses {
    type Sum = ByStatus;

    fn add_to(&self, sum: &mut ByStatus) {
        sum.0.iter_mut().zip(&self.0).for_each(|(sum, cell)| cell.add_to(sum));
    }
}

impl ByStatus {
    /// Those that occurred: the label, and how often.
    pub fn each(&self) -> impl Iterator<Item = (String, u64)> {
        let codes = CODES.iter().map(u16::to_string);
        let names = codes.chain(OTHERS.iter().map(|name| (*name).to_owned()));
        names.zip(self.0).filter(|(_, count)| *count > 0)
    }

    /// Adds others to these.
    pub fn add(&mut self, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(sum, more)| *sum += more);
    }

    /// All together.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Those of 500 and more: what the edge or an upstream failed at.
    pub fn failed(&self) -> u64 {
        self.each().filter(|(name, _)| name.starts_with('5')).map(|(_, count)| count).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_one_place() {
        assert!(CODES.is_sorted());
        let statuses = Statuses::default();
        for status in (0..=u16::MAX).chain([200, 502]) {
            statuses.count(status);
        }
        let mut sum = ByStatus::default();
        statuses.add_to(&mut sum);
        let seen: Vec<_> = sum.each().collect();
        assert_eq!((sum.total(), seen.len()), (65_538, COUNT));
        for (label, count) in [("200", 2), ("404", 1), ("502", 2), ("none", 100), ("2xx", 90)] {
            assert!(seen.contains(&(label.to_owned(), count)), "{label} {count} {seen:?}");
        }
    }
}

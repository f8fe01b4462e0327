//! A moment by two clocks: people's, which may be set, and the machine's, which nobody sets.

use std::fs;
use std::time::Duration;

use time::OffsetDateTime;

/// A moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Moment {
    /// By the clock on the wall.
    pub wall: OffsetDateTime,
    /// Which run of the machine it is: the other number means nothing in another.
    pub boot: String,
    /// Seconds since the start of the machine, sleep included.
    pub uptime: f64,
}

impl Moment {
    /// This one.
    pub fn now() -> Self {
        Self { wall: OffsetDateTime::now_utc(), boot: boot(), uptime: uptime() }
    }
}

/// Seconds since the start of the machine, sleep included.
pub(super) fn uptime() -> f64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME);
    now.map_or(f64::MAX, |now| Duration::from(now).as_secs_f64())
}

/// The kernel's name for this run of the machine.
pub(super) fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

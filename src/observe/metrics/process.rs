//! What the kernel says of this process.

use std::fs;
use std::time::Duration;

use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage};
use nix::sys::time::TimeValLike as _;

/// The process at this moment. What cannot be read is 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Process {
    /// Processor time so far, user's and system's.
    pub cpu: Duration,
    /// Memory that it holds, in octets.
    pub resident: u64,
    /// Addresses that it has, in octets.
    pub virtual_memory: u64,
    /// Open files.
    pub open_files: u64,
    /// The most that it may have open.
    pub max_files: u64,
}

impl Process {
    /// Asks the kernel.
    pub fn read() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let kibibytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            let number = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
            number.unwrap_or_default() * 1024
        };
        Self {
            cpu: cpu(),
            resident: kibibytes("VmRSS"),
            virtual_memory: kibibytes("VmSize"),
            // One of them is the directory itself.
            open_files: fs::read_dir("/proc/self/fd")
                .map_or(0, |files| files.count().saturating_sub(1) as u64),
            max_files: getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft),
        }
    }
}

fn cpu() -> Duration {
    let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) else { return Duration::ZERO };
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Duration::from_micros(u64::try_from(micros).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_knows_this_process() {
        let process = Process::read();
        assert!(process.resident > 1 << 20 && process.virtual_memory > process.resident);
        assert!(process.open_files > 2 && process.max_files >= process.open_files);
    }
}

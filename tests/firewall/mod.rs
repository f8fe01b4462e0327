//! The firewall: rendered, and in force between hosts that are namespaces of this machine.

mod docker;
mod hosts;
mod matrix;
mod moving;
mod render;
mod switch;

use std::process::Command;

/// Runs a test of this binary in namespaces of its own: network, mounts and /run.
#[track_caller]
fn in_namespaces(test: &str) {
    let root = nix::unistd::geteuid().is_root();
    // sshd becomes other users, for which one mapped user is not enough.
    let flags = if root { ["-nm"].as_slice() } else { &["-Urnm", "--map-auto"] };
    let output = Command::new("unshare")
        .args(flags)
        .args(["sh", "-c", "mount -t tmpfs none /run && ip link set lo up && exec \"$0\" \"$@\""])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--ignored", "--nocapture"])
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && told.contains("1 passed"), "{told}");
    eprint!("{told}");
}

//! The wall's clock jumps while the edge runs: a real process, whose calls for the time libfaketime answers.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::pebble::{Options, Pebble};
use super::proxy::NEW_ORDER;
use super::{NAME, certs, config, handshake, record, record_path, wait_for_handshake};
use crate::support::PATIENCE;
use crate::support::edge::Edge;

const DAY: u64 = 86_400;

/// A process's own clock, as far from the true one as its file says.
struct Clock {
    folder: tempfile::TempDir,
    library: PathBuf,
}

impl Clock {
    fn true_one() -> Self {
        let folders = fs::read_dir("/usr/lib").unwrap().map(|entry| entry.unwrap().path());
        let mut libraries = folders.map(|folder| folder.join("faketime/libfaketimeMT.so.1"));
        let library = libraries.find(|path| path.exists());
        let library = library.expect("libfaketime is missing; install the package faketime");
        let clock = Self { folder: tempfile::tempdir().unwrap(), library };
        clock.set("+0");
        clock
    }

    /// As in "+40d", from now on.
    fn set(&self, offset: &str) {
        let new = self.folder.path().join("new");
        fs::write(&new, offset).unwrap();
        fs::rename(new, self.file()).unwrap();
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("offset")
    }

    /// Whatever counts how long something takes stays true, as in a kernel.
    fn start(&self, config: &str) -> Edge {
        let yes = Path::new("1");
        Edge::start_with(
            config,
            &[
                ("LD_PRELOAD", &self.library),
                ("FAKETIME_TIMESTAMP_FILE", &self.file()),
                ("FAKETIME_NO_CACHE", yes),
                ("FAKETIME_DONT_FAKE_MONOTONIC", yes),
                ("NO_FAKE_STAT", yes),
            ],
        )
    }
}

#[test]
fn it_jumps_and_nothing_is_lost() {
    // A day first, and then one that is good wherever the clock goes; the CA's own clock is right.
    let pebble = Pebble::start(Options { lives: (2000 * DAY, DAY), ..Options::default() });
    let (short, long) = ("profile = \"short\"", "profile = \"default\"");
    let clock = Clock::true_one();
    let edge = clock.start(&config(&pebble, short, &[NAME, "gone.test"]));
    for name in [NAME, "gone.test"] {
        wait_for_handshake(&pebble, name, PATIENCE);
    }
    edge.write_config(&config(&pebble, long, &[NAME]));
    assert!(edge.reload());
    let (roots, over) = (pebble.issuing_root(), AtomicBool::new(false));
    let before = handshake(&pebble, &roots, NAME).unwrap();
    let visit = || {
        let mut leaves = BTreeSet::from([before]);
        while !over.load(Ordering::Relaxed) {
            leaves.insert(handshake(&pebble, &roots, NAME).expect("a handshake while the clock jumps"));
            std::thread::sleep(Duration::from_millis(5)); // traffic, and no flood
        }
        leaves
    };
    let leaves = std::thread::scope(|scope| {
        let visitor = scope.spawn(visit);
        let end = End(&over);
        jump(&pebble, &clock, &edge);
        drop(end);
        visitor.join().unwrap()
    });
    assert_eq!(leaves.len(), 2, "the one before, and the one behind");
    assert_eq!(pebble.proxy.orders(), 3);
    // Nobody has the name any more, and forty days are no forty days.
    assert!(record_path(&edge, "gone.test").exists());
}

/// The end of visits, also where a test fails meanwhile.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// On past the end, back to before the beginning, and to where it was.
fn jump(pebble: &Pebble, clock: &Clock, edge: &Edge) {
    let mark = edge.log().mark();
    clock.set("+40d");
    pebble.proxy.wait(NEW_ORDER, 3);
    edge.log()
        .wait_json(mark, "a renewal", |line| line["message"] == "a certificate was obtained and is in use");
    let due = edge.log().wait_json(0, "an order that is due", |line| line["why"] == "it has expired");
    assert_eq!(due["message"], "a certificate is ordered");
    // Whatever the clock was right about when the CA was asked, it asks again once it has jumped: that is a look.
    let ahead = asked_after(edge, "");
    let renewed = record(edge, NAME)["bundle"].clone();
    clock.set("-3d");
    let behind = asked_after(edge, &ahead);
    assert!(behind < ahead, "{behind} {ahead}");
    assert_eq!(record(edge, NAME)["bundle"], renewed);
    let status = certs(edge, "show", NAME);
    assert!(status.0 == Some(0) && status.1.contains(": the CA's window"), "{status:?}");
    clock.set("+3d");
    asked_after(edge, &behind);
    assert_eq!(record(edge, NAME)["bundle"], renewed);
}

/// When the CA was asked about the certificate of the site, by the edge's clock, as soon as that is another moment.
fn asked_after(edge: &Edge, before: &str) -> String {
    let begin = Instant::now();
    loop {
        let asked = record(edge, NAME)["ari"]["checked"].as_str().unwrap_or_default().to_owned();
        if !asked.is_empty() && asked != before {
            return asked;
        }
        // A look that the jump falls into puts the next one off, as always, by a minute.
        assert!(begin.elapsed() < 2 * PATIENCE, "the CA is not asked when to renew");
        std::thread::sleep(Duration::from_millis(20)); // a file tells nobody
    }
}

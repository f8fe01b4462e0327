//! Certificates from a real CA (pebble), with a fault proxy before it.

mod chain;
mod cloudflare;
mod command;
mod dns;
mod faults;
mod hostile;
mod named;
mod notices;
mod obtain;
mod pebble;
mod proxy;
mod renew;
mod resume;
mod staging;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;
use vestibule::acme::store::{Record, RecordId, Store};
use vestibule::name::HostPattern;

use self::pebble::{Pebble, rows};
use crate::support::client;
use crate::support::edge::{Edge, run};
use crate::support::lines::text;

/// The site's name in most tests.
const NAME: &str = "app.test";
/// Longer than the first step of the retry ladder with all of its jitter.
const FIRST_RETRY: Duration = Duration::from_secs(90);

/// Starts an edge with one site, and more in `[acme]`.
#[track_caller]
fn edge(pebble: &Pebble, acme: &str) -> Edge {
    Edge::start(&config(pebble, acme, &[NAME]))
}

/// A configuration with a site for each of these names.
fn config(pebble: &Pebble, acme: &str, names: &[&str]) -> String {
    let sites: String = names.iter().map(|name| site(name)).collect();
    format!("{}{}{sites}", rows(pebble.ports, "public"), table(pebble, acme))
}

/// `[acme]`, for the CA.
fn table(pebble: &Pebble, more: &str) -> String {
    // Left to itself, pebble picks a profile at random.
    let profile = if more.contains("profile") { "" } else { "profile = \"default\"\n" };
    format!(
        "[acme]\nemail = \"ops@example.com\"\ndirectory = \"{}\"\nca_root = \"{}\"\n{profile}{more}\n",
        pebble.directory(),
        pebble.ca_root().display()
    )
}

/// A site that needs no upstream.
fn site(name: &str) -> String {
    format!(
        "[[site]]\ndomains = [\"{name}\"]\ncertificate = \"acme\"\n\
         [[site.route]]\npath = \"= /\"\nredirect = {{ to = \"/x\" }}\n"
    )
}

/// Waits until a handshake for the name succeeds, verified against what the CA issues with. Returns how long it took.
#[track_caller]
fn wait_for_handshake(pebble: &Pebble, name: &str, limit: Duration) -> Duration {
    let (start, roots) = (Instant::now(), pebble.issuing_root());
    loop {
        match handshake(pebble, &roots, name) {
            Ok(_) => return start.elapsed(),
            Err(error) => assert!(start.elapsed() < limit, "no handshake for {name}: {error}"),
        }
        std::thread::sleep(Duration::from_millis(5)); // the edge tells nobody outside
    }
}

/// One handshake; the leaf that was shown, in DER.
fn handshake(pebble: &Pebble, roots: &Path, name: &str) -> std::io::Result<Vec<u8>> {
    let address = ([127, 0, 0, 1], pebble.ports.https).into();
    let stream = client::tls(address, roots, name, &[b"http/1.1"])?;
    Ok(stream.conn.peer_certificates().unwrap()[0].to_vec())
}

/// The first line of the edge's log with this message.
#[track_caller]
fn said(edge: &Edge, message: &str) -> Value {
    edge.log().wait_json(0, message, |line| text(line, "message") == message)
}

/// Ends the edge as the kernel would, changes a record of its store, and starts another in the same folder: what the time, or
/// another clock, would have changed.
#[track_caller]
fn alter(mut edge: Edge, name: &str, change: impl FnOnce(&mut Record)) -> Edge {
    edge.signal(Signal::SIGKILL);
    edge.wait();
    let store = Store::open(&edge.folder().join("store"), None).unwrap();
    let id = RecordId::of(&[HostPattern::parse(name).unwrap()]);
    let mut record = store.load(&id).unwrap().unwrap();
    change(&mut record);
    store.save(&id, &record).unwrap();
    edge.kill_and_start()
}

/// As [`alter`]: the next attempt is due.
#[track_caller]
fn hurry(edge: Edge, name: &str) -> Edge {
    alter(edge, name, |record| record.retry.not_before = None)
}

/// Runs `vestibule certs` for a name.
fn certs(edge: &Edge, what: &str, name: &str) -> (Option<i32>, String, String) {
    let config = edge.folder().join("vestibule.toml");
    run(&["certs", what, name, "--config", config.to_str().unwrap()])
}

/// Where the one record of the store is whose file begins so.
fn record_path(edge: &Edge, name: &str) -> PathBuf {
    let folder = edge.folder().join("store/acme/certificates");
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let own = |path: &PathBuf| {
        let starts = path.file_name().unwrap().to_str().unwrap().starts_with(name);
        starts && path.extension().is_some_and(|extension| extension == "json")
    };
    entries.into_iter().find(own).expect("a record")
}

/// The one record of the store whose file begins so.
fn record(edge: &Edge, name: &str) -> Value {
    let file: Value = serde_json::from_slice(&fs::read(record_path(edge, name)).unwrap()).unwrap();
    file["content"].clone()
}

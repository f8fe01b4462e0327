//! Certificates from a real CA (pebble), with a fault proxy before it, which counts the orders that the CA has made.
//!
//! | fault | test | orders |
//! |---|---|---|
//! | the CA is down at the start | `obtain::while_the_ca_is_down_the_edge_serves_and_then_recovers` | 1 |
//! | the CA is down for days | `faults::when_the_first_ca_keeps_failing_the_next_is_asked` | 0, and 1 at the next |
//! | | `notices::each_step_towards_the_end_is_told_once_whoever_runs` | 1 |
//! | one of several names fails | `partial::the_good_names_get_theirs_and_the_other_joins_later` | 1 without it, 1 a try with it |
//! | | `partial::a_certificate_for_more_names_stays` | 1 without it, late |
//! | | `obtain::each_name_by_itself` | none for it, 1 for each other |
//! | bad nonces | `faults::storms_of_bad_nonces_are_outlived` | 1 |
//! | 429 and 503, Retry-After, HTML | `faults::a_rate_limit_is_kept_for_every_name_and_across_a_restart` | 0 |
//! | | `faults::passing_trouble_is_waited_out_without_a_second_order` | 1 at each of 5 points |
//! | cut and endless bodies | `faults::a_cut_answer_is_asked_for_again` | 1 at each of 4 points |
//! | | `hostile::a_chain_that_cannot_be_served_is_refused_and_the_old_certificate_stays` | 1 for each asked for |
//! | a hung CA | `faults::a_ca_that_hangs_is_given_up_and_asked_again` | 1 |
//! | the clock jumps | `clock::it_jumps_and_nothing_is_lost` | 1 more, in its time |
//! | | `hostile::what_a_wrong_clock_has_noted_holds_nothing_up`; `acme::renewal`'s table | 1 |
//! | the disk is full | `places::a_full_disk_costs_no_order` | 0 before, 1 after |
//! | the disk has become read-only | `places::a_store_that_has_become_read_only_is_told_of` | 0 before, 1 after |
//! | a corrupt record | `resume::a_damaged_record_is_set_aside_and_the_one_before_it_is_served` | 1, and 2 where both are |
//! | two edges race | `resume::of_two_edges_one_orders` | 1 |
//! | killed at any point | `resume::the_order_is_taken_up_again` | 1 at each of 10 points |
//! | the DNS points elsewhere | `hostile::a_name_that_leads_elsewhere_fails_five_times_an_hour_at_the_most` | 5 an hour at most |
//! | the account is unknown | `renew::an_account_that_the_ca_has_forgotten_is_made_again_once` | 1 a renewal |
//! | its key is lost | `command::an_account_whose_key_is_lost_is_made_again` | 1 a renewal |
//! | it is deactivated | `faults::a_deactivated_account_is_told_and_left_alone` | 0 more |
//! | revoked early | `command::renewing_and_revoking` | 1 more |
//! | a window in the past | `renew::a_window_in_the_past_renews_at_once_and_says_what_is_replaced` | 2 |
//! | | `hostile::a_window_that_is_always_in_the_past_makes_no_storm` | 2, a third after a minute |
//! | malformed renewal information | `renew::renewal_information_that_makes_no_sense_changes_nothing` | 1 |
//! | a name is removed | `obtain::a_site_that_a_reload_brings_is_seen_to_at_once_and_one_that_it_takes_stops` | none for it |

mod chain;
mod clock;
mod cloudflare;
mod command;
mod dns;
mod faults;
mod hostile;
mod metrics;
mod named;
mod notices;
mod obtain;
mod partial;
mod pebble;
mod places;
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

/// The same, where it takes up to a minute: a deadline of the edge's own, or a step of its ladder.
#[track_caller]
fn said_late(edge: &Edge, message: &str) -> Value {
    let begin = Instant::now();
    while !edge.log().all().contains(message) && begin.elapsed() < FIRST_RETRY {
        std::thread::sleep(Duration::from_millis(50)); // longer than a line of the log is waited for
    }
    said(edge, message)
}

/// Ends the edge as the kernel would, changes a record of its store, and starts another in the same folder: what the time, or
/// another clock, would have changed. Several names of one record stand with blanks between them.
#[track_caller]
fn alter(mut edge: Edge, name: &str, change: impl FnOnce(&mut Record)) -> Edge {
    edge.signal(Signal::SIGKILL);
    edge.wait();
    alter_in(&edge.folder().join("store"), name, change);
    edge.kill_and_start()
}

/// Changes a record of a store that nobody uses.
#[track_caller]
fn alter_in(store: &Path, name: &str, change: impl FnOnce(&mut Record)) {
    let store = Store::open(store, None).unwrap();
    let names: Vec<_> = name.split(' ').map(|name| HostPattern::parse(name).unwrap()).collect();
    let id = RecordId::of(&names);
    let mut record = store.load(&id).unwrap().unwrap();
    change(&mut record);
    store.save(&id, &record).unwrap();
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

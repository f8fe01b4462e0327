//! Session tickets: shared by workers, never by policies.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use rustls::client::{ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, NamedGroup, SupportedProtocolVersion};
use vestibule::tls::{Reason, Shared};

use super::pki::{Ca, Pair};
use super::{Listener, loaded};

/// A client's memory that offers any ticket it has to any server, whatever the name.
#[derive(Debug, Default)]
struct Reckless {
    tls12: Mutex<Option<Tls12ClientSessionValue>>,
    tls13: Mutex<VecDeque<Tls13ClientSessionValue>>,
}

impl ClientSessionStore for Reckless {
    fn set_kx_hint(&self, _: ServerName<'static>, _: NamedGroup) {}

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        None
    }

    fn set_tls12_session(&self, _: ServerName<'static>, value: Tls12ClientSessionValue) {
        *self.tls12.lock().unwrap() = Some(value);
    }

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.tls12.lock().unwrap().clone()
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {
        *self.tls12.lock().unwrap() = None;
    }

    fn insert_tls13_ticket(&self, _: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.tls13.lock().unwrap().push_back(value);
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.tls13.lock().unwrap().pop_back()
    }
}

const VERSIONS: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS13, &rustls::version::TLS12];

fn reckless(ca: &Ca, version: &'static SupportedProtocolVersion, pair: Option<&Pair>) -> Arc<ClientConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(ca.roots());
    let mut config = match pair {
        Some(pair) => builder.with_client_auth_cert(pair.chain(), pair.private()).unwrap(),
        None => builder.with_no_client_auth(),
    };
    config.resumption = Resumption::store(Arc::new(Reckless::default()));
    Arc::new(config)
}

#[tokio::test]
async fn a_ticket_of_one_worker_resumes_at_another() {
    let (ca, shared) = (Ca::new("root"), Shared::new().unwrap());
    let tls = loaded(&ca, &["a.test"], &shared, None);
    let mut workers =
        [Listener::start(vec![("a.test", tls.clone())]), Listener::start(vec![("a.test", tls)])];
    for version in VERSIONS {
        let config = reckless(&ca, version, None);
        for round in 0..4 {
            let worker = &mut workers[round % 2];
            worker.hello("a.test", &config).await.unwrap();
            let seen = worker.outcome().await.unwrap();
            assert_eq!(seen.resumed, round > 0, "{version:?} round {round}");
            let exchanged = version.version == rustls::ProtocolVersion::TLSv1_3 || round == 0;
            assert_eq!(seen.group.is_some(), exchanged, "{version:?} round {round}");
        }
    }
}

#[tokio::test]
async fn a_ticket_survives_a_reload_and_ends_with_the_process() {
    let (ca, shared) = (Ca::new("root"), Shared::new().unwrap());
    let pair = [loaded(&ca, &["a.test"], &shared, None), loaded(&ca, &["a.test"], &shared, None)];
    let stranger = loaded(&ca, &["a.test"], &Shared::new().unwrap(), None);
    let config = reckless(&ca, &rustls::version::TLS13, None);
    let [before, after] = pair;
    for (tls, resumed) in [(before, false), (after, true), (stranger, false)] {
        let mut edge = Listener::start(vec![("a.test", tls)]);
        edge.hello("a.test", &config).await.unwrap();
        assert_eq!(edge.outcome().await.unwrap().resumed, resumed);
    }
}

#[tokio::test]
async fn a_ticket_is_for_its_own_name() {
    let (ca, shared) = (Ca::new("root"), Shared::new().unwrap());
    let sites = ["a.test", "b.test"].map(|name| (name, loaded(&ca, &[name], &shared, None)));
    let mut edge = Listener::start(sites.into());
    for version in VERSIONS {
        let config = reckless(&ca, version, None);
        for name in ["a.test", "b.test"] {
            edge.hello(name, &config).await.unwrap();
            assert!(!edge.outcome().await.unwrap().resumed, "{version:?} {name}");
        }
    }
}

#[tokio::test]
async fn no_ticket_crosses_from_open_sites_to_closed_ones() {
    let (ca, clients) = (Ca::new("root"), Ca::new("clients"));
    let shared = Shared::new().unwrap();
    let open = loaded(&ca, &["a.test", "b.test"], &shared, None);
    let closed = loaded(&ca, &["a.test", "b.test"], &shared, Some(&clients));
    // The same name behind both policies is the worst case: nothing but the keys tells them apart.
    for (first, then) in [("a.test", "a.test"), ("a.test", "b.test")] {
        for version in VERSIONS {
            let config = reckless(&ca, version, None);
            let mut edge = Listener::start(vec![(first, open.clone())]);
            edge.hello(first, &config).await.unwrap();
            assert!(!edge.outcome().await.unwrap().resumed);
            let mut edge = Listener::start(vec![(then, closed.clone())]);
            assert!(edge.hello(then, &config).await.is_err(), "{version:?} {then}");
            assert_eq!(edge.outcome().await, Err(Reason::ClientCertificate), "{version:?} {then}");
        }
    }
}

#[tokio::test]
async fn no_ticket_crosses_from_one_client_ca_to_another() {
    let (ca, one, two) = (Ca::new("root"), Ca::new("clients"), Ca::new("clients"));
    let shared = Shared::new().unwrap();
    let alice = one.client("alice");
    let at_one = loaded(&ca, &["a.test"], &shared, Some(&one));
    let also_one = loaded(&ca, &["a.test"], &shared, Some(&one));
    let at_two = loaded(&ca, &["a.test"], &shared, Some(&two));
    for version in VERSIONS {
        let config = reckless(&ca, version, Some(&alice));
        for (tls, expected) in
            [(&at_one, Ok(false)), (&also_one, Ok(true)), (&at_two, Err(Reason::ClientCertificate))]
        {
            let mut edge = Listener::start(vec![("a.test", tls.clone())]);
            let _ = edge.hello("a.test", &config).await;
            assert_eq!(edge.outcome().await.map(|seen| seen.resumed), expected, "{version:?}");
        }
    }
}

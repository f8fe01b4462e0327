//! The challenge dns-01 (RFC 8555 section 8.4): TXT records, written down in the store before they are written anywhere else,
//! so that none is left behind.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::rr::Name;
use hickory_resolver::system_conf::read_system_conf;
use tokio::time::Instant;

use super::super::account::on_disk;
use super::super::client::CaError;
use super::super::failure::Failure;
use super::super::order::Keep;
use super::super::progress::Under;
use super::super::store::{Published, Record, RecordId, Store};
use super::cloudflare::Cloudflare;
use super::exec::Exec;
use super::lookup::{Lookup, Server};
use super::rfc2136::Rfc2136;
use crate::config::model::{self, DnsProvider};

/// How long others may remember a record, in seconds.
pub(super) const TTL: u32 = 60;
/// Where a name's record stands.
const LABEL: &str = "_acme-challenge";
const PORT: u16 = 53;

/// Who writes records, and who is asked about them.
pub(in super::super) struct Dns {
    provider: Provider,
    lookup: Lookup,
    propagation: Duration,
}

enum Provider {
    Rfc2136(Rfc2136),
    Exec(Exec),
    Cloudflare(Cloudflare),
}

/// What kept a record from being written, or from being seen.
#[derive(Debug, thiserror::Error)]
pub(in super::super) enum Trouble {
    /// A server cannot be reached.
    #[error("the name server {server} does not answer: {source}")]
    Silent {
        /// Which one.
        server: String,
        /// What happened.
        source: io::Error,
    },
    /// A server says no.
    #[error("the name server {server} {what}; {fix}")]
    Refused {
        /// Which one.
        server: String,
        /// As in "takes no updates".
        what: String,
        /// What to do.
        fix: String,
    },
    /// A server says something that is no answer.
    #[error("the name server {server} gave {why}")]
    Odd {
        /// Which one.
        server: String,
        /// As in "an answer that is not signed".
        why: String,
    },
    /// The time is up, and a name server lacks the record.
    #[error(
        "the name server {server} still lacks the record at {name}; where it only takes long, raise `propagation` in [acme] dns"
    )]
    NotOut {
        /// Which one.
        server: String,
        /// Where the record should be.
        name: String,
    },
    /// The program failed.
    #[error("the hook {program}, asked about {name}, {what}")]
    Hook {
        /// Its path.
        program: String,
        /// The record's name.
        name: String,
        /// As in "failed: exit status: 1".
        what: String,
    },
    /// An HTTP API cannot be reached.
    #[error(transparent)]
    Http(#[from] CaError),
    /// An HTTP API says no.
    #[error("Cloudflare {0}")]
    Cloudflare(String),
    /// Anything else.
    #[error("{0}")]
    Unfit(String),
}

impl Dns {
    /// Reads the secret that the configuration names, and the machine's resolvers. Reads the disk.
    ///
    /// # Errors
    /// The secret cannot be read or used; the text says what to do.
    pub(in super::super) fn of(dns: &model::Dns) -> Result<Self, String> {
        let provider = match &dns.provider {
            DnsProvider::Rfc2136 { server, key } => {
                Provider::Rfc2136(Rfc2136::new(server.clone(), &key.read()?)?)
            }
            DnsProvider::Exec { command, timeout } => Provider::Exec(Exec::new(command.clone(), *timeout)),
            DnsProvider::Cloudflare { token, api } => {
                Provider::Cloudflare(Cloudflare::new(api.clone(), &token.read()?)?)
            }
        };
        let resolvers =
            Some(dns.resolvers.clone()).filter(|own| !own.is_empty()).unwrap_or_else(machines_own);
        let lookup = Lookup { resolvers, nameservers: dns.nameservers.clone() };
        Ok(Self { provider, lookup, propagation: dns.propagation })
    }

    /// What can be known to be wrong without asking anybody. Reads the disk.
    pub(in super::super) fn check(&self) -> Result<(), String> {
        match &self.provider {
            Provider::Exec(hook) => hook.check(),
            Provider::Rfc2136(_) | Provider::Cloudflare(_) => Ok(()),
        }
    }

    /// Writes the record of every domain, each with its value, and waits until they are out. What is written stands in
    /// the record of the certificate before.
    pub(in super::super) async fn publish(
        &self,
        proofs: Vec<(String, String)>,
        record: &mut Record,
        keep: &mut impl Keep,
        under: &Under,
    ) -> Result<(), Failure> {
        let mut wanted = Vec::new();
        for (domain, value) in proofs {
            let name = Name::from_ascii(format!("{LABEL}.{domain}."))
                .map_err(|error| Failure::Unfit(format!("{domain}: {error}")))?;
            let name = self.lookup.follow(&name).await;
            let entry = Published { name: name.to_ascii(), value: value.clone() };
            if !record.published.contains(&entry) {
                record.published.push(entry);
            }
            wanted.push((domain, name, value));
        }
        keep.keep(record).await?;
        for (domain, name, value) in &wanted {
            under.step(format!("writing the record {}", name.to_ascii()));
            self.provider.add(name, value).await.map_err(failed(domain, "writing the record"))?;
        }
        under.step("waiting for the name servers to have the records".to_owned());
        self.wait(&wanted).await
    }

    /// Takes away what stands in the record of the certificate. What cannot be taken away stays there, for a later try.
    pub(in super::super) async fn retract(&self, record: &mut Record) {
        for entry in std::mem::take(&mut record.published) {
            let removed = match Name::from_ascii(&entry.name) {
                Ok(name) => self.provider.remove(&name, &entry.value).await,
                Err(error) => Err(Trouble::Unfit(error.to_string())),
            };
            if let Err(trouble) = removed {
                tracing::warn!(name = entry.name, %trouble, "a challenge's record could not be removed; tried again in a minute");
                record.published.push(entry);
            }
        }
    }

    async fn wait(&self, wanted: &[(String, Name, String)]) -> Result<(), Failure> {
        let deadline = Instant::now() + self.propagation;
        let mut zones = HashMap::new();
        for (domain, name, value) in wanted {
            // The names of one certificate mostly have one parent, and so one zone.
            let parent = name.base_name();
            if !zones.contains_key(&parent) {
                zones.insert(parent.clone(), self.servers(name).await);
            }
            let servers = zones.get(&parent).map(Vec::as_slice).unwrap_or_default();
            if servers.is_empty() {
                tracing::warn!(%name, "its zone's name servers are not known here; the CA is asked to look all the same");
                continue;
            }
            self.lookup
                .wait(servers, name, value, deadline)
                .await
                .map_err(failed(domain, "waiting for the record"))?;
        }
        Ok(())
    }

    /// Who must have the record before a CA looks.
    async fn servers(&self, name: &Name) -> Vec<Server> {
        if !self.lookup.nameservers.is_empty() {
            return self.lookup.nameservers.iter().map(|address| vec![*address]).collect();
        }
        let found = match &self.provider {
            Provider::Rfc2136(server) => server.name_servers(name).await,
            Provider::Exec(_) | Provider::Cloudflare(_) => match self.lookup.zone(name).await {
                Ok(zone) => self.lookup.name_servers(&zone).await,
                Err(trouble) => Err(trouble),
            },
        };
        let servers = match found {
            Ok(names) => self.lookup.addresses(&names).await,
            Err(trouble) => {
                tracing::debug!(%name, %trouble, "the zone's name servers were not found");
                Vec::new()
            }
        };
        match &self.provider {
            // Nobody knows the addresses of a zone that is not for the world: the server itself does for all of them.
            Provider::Rfc2136(server) if servers.is_empty() => server.addresses().await.into_iter().collect(),
            _ => servers,
        }
    }
}

impl Provider {
    async fn add(&self, name: &Name, value: &str) -> Result<(), Trouble> {
        match self {
            Self::Rfc2136(server) => server.add(name, value).await,
            Self::Exec(hook) => hook.run("present", name, value).await,
            Self::Cloudflare(api) => api.add(name, value).await,
        }
    }

    async fn remove(&self, name: &Name, value: &str) -> Result<(), Trouble> {
        match self {
            Self::Rfc2136(server) => server.remove(name, value).await,
            Self::Exec(hook) => hook.run("cleanup", name, value).await,
            Self::Cloudflare(api) => api.remove(name, value).await,
        }
    }
}

/// Takes away what was left behind by an order that ended with its process: the one who holds the certificate's lock may.
/// `dns` is None where the configuration has none any more.
pub(in super::super) async fn tidy(
    dns: Option<&Dns>,
    store: &Arc<Store>,
    id: &RecordId,
) -> Result<(), Failure> {
    let own = id.clone();
    let Some(_lock) = on_disk(store, move |store| store.lock(&own)).await? else { return Ok(()) };
    let own = id.clone();
    let Some(mut record) = on_disk(store, move |store| store.load(&own)).await? else { return Ok(()) };
    let before = record.published.len();
    match dns {
        Some(dns) => dns.retract(&mut record).await,
        None => {
            for Published { name, value } in record.published.drain(..) {
                tracing::warn!(
                    name,
                    value,
                    "a challenge's record was left, and [acme] has no dns to remove it by"
                );
            }
        }
    }
    if record.published.len() == before {
        return Ok(());
    }
    tracing::info!(certificate = %id, "what an order had left in the DNS was removed");
    let own = id.clone();
    on_disk(store, move |store| store.save(&own, &record)).await
}

fn failed(domain: &str, doing: &'static str) -> impl FnOnce(Trouble) -> Failure {
    let domain = domain.to_owned();
    move |source| Failure::Dns { domain, doing, source: Box::new(source) }
}

/// As resolver(3) does without a file.
fn machines_own() -> Vec<SocketAddr> {
    let found = read_system_conf().map(|(config, _)| {
        config.name_servers().iter().map(|server| SocketAddr::new(server.ip, PORT)).collect::<Vec<_>>()
    });
    found.unwrap_or_else(|_| vec![SocketAddr::from(([127, 0, 0, 1], PORT))])
}

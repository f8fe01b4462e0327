//! Where names lead, and whether a record is out at its zone's name servers.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::dns01::Trouble;
use super::query::{self, question};

/// The most aliases that are followed one behind the other.
const ALIASES: usize = 8;
/// The waits between looks at a zone's name servers: from the first, each half as long again, to the last.
const LOOKS: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// How often a name server may be silent while another has the record.
const SILENCES: u32 = 3;
const PORT: u16 = 53;

/// Who is asked.
pub(super) struct Lookup {
    /// At least one.
    pub(super) resolvers: Vec<SocketAddr>,
    /// Who is asked whether a record is out; empty: the zone's own.
    pub(super) nameservers: Vec<SocketAddr>,
}

/// A name server, at each of its addresses.
pub(super) type Server = Vec<SocketAddr>;

impl Lookup {
    /// Where a name leads by CNAMEs (RFC 8555 section 8.4 lets a CA follow them): itself, where there is none, or where nobody
    /// says.
    pub(super) async fn follow(&self, name: &Name) -> Name {
        let mut at = name.clone();
        for _ in 0..ALIASES {
            match self.alias(&at).await {
                Ok(Some(next)) => at = next,
                Ok(None) => break,
                Err(trouble) => {
                    tracing::warn!(name = %at, %trouble, "whether a name is an alias is not known; it is taken for none");
                    break;
                }
            }
        }
        at
    }

    /// The name's own CNAME. One that every name beside it has as well is a wildcard's, and gives way to any record.
    async fn alias(&self, name: &Name) -> Result<Option<Name>, Trouble> {
        let Some(next) = cname(&self.ask(name, RecordType::CNAME).await?, name) else { return Ok(None) };
        let other = format!("vestibule-{:08x}", getrandom::u32().unwrap_or_default());
        let Ok(beside) = name.base_name().prepend_label(other.as_str()) else { return Ok(Some(next)) };
        let wild = cname(&self.ask(&beside, RecordType::CNAME).await?, &beside);
        Ok((wild.as_ref() != Some(&next)).then_some(next))
    }

    /// The zone that has a name.
    pub(super) async fn zone(&self, name: &Name) -> Result<Name, Trouble> {
        let mut asked = name.clone();
        while !asked.is_root() {
            if let Some(zone) = zone_in(&self.ask(&asked, RecordType::SOA).await?, name) {
                return Ok(zone);
            }
            asked = asked.base_name();
        }
        Err(Trouble::Unfit(format!("nobody knows the zone of {name}")))
    }

    /// The names of a zone's name servers.
    pub(super) async fn name_servers(&self, zone: &Name) -> Result<Vec<Name>, Trouble> {
        Ok(name_servers(&self.ask(zone, RecordType::NS).await?))
    }

    /// The addresses of name servers; those without one are left out.
    pub(super) async fn addresses(&self, names: &[Name]) -> Vec<Server> {
        let mut servers = Vec::new();
        for name in names {
            let mut server = Server::new();
            for kind in [RecordType::A, RecordType::AAAA] {
                let Ok(answer) = self.ask(name, kind).await else { continue };
                server.extend(addresses_in(&answer));
            }
            servers.push(server);
        }
        servers.retain(|server| !server.is_empty());
        servers
    }

    /// Asks the resolvers in turn, until one answers.
    async fn ask(&self, name: &Name, kind: RecordType) -> Result<Message, Trouble> {
        let mut last = None;
        for resolver in &self.resolvers {
            match query::ask(*resolver, question(name, kind, true), None).await {
                Ok(answer) if is_told(&answer) => return Ok(answer),
                Ok(answer) => {
                    let why = format!("no answer for {name} ({})", query::mnemonic(answer.response_code));
                    last = Some(Trouble::Odd { server: resolver.to_string(), why });
                }
                Err(trouble) => last = Some(trouble),
            }
        }
        Err(last.unwrap_or_else(|| Trouble::Unfit("there is no resolver".to_owned())))
    }

    /// Waits until every one of these servers has the value. Those that never answer are not waited for any longer than
    /// the others: a CA may reach what this machine cannot.
    pub(super) async fn wait(
        &self,
        servers: &[Server],
        name: &Name,
        value: &str,
        deadline: Instant,
    ) -> Result<(), Trouble> {
        let (mut pause, mut silences) = (LOOKS.0, 0);
        loop {
            let seen = look(servers, name, value, !self.nameservers.is_empty()).await;
            if seen.lacking.is_none() && (seen.silent.is_none() || (seen.has > 0 && silences >= SILENCES)) {
                return Ok(());
            }
            if Instant::now() + pause > deadline {
                return seen.end(name);
            }
            silences += 1;
            tokio::time::sleep(pause).await;
            pause = (pause * 3 / 2).min(LOOKS.1);
        }
    }
}

/// What servers have: how many the value, and one each of those that lack it and that say nothing.
#[derive(Default)]
struct Seen {
    has: usize,
    lacking: Option<SocketAddr>,
    silent: Option<SocketAddr>,
}

impl Seen {
    /// At the deadline: a server that lacks the record is a failure, and silence is not.
    fn end(self, name: &Name) -> Result<(), Trouble> {
        match (self.lacking, self.silent) {
            (Some(server), _) => Err(Trouble::NotOut { server: server.to_string(), name: name.to_string() }),
            (None, Some(server)) => {
                tracing::warn!(%name, %server, "a name server does not answer this machine; the CA is asked to look all the same");
                Ok(())
            }
            (None, None) => Ok(()),
        }
    }
}

/// Asks all servers at once.
async fn look(servers: &[Server], name: &Name, value: &str, recursive: bool) -> Seen {
    let mut all = JoinSet::new();
    for server in servers {
        let (server, name, value) = (server.clone(), name.clone(), value.to_owned());
        all.spawn(async move {
            let has = has(&server, &name, &value, recursive).await;
            (server.first().copied(), has)
        });
    }
    let mut seen = Seen::default();
    while let Some(done) = all.join_next().await {
        match done {
            Ok((_, Some(true))) => seen.has += 1,
            Ok((server, Some(false))) => seen.lacking = server,
            Ok((server, None)) => seen.silent = server,
            Err(_) => {}
        }
    }
    seen
}

/// Whether a server has the value; None where it does not answer at any of its addresses.
async fn has(server: &[SocketAddr], name: &Name, value: &str, recursive: bool) -> Option<bool> {
    for address in server {
        let answer = query::ask(*address, question(name, RecordType::TXT, recursive), None).await;
        if let Some(answer) = answer.ok().filter(is_told) {
            return Some(values(&answer, name).any(|own| own == value.as_bytes()));
        }
    }
    None
}

/// Whether a server says what there is: one that refuses, or fails, is no better than a silent one.
fn is_told(answer: &Message) -> bool {
    matches!(answer.response_code, ResponseCode::NoError | ResponseCode::NXDomain)
}

fn values<'a>(answer: &'a Message, name: &'a Name) -> impl Iterator<Item = Vec<u8>> + 'a {
    answer.answers.iter().filter(move |record| record.name == *name).filter_map(|record| match &record.data {
        RData::TXT(txt) => Some(txt.txt_data.concat()),
        _ => None,
    })
}

fn cname(answer: &Message, name: &Name) -> Option<Name> {
    answer.answers.iter().find_map(|record| match &record.data {
        RData::CNAME(target) if record.name == *name => Some(target.0.clone()),
        _ => None,
    })
}

/// The zone of a name, where an answer tells it.
pub(super) fn zone_in(answer: &Message, name: &Name) -> Option<Name> {
    let records = answer.answers.iter().chain(&answer.authorities);
    records
        .filter(|record| record.record_type() == RecordType::SOA && record.name.zone_of(name))
        .map(|record| record.name.clone())
        .next()
}

/// The name servers that an answer tells.
pub(super) fn name_servers(answer: &Message) -> Vec<Name> {
    let server = |data: &RData| match data {
        RData::NS(name) => Some(name.0.clone()),
        _ => None,
    };
    answer.answers.iter().filter_map(|record| server(&record.data)).collect()
}

fn addresses_in(answer: &Message) -> impl Iterator<Item = SocketAddr> + '_ {
    answer.answers.iter().filter_map(|record| match &record.data {
        RData::A(address) => Some(SocketAddr::new(IpAddr::V4(address.0), PORT)),
        RData::AAAA(address) => Some(SocketAddr::new(IpAddr::V6(address.0), PORT)),
        _ => None,
    })
}

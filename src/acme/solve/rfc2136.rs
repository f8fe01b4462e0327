//! A name server that takes updates (RFC 2136), signed with a key that both have (RFC 8945).

use std::net::SocketAddr;
use std::time::Duration;

use hickory_proto::op::{Message, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::TXT;
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType, TSigner};
use tokio::time::timeout;

use super::dns01::{TTL, Trouble};
use super::{query, tsig};
use crate::config::model::DnsServer;

/// How long finding the server's address may take.
const SETUP: Duration = Duration::from_secs(5);

pub(super) struct Rfc2136 {
    server: DnsServer,
    key: TSigner,
}

impl Rfc2136 {
    /// `key` is what the key's file has in it. The error says what to do.
    pub(super) fn new(server: DnsServer, key: &[u8]) -> Result<Self, String> {
        Ok(Self { server, key: tsig::read(key)? })
    }

    /// Adds a value; others at the same name stay.
    pub(super) async fn add(&self, name: &Name, value: &str) -> Result<(), Trouble> {
        let record = Record::from_rdata(name.clone(), TTL, txt(value));
        self.update(name, record).await
    }

    /// Takes this value away; others at the same name stay.
    pub(super) async fn remove(&self, name: &Name, value: &str) -> Result<(), Trouble> {
        let mut record = Record::from_rdata(name.clone(), 0, txt(value));
        // RFC 2136 section 2.5.4.
        record.dns_class = DNSClass::NONE;
        self.update(name, record).await
    }

    /// The name servers of the zone that has the name, as the server knows them.
    pub(super) async fn name_servers(&self, name: &Name) -> Result<Vec<Name>, Trouble> {
        let zone = self.zone(name).await?;
        let answer = self.ask(|| query::question(&zone, RecordType::NS, false)).await?;
        Ok(super::lookup::name_servers(&answer))
    }

    async fn update(&self, name: &Name, record: Record) -> Result<(), Trouble> {
        let zone = self.zone(name).await?;
        let answer = self.ask(|| update(&zone, record.clone())).await?;
        match answer.response_code {
            ResponseCode::NoError => Ok(()),
            code => Err(self.refused(&zone, name, code)),
        }
    }

    /// The zone that has the name: its owner stands in the answer to a question for its SOA, or beside a denial
    /// (RFC 2308 section 3).
    async fn zone(&self, name: &Name) -> Result<Name, Trouble> {
        let mut code = ResponseCode::NoError;
        let mut asked = name.clone();
        while !asked.is_root() {
            let answer = self.ask(|| query::question(&asked, RecordType::SOA, false)).await?;
            if let Some(zone) = super::lookup::zone_in(&answer, name).filter(|_| answer.authoritative) {
                return Ok(zone);
            }
            code = answer.response_code;
            asked = asked.base_name();
        }
        let what = match code {
            ResponseCode::NoError => format!("has no zone with {name}"),
            code => format!("has no zone with {name} ({})", query::mnemonic(code)),
        };
        let fix = "name the zone's primary server in `server`, or lead the name to its zone with a CNAME";
        Err(Trouble::Refused { server: self.server.to_string(), what, fix: fix.to_owned() })
    }

    /// At each of the server's addresses in turn, until one answers.
    async fn ask(&self, message: impl Fn() -> Message) -> Result<Message, Trouble> {
        let mut last = None;
        for address in self.addresses().await? {
            match query::ask(address, message(), Some(&self.key)).await {
                Err(silent @ Trouble::Silent { .. }) => last = Some(silent),
                end => return end,
            }
        }
        Err(last.unwrap_or_else(|| Trouble::Unfit(format!("{} has no address", self.server.host))))
    }

    /// Where the server is.
    pub(super) async fn addresses(&self) -> Result<Vec<SocketAddr>, Trouble> {
        let DnsServer { host, port } = &self.server;
        let found = timeout(SETUP, tokio::net::lookup_host((host.as_str(), *port))).await;
        let found = found.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()));
        let unknown = |source| Trouble::Silent { server: self.server.to_string(), source };
        Ok(found.map_err(unknown)?.collect())
    }

    fn refused(&self, zone: &Name, name: &Name, code: ResponseCode) -> Trouble {
        let key = self.key.signer_name().to_ascii();
        let (what, fix) = match code {
            ResponseCode::Refused => (
                format!("lets the key {key} change nothing at {name}"),
                format!("in BIND's zone, write update-policy {{ grant {key} name {name} TXT; }};"),
            ),
            ResponseCode::NotAuth => {
                (format!("is not the primary server of {zone}"), "name that one in `server`".to_owned())
            }
            ResponseCode::NotImp => ("takes no updates".to_owned(), "turn them on there".to_owned()),
            ResponseCode::ServFail => {
                ("could not write the zone".to_owned(), "its log says why; often a file's owner".to_owned())
            }
            _ => (format!("refuses to update {zone}"), "its log says why".to_owned()),
        };
        let what = format!("{what} ({})", query::mnemonic(code));
        Trouble::Refused { server: self.server.to_string(), what, fix }
    }
}

/// RFC 2136 section 2.
fn update(zone: &Name, record: Record) -> Message {
    let mut message = Message::query();
    message.metadata.op_code = OpCode::Update;
    message.metadata.recursion_desired = false;
    message.add_query(Query::query(zone.clone(), RecordType::SOA));
    message.add_authority(record);
    message
}

fn txt(value: &str) -> RData {
    RData::TXT(TXT::new(vec![value.to_owned()]))
}

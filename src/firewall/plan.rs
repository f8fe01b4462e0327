//! Who may connect where, as one value: what the kernel is told, and what an address would meet.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use crate::addr::{ClientAddr, Gate, Source};
use crate::config::model::{Bind, Certificate, Challenge, Config, HostRow, Kind, Listen, Row, Serve};

/// Every port that anybody may connect to. What has no door here is closed.
#[derive(Debug, Clone)]
pub struct Plan {
    /// In the order of the file: the edge's rows, the host's, and the place where the edge itself is looked at.
    pub doors: Vec<Door>,
    /// Who belongs to a source for a while.
    pub leases: Vec<Held>,
}

/// An address that belongs to a source for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The source's name.
    pub source: Arc<str>,
    /// The address or network.
    pub network: IpNet,
    /// For how much longer.
    pub left: Duration,
}

/// One port, at one address or at all.
#[derive(Debug, Clone)]
pub struct Door {
    /// Where.
    pub bind: Bind,
    /// What it is there for.
    pub purpose: Purpose,
    /// Who may connect, as the row says: of a row with `proxy_protocol`, the client that the header names.
    pub gate: Gate,
    /// The peers that alone may connect, with a PROXY header; None: nobody may send one.
    pub proxies: Option<Vec<Source>>,
    /// A CA may knock here, from addresses that nobody knows: the kernel keeps out the denied alone, and the edge, which
    /// answers a pending challenge and nothing else, closes to whoever else the row does not allow.
    pub knock: bool,
}

/// What a port is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Redirects to https.
    Http,
    /// The sites.
    Https,
    /// TCP, byte for byte.
    Forward,
    /// A daemon of the host's own, TCP and UDP.
    Host,
    /// Where the edge itself is looked at.
    Admin,
}

/// What an address meets at a door.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It may connect, as a member of this source; for a while where `leased`.
    Allowed {
        /// The source's name.
        source: Arc<str>,
        /// Whether it belongs to it by a lease.
        leased: bool,
    },
    /// It is this machine itself, which the kernel's rules and the window let in.
    Own,
    /// It is a proxy of the row's, of this source: its PROXY header says who is let in.
    Proxy(Arc<str>),
    /// Only the row's proxies may connect, and it is none.
    NotProxy,
    /// It is closed, as it belongs to this source.
    Denied(Arc<str>),
    /// It is closed, as it belongs to no source that is allowed.
    Unlisted,
}

impl Verdict {
    /// Whether a connection is made.
    pub fn is_open(&self) -> bool {
        matches!(self, Self::Allowed { .. } | Self::Own | Self::Proxy(_))
    }
}

impl Plan {
    /// The plan of a configuration, and of the leases of this moment.
    pub fn new(config: &Config, leases: Vec<Held>) -> Self {
        let knocked = Knocked::new(config);
        let rows = config.rows.iter().map(|row| Door::of_row(row, &knocked));
        let hosts = config.host_rows.iter().map(Door::of_host);
        let admin = config.admin.listen.iter().map(Door::of_admin);
        let mut doors: Vec<Door> = rows.chain(hosts).chain(admin).collect();
        for door in &mut doors {
            door.lease(&leases);
        }
        Self { doors, leases }
    }

    /// The doors that outsiders can reach, those of one address before those of all.
    pub fn outside(&self) -> Vec<&Door> {
        let mut doors: Vec<&Door> = self.doors.iter().filter(|door| door.is_outside()).collect();
        doors.sort_by_key(|door| door.bind.address().is_none());
        doors
    }

    /// What an address meets at each door that it can reach.
    pub fn probe(&self, client: ClientAddr) -> Vec<(&Door, Verdict)> {
        let reaches = |door: &&Door| {
            let address = door.bind.address();
            address.is_none_or(|address| address.is_ipv4() == client.ip().is_ipv4())
        };
        let is_own =
            |door: &Door| client.ip().is_loopback() && matches!(door.purpose, Purpose::Host | Purpose::Admin);
        let verdict = |door: &Door| if is_own(door) { Verdict::Own } else { door.verdict(client) };
        self.doors.iter().filter(reaches).map(|door| (door, verdict(door))).collect()
    }

    /// What an address meets at one of this machine's addresses and ports; None: there is no door, and it is closed.
    pub fn meets(&self, client: ClientAddr, local: IpAddr, port: u16) -> Option<(&Door, Verdict)> {
        let at =
            |door: &&Door| door.bind.port() == port && door.bind.address().is_none_or(|own| own == local);
        let mut doors: Vec<&Door> = self.doors.iter().filter(at).collect();
        doors.sort_by_key(|door| door.bind.address().is_none());
        doors.first().map(|door| (*door, door.verdict(client)))
    }
}

impl Door {
    fn of_row(row: &Row, knocked: &Knocked) -> Self {
        let purpose = match row.kind {
            Kind::Serve(Serve::Http) => Purpose::Http,
            Kind::Serve(Serve::Https) => Purpose::Https,
            Kind::Forward(_) => Purpose::Forward,
        };
        let knock = knocked.at(purpose, row.bind.port()) && row.proxy_protocol.is_none();
        Self { bind: row.bind, purpose, gate: row.gate.clone(), proxies: row.proxy_protocol.clone(), knock }
    }

    fn of_host(row: &HostRow) -> Self {
        let purpose = Purpose::Host;
        Self { bind: row.bind, purpose, gate: row.gate.clone(), proxies: None, knock: false }
    }

    fn of_admin(listen: &Listen) -> Self {
        let gate = Gate { allow: listen.allow.clone(), deny: Vec::new() };
        Self { bind: listen.bind, purpose: Purpose::Admin, gate, proxies: None, knock: false }
    }

    /// Gives the row's sources what they hold for a while.
    fn lease(&mut self, leases: &[Held]) {
        let Gate { allow, deny } = &mut self.gate;
        for source in allow.iter_mut().chain(deny).chain(self.proxies.iter_mut().flatten()) {
            let mut own = leases.iter().filter(|held| held.source == source.name).peekable();
            source.leased = own.peek().is_some().then(|| Arc::new(own.map(|held| held.network).collect()));
        }
    }

    /// What the kernel holds connections to.
    pub fn kernel_gate(&self) -> Gate {
        match &self.proxies {
            Some(proxies) => Gate { allow: proxies.clone(), deny: Vec::new() },
            None if self.knock => Gate { deny: self.gate.deny.clone(), ..Gate::open() },
            None => self.gate.clone(),
        }
    }

    /// Whether UDP goes by it too.
    pub fn udp(&self) -> bool {
        self.purpose == Purpose::Host
    }

    /// Whether others than this machine can reach it, at a port that is known beforehand.
    pub fn is_outside(&self) -> bool {
        self.bind.port() != 0 && !self.bind.address().is_some_and(|address| address.is_loopback())
    }

    /// What an address meets here.
    pub fn verdict(&self, client: ClientAddr) -> Verdict {
        let holder = |list: &[Source]| list.iter().find(|source| source.contains(client)).cloned();
        if let Some(proxies) = &self.proxies {
            return holder(proxies).map_or(Verdict::NotProxy, |source| Verdict::Proxy(source.name));
        }
        if let Some(source) = holder(&self.gate.deny) {
            return Verdict::Denied(source.name);
        }
        holder(&self.gate.allow).map_or(Verdict::Unlisted, |source| Verdict::Allowed {
            leased: source.members.as_ref().is_some_and(|members| !members.contains(client)),
            source: source.name,
        })
    }

    /// What people call it.
    pub fn service(&self) -> &'static str {
        let port = self.bind.port();
        match self.purpose {
            Purpose::Http => "HTTP",
            Purpose::Https => "HTTPS",
            Purpose::Admin => "admin",
            Purpose::Forward => service(port).unwrap_or("TCP"),
            Purpose::Host => service(port).unwrap_or("host"),
        }
    }
}

/// What usually listens on a port.
fn service(port: u16) -> Option<&'static str> {
    SERVICES.iter().find(|(ports, _)| ports.contains(&port)).map(|(_, name)| *name)
}

static SERVICES: &[(&[u16], &str)] = &[
    (&[22, 2222, 22222], "SSH/SFTP"),
    (&[25, 465, 587], "SMTP"),
    (&[53], "DNS"),
    (&[143, 993], "IMAP"),
    (&[3306], "MySQL"),
    (&[5432, 6432], "PostgreSQL"),
    (&[6379, 6380], "Redis"),
    (&[9200], "Elasticsearch"),
    (&[11211], "memcached"),
    (&[27017], "MongoDB"),
    (&[51820], "WireGuard"),
];

/// Which challenges a CA may look at: of http-01 on port 80 (RFC 8555 section 8.3), of tls-alpn-01 on port 443 (RFC 8737).
struct Knocked {
    http: bool,
    https: bool,
}

impl Knocked {
    fn new(config: &Config) -> Self {
        let asks = config.sites.iter().any(|site| site.certificate == Certificate::Acme);
        let by = |challenge| asks && config.acme.challenge.is_none_or(|only| only == challenge);
        Self { http: by(Challenge::Http01), https: by(Challenge::TlsAlpn01) }
    }

    fn at(&self, purpose: Purpose, port: u16) -> bool {
        match purpose {
            Purpose::Http => self.http && port == 80,
            Purpose::Https => self.https && port == 443,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn plan(more: &str) -> Plan {
        let text = format!("{more}\n[[site]]\ndomains = ['a.example']\nupstream = 'a:80'\n");
        let loaded = config::parse(text, "edge.toml".as_ref()).unwrap_or_else(|wrong| panic!("{wrong}"));
        Plan::new(&loaded.config, Vec::new())
    }

    const GUIDELINE: &str = "[sources]\ninternal = ['203.0.113.0/24']\nci = ['198.51.100.7']\n\
        abuse = ['192.0.2.0/24']\nlb = ['198.51.100.80']\n[ports]\n\
        80 = { serve = 'http', allow = ['internal'] }\n\
        443 = { serve = 'https', allow = ['public'], deny = ['abuse'] }\n\
        '203.0.113.10:443' = { serve = 'https', allow = ['internal'] }\n\
        8443 = { serve = 'https', allow = ['public'], proxy_protocol = ['lb'] }\n\
        22 = { host = true, allow = ['internal', 'ci'] }\n";

    #[test]
    fn an_address_meets_what_the_rows_say() {
        let plan = plan(GUIDELINE);
        for (client, local, port, expected) in [
            ("203.0.113.7", "203.0.113.1", 22, "allowed internal"),
            ("198.51.100.7", "203.0.113.1", 22, "allowed ci"),
            ("192.0.2.9", "203.0.113.1", 22, "unlisted"),
            ("192.0.2.9", "203.0.113.1", 443, "denied abuse"),
            ("8.8.8.8", "203.0.113.1", 443, "allowed public"),
            ("8.8.8.8", "203.0.113.10", 443, "unlisted"),
            ("203.0.113.7", "203.0.113.10", 443, "allowed internal"),
            ("8.8.8.8", "203.0.113.1", 8443, "not a proxy"),
            ("198.51.100.80", "203.0.113.1", 8443, "proxy lb"),
            ("203.0.113.7", "203.0.113.1", 5432, "no door"),
        ] {
            let met = plan.meets(ClientAddr::new(client.parse().unwrap()), local.parse().unwrap(), port);
            let told = match met.map(|(_, verdict)| verdict) {
                Some(Verdict::Allowed { source, .. }) => format!("allowed {source}"),
                Some(Verdict::Denied(source)) => format!("denied {source}"),
                Some(Verdict::Proxy(source)) => format!("proxy {source}"),
                Some(Verdict::Own) => "this machine itself".into(),
                Some(Verdict::NotProxy) => "not a proxy".into(),
                Some(Verdict::Unlisted) => "unlisted".into(),
                None => "no door".into(),
            };
            assert_eq!(told, expected, "{client} at {local}:{port}");
        }
    }

    /// Until the row is open, nothing tells from where a CA will look.
    #[test]
    fn a_ca_reaches_the_edge_where_it_looks() {
        let knocks = |more: &str| -> Vec<String> {
            let plan = plan(&(GUIDELINE.to_owned() + more));
            plan.doors.iter().filter(|door| door.knock).map(|door| door.bind.to_string()).collect()
        };
        assert_eq!(knocks(""), ["80", "443", "203.0.113.10:443"]);
        assert_eq!(knocks("[acme]\nchallenge = 'http-01'\n"), ["80"]);
        assert_eq!(knocks("[acme]\nchallenge = 'tls-alpn-01'\n"), ["443", "203.0.113.10:443"]);
        let closed = plan(GUIDELINE).doors.into_iter().find(|door| door.bind == Bind::All(443)).unwrap();
        assert_eq!(closed.kernel_gate().deny.len(), 1, "the denied are kept out all the same");
    }
}

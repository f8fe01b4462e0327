//! `[ports]`: the firewall, one row a port.

use std::net::{IpAddr, SocketAddr};

use super::super::meant::nearest;
use super::super::model::{Bind, HostRow, Kind, Place, Row, RowId, Serve, Target};
use super::super::raw::{Report, Table, Value};
use super::super::schema::{FORWARD_ROW, HOST_ROW, SERVE_ROW};
use super::Home;
use super::forward::{self, Hop, Named};
use super::sources::Sources;
use crate::addr::Gate;

/// The kernel's accept queue where a row says nothing, in connections.
const BACKLOG: u32 = 4096;

/// Ports that nobody opens to everyone, and what answers on them.
const GUARDED: [(u16, &str); 17] = [
    (1433, "SQL Server"),
    (1521, "Oracle"),
    (2379, "etcd"),
    (3306, "MySQL"),
    (5432, "PostgreSQL"),
    (5672, "RabbitMQ"),
    (5984, "CouchDB"),
    (6379, "Redis"),
    (6432, "PgBouncer"),
    (8000, "Django"),
    (8123, "ClickHouse"),
    (9000, "ClickHouse"),
    (9042, "Cassandra"),
    (9200, "Elasticsearch"),
    (9300, "Elasticsearch"),
    (11211, "memcached"),
    (27017, "MongoDB"),
];

/// What is in the names of sockets that nobody opens to everyone, and what answers on them.
const SOCKETS: [(&str, &str); 4] =
    [(".s.PGSQL.", "PostgreSQL"), ("redis", "Redis"), ("mysql", "MySQL"), ("memcached", "memcached")];

/// The rows of a file, the broken ones among them.
pub(super) struct Ports {
    rows: Vec<Declared>,
    hosts: Vec<Host>,
    /// Whether `[ports]` could be read, so that a row which is not there is wrong.
    pub(super) known: bool,
}

/// A row that the edge has no part in.
struct Host {
    /// None: its key is wrong.
    bind: Option<Bind>,
    place: Place,
    gate: Gate,
}

struct Declared {
    /// None: its key is wrong.
    bind: Option<Bind>,
    place: Place,
    role: Role,
    row: Option<Row>,
    named: Option<Named>,
    hops: Vec<Hop>,
}

/// What a row is there for, as far as that can be told.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Serve(Serve),
    Forward,
    Unknown,
}

/// Reads `[ports]`, or gives the rows that hold without it.
pub(super) fn read(root: &Table<'_>, sources: &Sources, home: &Home<'_>) -> Ports {
    let Some(value) = root.get("ports") else {
        let rows = [(80, Serve::Http), (443, Serve::Https)].map(|(port, serve)| standard(port, serve));
        return Ports { rows: rows.into(), hosts: Vec::new(), known: !root.report.incomplete };
    };
    let none = |known| Ports { rows: Vec::new(), hosts: Vec::new(), known };
    let Some(entries) = value.table_entries() else { return none(false) };
    let mut ports = none(true);
    let binds: Vec<_> = entries.iter().map(|(name, place, _)| bind(name, place, root.report)).collect();
    for ((_, place, value), bind) in entries.into_iter().zip(&binds) {
        if let Some(bind) = bind {
            ports.refuse_twin(*bind, &place, root.report);
        }
        if value.node.as_table().is_some_and(|table| table.contains_key("host")) {
            ports.hosts.push(host(*bind, place, &value, sources));
        } else {
            ports.rows.push(declare(*bind, &binds, place, &value, sources, home));
        }
    }
    let only_passes = !ports.hosts.is_empty() || ports.rows.iter().any(|row| row.role == Role::Forward);
    if root.has("site") || !only_passes {
        ports.want_https(&value);
    }
    ports.refuse_loops(root.report);
    ports
}

fn standard(port: u16, serve: Serve) -> Declared {
    let bind = Bind::All(port);
    let row = Row {
        bind,
        kind: Kind::Serve(serve),
        gate: Gate::open(),
        proxy_protocol: None,
        max_connections: None,
        max_connections_per_client: None,
        backlog: BACKLOG,
    };
    let role = Role::Serve(serve);
    Declared {
        bind: Some(bind),
        place: Place::default(),
        role,
        row: Some(row),
        named: None,
        hops: Vec::new(),
    }
}

impl Ports {
    /// The edge's rows, and the host's.
    pub(super) fn into_rows(self) -> (Vec<Row>, Vec<HostRow>) {
        let host = |Host { bind, gate, .. }: Host| Some(HostRow { bind: bind?, gate });
        let rows = self.rows.into_iter().filter_map(|declared| declared.row).collect();
        (rows, self.hosts.into_iter().filter_map(host).collect())
    }

    /// What forward rows are called. Once.
    pub(super) fn take_named(&mut self) -> Vec<Named> {
        self.rows.iter_mut().filter_map(|declared| declared.named.take()).collect()
    }

    /// Every row that may serve a site.
    pub(super) fn all(&self) -> Vec<RowId> {
        let rows = self.rows.iter().enumerate();
        rows.filter(|(_, declared)| declared.role != Role::Forward).map(|(index, _)| RowId(index)).collect()
    }

    /// The row of exactly this address, where there is one.
    pub(super) fn at(&self, wanted: Bind) -> Option<Bind> {
        let hosts = self.hosts.iter().filter_map(|host| host.bind);
        self.rows.iter().filter_map(|declared| declared.bind).chain(hosts).find(|bind| *bind == wanted)
    }

    /// The row as its key names it.
    pub(super) fn name(&self, id: RowId) -> String {
        let bind = self.rows.get(id.0).and_then(|declared| declared.bind);
        bind.map_or_else(|| "?".into(), |bind| bind.to_string())
    }

    /// Whether one of the rows serves https, or may be meant to.
    pub(super) fn any_https(&self, rows: &[RowId]) -> bool {
        let mut chosen = rows.iter().filter_map(|id| self.rows.get(id.0));
        chosen.any(|declared| matches!(declared.role, Role::Serve(Serve::Https) | Role::Unknown))
    }

    /// The row that an element of a site's `ports` names.
    pub(super) fn named(&self, item: &Value<'_>) -> Option<RowId> {
        let name = if let Some(number) = item.node.as_integer() {
            number.as_str().to_owned()
        } else if let Some(text) = item.node.as_str() {
            text.to_owned()
        } else {
            item.expected("a port, as in 443, or \"203.0.113.10:443\"");
            return None;
        };
        let wanted = bind(&name, &item.place, item.report)?;
        if self.hosts.iter().any(|host| host.bind == Some(wanted)) {
            item.refuse(format!("the row {wanted} is the host's own, and serves no site"), "leave it out");
            return None;
        }
        let found = self.rows.iter().position(|declared| declared.bind == Some(wanted)).map(RowId);
        if found.is_none() && self.known && self.rows.iter().all(|declared| declared.bind.is_some()) {
            item.refuse(format!("[ports] has no row {wanted}"), self.help(&name));
        }
        let forwards = found.and_then(|id| self.rows.get(id.0)).is_some_and(|row| row.role == Role::Forward);
        if forwards {
            item.refuse(format!("the row {wanted} forwards, and serves no site"), "leave it out");
        }
        found.filter(|_| !forwards)
    }

    fn help(&self, wrong: &str) -> String {
        let names: Vec<String> = self.all().into_iter().map(|id| self.name(id)).collect();
        let near = nearest(wrong, names.iter().map(String::as_str));
        let near = near.map(|name| format!("did you mean {name}? ")).unwrap_or_default();
        format!("{near}its rows are {}", names.join(", "))
    }

    fn refuse_twin(&self, bind: Bind, place: &Place, report: &Report<'_>) {
        let hosts = self.hosts.iter().map(|host| (host.bind, &host.place));
        let mut rows = self.rows.iter().map(|row| (row.bind, &row.place)).chain(hosts);
        let twin = rows.find(|(own, _)| *own == Some(bind) && bind.port() != 0);
        if let Some((_, twin)) = twin {
            let message =
                format!("the row {bind} is given twice; the first is on line {}", report.line(twin));
            report.error(place, message, "keep one of the two");
        }
    }

    fn refuse_loops(&self, report: &Report<'_>) {
        let rows = self.rows.iter().filter_map(|row| Some((row.bind?, row.hops.as_slice())));
        forward::refuse_loops(&rows.collect::<Vec<_>>(), report);
    }

    fn want_https(&self, value: &Value<'_>) {
        if !self.any_https(&self.all()) {
            let help = "add one, as in 443 = { serve = \"https\", allow = [\"public\"] }";
            value.refuse("no row serves https", help);
        }
    }
}

fn declare(
    bind: Option<Bind>,
    binds: &[Option<Bind>],
    place: Place,
    value: &Value<'_>,
    sources: &Sources,
    home: &Home<'_>,
) -> Declared {
    let has = |key| value.node.as_table().is_some_and(|table| table.contains_key(key));
    let forwards = has("forward");
    let schema = if forwards { &FORWARD_ROW } else { &SERVE_ROW };
    let unknown =
        |place| Declared { bind, place, role: Role::Unknown, row: None, named: None, hops: Vec::new() };
    if forwards && has("serve") {
        value.refuse("a row serves or forwards, and this one is to do both", "make two rows of it");
        return unknown(place);
    }
    let Some(table) = value.table(schema) else { return unknown(place) };
    let (role, kind, named) = if forwards { forward(bind, &table, home) } else { serve(&table) };
    let gate = Gate {
        allow: table.get("allow").map(|value| allowed(&value, sources)).unwrap_or_default(),
        deny: denied(&table, sources),
    };
    let proxy_protocol = table.get("proxy_protocol").map(|value| sources.believed(&value));
    let count = |name| table.whole(name).and_then(|count| count.try_into().ok());
    let max_connections = count("max_connections");
    let max_connections_per_client = count("max_connections_per_client");
    let backlog = table.whole("backlog").and_then(|count| count.try_into().ok()).unwrap_or(BACKLOG);
    let hops = match &kind {
        Some(Kind::Forward(forward)) => forward::hops(binds, &table, &forward.proxy.targets),
        _ => Vec::new(),
    };
    let row = bind.zip(kind).map(|(bind, kind)| Row {
        bind,
        kind,
        gate,
        proxy_protocol,
        max_connections,
        max_connections_per_client,
        backlog,
    });
    Declared { bind, place, role, row, named, hops }
}

fn serve(table: &Table<'_>) -> (Role, Option<Kind>, Option<Named>) {
    let serve = table.choice("serve").map(|word| if word == "https" { Serve::Https } else { Serve::Http });
    (serve.map_or(Role::Unknown, Role::Serve), serve.map(Kind::Serve), None)
}

fn forward(bind: Option<Bind>, table: &Table<'_>, home: &Home<'_>) -> (Role, Option<Kind>, Option<Named>) {
    let (kind, named) = forward::read(table, home).unzip();
    if let Some(Kind::Forward(forward)) = &kind {
        refuse_open_store(bind, table, &forward.proxy.targets);
    }
    (Role::Forward, kind, named.flatten())
}

fn host(bind: Option<Bind>, place: Place, value: &Value<'_>, sources: &Sources) -> Host {
    let table = value.table(&HOST_ROW);
    let flag = table.as_ref().and_then(|table| table.get("host"));
    if let Some(flag) = flag.filter(|flag| flag.node.as_bool() != Some(true)) {
        flag.refuse("`host` is true or not there", "leave the row out: what has no row is closed");
    }
    if bind.is_some_and(|bind| bind.port() == 0) {
        let help = "write the port that the daemon listens on";
        value.report.error(&place, "the kernel chooses no port for the host's own daemon", help);
    }
    if let Some(table) = &table {
        refuse_open_store(bind, table, &[]);
    }
    let gate = table.map(|table| Gate {
        allow: table.get("allow").map(|value| allowed(&value, sources)).unwrap_or_default(),
        deny: denied(&table, sources),
    });
    Host { bind, place, gate: gate.unwrap_or_else(Gate::open) }
}

/// The gate of a site or a route: open to everyone where nothing is said.
pub(super) fn gate(table: &Table<'_>, sources: &Sources) -> Gate {
    let allow = table.get("allow").map(|value| allowed(&value, sources));
    Gate { allow: allow.unwrap_or_else(|| Gate::open().allow), deny: denied(table, sources) }
}

fn allowed(value: &Value<'_>, sources: &Sources) -> Vec<crate::addr::Source> {
    if value.node.as_array().is_some_and(|items| items.is_empty()) {
        value.refuse("the list is empty and lets nobody in", "name a source, as in [\"public\"]");
    }
    sources.listed(value)
}

fn denied(table: &Table<'_>, sources: &Sources) -> Vec<crate::addr::Source> {
    let Some(value) = table.get("deny") else { return Vec::new() };
    for item in value.node.as_array().is_some().then(|| value.items()).flatten().unwrap_or_default() {
        if item.node.as_str() == Some("public") {
            item.refuse(
                "\"public\" denied is everyone denied",
                "name in `allow` who may pass, and leave this out",
            );
        }
    }
    sources.listed(&value)
}

/// A port of a data store, or Django's own, is never everyone's by mistake.
fn refuse_open_store(bind: Option<Bind>, table: &Table<'_>, targets: &[Target]) {
    let exposed = table.get("exposed").is_some_and(|value| {
        value.flag().unwrap_or_else(|| {
            value.mismatch();
            false
        })
    });
    let Some(allow) = table.get("allow").filter(|value| value.node.is_array()) else { return };
    let own = bind.and_then(|bind| store_of_port(bind.port()));
    let Some((what, place)) = own.or_else(|| targets.iter().find_map(store_of)) else { return };
    let items = allow.items().unwrap_or_default();
    let Some(public) = items.iter().find(|item| item.node.as_str() == Some("public")) else { return };
    let message = format!("this row opens {what}'s {place} to everyone");
    match what {
        _ if exposed => table.report.warn(&public.place, message, "that is what `exposed` says; an audit fails it"),
        "Django" => {
            public.refuse(message, "let Django be reached through a [[site]] alone, and leave this row out");
        }
        _ => public.refuse(
            message,
            "allow a source of your own instead, as in [\"internal\"]; it takes `exposed = true` on the row to open it",
        ),
    }
}

/// What is guarded there, and where.
fn store_of(target: &Target) -> Option<(&'static str, String)> {
    match target {
        Target::Tcp { port, .. } => store_of_port(*port),
        Target::Unix(path) => {
            let name = path.file_name()?.to_str()?;
            let (_, what) = SOCKETS.iter().find(|(part, _)| name.contains(part))?;
            Some((what, "socket".into()))
        }
    }
}

fn store_of_port(port: u16) -> Option<(&'static str, String)> {
    let (_, what) = GUARDED.iter().find(|(number, _)| *number == port)?;
    Some((what, format!("port {port}")))
}

/// Reads the key of a row: `443`, or `203.0.113.10:443` and `[2001:db8::1]:443` for one address.
fn bind(name: &str, place: &Place, report: &Report<'_>) -> Option<Bind> {
    let wrong = |message: String, help: String| {
        report.error(place, message, help);
        None
    };
    if let Some(port) = port(name) {
        return Some(Bind::All(port));
    }
    let Ok(address) = name.parse::<SocketAddr>() else {
        return wrong(format!("{name:?} is not a row"), row_help(name));
    };
    let number = address.port();
    match address.ip() {
        ip if ip.is_unspecified() => wrong(
            format!("\"{address}\" is every address"),
            format!("write {number}, which is IPv4 and IPv6"),
        ),
        IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some() => {
            let four = SocketAddr::new(ip.to_canonical(), number);
            wrong(format!("\"{address}\" is an IPv4 address written as IPv6"), format!("write \"{four}\""))
        }
        ip if ip.is_multicast() || ip == IpAddr::from([255; 4]) => {
            wrong(format!("nothing can listen on \"{address}\""), "write an address of this machine".into())
        }
        _ => Some(Bind::One(address)),
    }
}

fn port(text: &str) -> Option<u16> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| plain)
}

fn row_help(name: &str) -> String {
    let split = name.rsplit_once(':').and_then(|(host, number)| Some((host.parse().ok()?, port(number)?)));
    if let Some((host, number)) = split {
        return format!(
            "an IPv6 address stands in brackets: write \"{}\"",
            SocketAddr::new(IpAddr::V6(host), number)
        );
    }
    if let Ok(ip) = name.parse::<IpAddr>() {
        return format!("write the port as well, as in \"{}\"", SocketAddr::new(ip, 443));
    }
    if !name.is_empty() && name.bytes().all(|b| b.is_ascii_digit()) {
        return "a port is a number from 1 to 65535 (0: the kernel chooses)".into();
    }
    "write a port, 443, or \"address:port\", as in \"203.0.113.10:443\" or \"[2001:db8::1]:443\"".into()
}

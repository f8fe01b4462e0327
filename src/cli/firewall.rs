//! `vestibule firewall`: the table of ports shown, probed, rendered for the kernel, applied and compared.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use serde_json::{Value, json};

use super::edge::ask_within;
use super::matrix::{self, name, names};
use super::{Failure, FirewallArguments, Form, allow, files, print, print_json};
use crate::addr::{ClientAddr, Source};
use crate::admin::leases::{LeaseWish, LeasesTold};
use crate::config;
use crate::config::model::Config;
use crate::firewall::kernel::{self, NftError};
use crate::firewall::leases::Leases;
use crate::firewall::moment::Moment;
use crate::firewall::nft::Ruleset;
use crate::firewall::plan::{Door, Held, Plan, Purpose, Verdict};
use crate::firewall::session::Session;
use crate::firewall::switch::Books;
use crate::firewall::{diff, switch};

/// How long an edge that hangs may keep its leases to itself, while rules are to be taken back.
const PATIENCE: Duration = Duration::from_secs(5);

/// Runs the command.
pub(super) fn run(arguments: FirewallArguments) -> Result<(), Failure> {
    if arguments.watch {
        return switch::watch(leases).map_err(Failure::new);
    }
    if arguments.confirm {
        switch::confirm(&Session::own(), leases).map_err(Failure::new)?;
        return print("confirmed: the rules stay\n");
    }
    let loaded = config::load(&files::config_file(arguments.config)?)?;
    let config = loaded.config;
    let books = books(&config)?;
    let plan = Plan::new(&config, leases(&books));
    match (arguments.probe, arguments.format) {
        _ if arguments.apply => apply(&plan, &books, arguments.within.0, arguments.force),
        _ if arguments.diff => differs(&plan),
        (Some(address), Form::Json) => print_json(&probe_json(&plan, address.0)),
        (Some(address), _) => print(&probe(&plan, address.0)),
        (None, Form::Table) => print(&table(&config, &plan)),
        (None, Form::Nft) => print(&Ruleset::new(&plan).text()),
        (None, Form::Json) => print_json(&matrix_json(&config, &plan)),
    }
}

/// Where leases are known, also to a watcher that is somewhere else.
fn books(config: &Config) -> Result<Books, Failure> {
    let absolute = |path| std::path::absolute(path).map_err(Failure::new);
    Ok(Books { socket: absolute(&config.admin.socket)?, store: absolute(&config.store.path)? })
}

/// The leases that a running edge has or, where none runs, that it left in the store.
fn leases(books: &Books) -> Vec<Held> {
    let (method, target) = LeaseWish::List.request();
    if let Ok(told) = ask_within::<LeasesTold>(PATIENCE, &books.socket, method, &target) {
        return allow::held(&told.leases);
    }
    let now = Moment::now();
    Leases::load(&books.store, &now).0.held(&now)
}

fn apply(plan: &Plan, books: &Books, within: Duration, force: bool) -> Result<(), Failure> {
    let session = Session::own();
    if let Some(cut) = cut(plan, &session).filter(|_| !force) {
        return Err(Failure::wrong(cut));
    }
    let ruleset = Ruleset::new(plan);
    if switch::waiting().is_none() && diff::difference(&ruleset).is_ok_and(|lines| lines.is_empty()) {
        let _turn = switch::turn();
        kernel::sync_leases(&leases(books)).map_err(Failure::new)?;
        return print("the kernel has these rules already: nothing is left to confirm\n");
    }
    switch::apply(&ruleset.text(), within, &session, books, leases).map_err(Failure::new)?;
    print(&format!(
        "applied. Now open another connection and run `vestibule firewall --confirm` there: without it, the rules from \
         before come back in {}\n",
        config::show_duration(within)
    ))
}

/// Why the rules would keep the one who applies them from coming back.
fn cut(plan: &Plan, session: &Session) -> Option<String> {
    let ends = session.ends().filter(|ends| !ends.client.is_loopback())?;
    let (client, port) = (ClientAddr::new(ends.client), ends.port);
    let why = match plan.meets(client, ends.server, port) {
        Some((door, verdict)) if !verdict.is_open() => reason(door, &verdict),
        Some(_) => return None,
        None => format!("no row opens port {port}"),
    };
    let how = format!(
        "add a row, as in {port} = {{ host = true, allow = [\"internal\"] }} with a source that holds {client}"
    );
    Some(format!(
        "error: these rules would keep you out: you came from {client} to port {port}, and {why}\nhelp: {how}; \
                  --force applies them all the same\n"
    ))
}

fn differs(plan: &Plan) -> Result<(), Failure> {
    let lines = diff::difference(&Ruleset::new(plan)).map_err(Failure::new)?;
    if lines.is_empty() {
        return print("the kernel has what the configuration says\n");
    }
    print(&(lines.join("\n") + "\n"))?;
    Err(Failure::no("the kernel has something else than the configuration says"))
}

/// The matrix, and what else there is to know.
fn table(config: &Config, plan: &Plan) -> String {
    let mut out = String::from("FIREWALL (a port without a row is closed)\n");
    matrix::draw(&mut out, config, plan);
    for (index, Held { source, network, left }) in plan.leases.iter().enumerate() {
        let gap = if index == 0 { "\n" } else { "" };
        let left = config::show_duration(Duration::from_secs(left.as_secs()));
        let _ = writeln!(out, "{gap}  {source} holds {network} by a lease, {left} more");
    }
    let _ = writeln!(out, "\n  {}", state());
    out
}

/// Whether the kernel has our table, as far as this user may know.
fn state() -> String {
    if let Some(left) = switch::waiting() {
        if left.is_zero() {
            return "the time to confirm the kernel's rules is over, and they are not taken back yet: where this stays so, their \
                    watcher is gone, and `vestibule firewall --confirm` takes them back"
                .into();
        }
        let left = left.as_secs();
        return format!("the kernel's rules wait for `vestibule firewall --confirm`, {left} s more");
    }
    match kernel::is_applied() {
        Ok(true) => "the kernel has a ruleset of vestibule's; --diff compares it".into(),
        Ok(false) => "the kernel has no ruleset of vestibule's; --apply gives it one".into(),
        Err(NftError::NotPermitted) => {
            "whether the kernel has a ruleset of vestibule's is for root to see".into()
        }
        Err(error) => error.to_string(),
    }
}

fn probe(plan: &Plan, address: IpAddr) -> String {
    let client = ClientAddr::new(address);
    let met = plan.probe(client);
    let lines: Vec<[String; 3]> = met.iter().map(|(door, verdict)| told(door, verdict)).collect();
    let width =
        |column: usize| lines.iter().filter_map(|line| line.get(column)).map(String::len).max().unwrap_or(0);
    let (head, word) = (width(0), width(1));
    let mut out = format!("FROM {client}\n\n");
    for [name, verdict, why] in &lines {
        let _ = writeln!(out, "  {name:head$}  {verdict:word$}  {why}");
    }
    let others = if address.is_loopback() {
        "no other port is closed to this machine itself"
    } else {
        "every other port is closed: no row names it"
    };
    let _ = writeln!(out, "\n  {others}");
    out
}

fn told(door: &Door, verdict: &Verdict) -> [String; 3] {
    [name(door), if verdict.is_open() { "open".into() } else { "closed".into() }, reason(door, verdict)]
}

/// Which row and which source decide.
fn reason(door: &Door, verdict: &Verdict) -> String {
    let row =
        if door.purpose == Purpose::Admin { "[admin] listen".into() } else { format!("row {}", door.bind) };
    let knock = if door.knock && !matches!(verdict, Verdict::Denied(_)) && !verdict.is_open() {
        "; the edge itself closes it, which answers a CA's challenge alone"
    } else {
        ""
    };
    match verdict {
        Verdict::Allowed { source, leased: false } => format!("{row} allows {source}"),
        Verdict::Allowed { source, leased: true } => {
            format!("{row} allows {source}, which holds it by a lease")
        }
        Verdict::Own => format!("{row} is open to this machine itself"),
        Verdict::Proxy(source) => {
            format!("{row} takes a PROXY header from {source}, and judges whom it names")
        }
        Verdict::NotProxy => format!("{row} takes connections from its proxies alone"),
        Verdict::Denied(source) => format!("{row} denies {source}"),
        Verdict::Unlisted if door.gate.allow.is_empty() => format!("{row} allows this machine alone"),
        Verdict::Unlisted => format!("{row} allows {} alone{knock}", names(&door.gate.allow)),
    }
}

fn probe_json(plan: &Plan, address: IpAddr) -> Value {
    let client = ClientAddr::new(address);
    let one = |(door, verdict): &(&Door, Verdict)| {
        let source = match verdict {
            Verdict::Allowed { source, .. } | Verdict::Proxy(source) | Verdict::Denied(source) => {
                Some(&**source)
            }
            Verdict::Own | Verdict::NotProxy | Verdict::Unlisted => None,
        };
        json!({
            "row": door.bind.to_string(),
            "port": door.bind.port(),
            "address": door.bind.address().map(|address| address.to_string()),
            "kind": kind(door.purpose),
            "verdict": if verdict.is_open() { "open" } else { "closed" },
            "source": source,
            "why": reason(door, verdict),
        })
    };
    let doors: Vec<Value> = plan.probe(client).iter().map(one).collect();
    let others = if address.is_loopback() { "open" } else { "closed" };
    json!({ "from": client.to_string(), "ports": doors, "others": others })
}

fn matrix_json(config: &Config, plan: &Plan) -> Value {
    let list = |sources: &[Source]| sources.iter().map(|source| source.name.to_string()).collect::<Vec<_>>();
    let row = |door: &Door| {
        json!({
            "row": door.bind.to_string(),
            "port": door.bind.port(),
            "address": door.bind.address().map(|address| address.to_string()),
            "kind": kind(door.purpose),
            "service": door.service(),
            "allow": list(&door.gate.allow),
            "deny": list(&door.gate.deny),
            "proxy_protocol": door.proxies.as_deref().map(list),
        })
    };
    let source = |source: &Source| json!({ "name": &*source.name, "networks": source.members.as_ref().map(|members| members.len()) });
    json!({
        "sources": config.sources.iter().map(source).collect::<Vec<_>>(),
        "rows": plan.doors.iter().map(row).collect::<Vec<_>>(),
        "leases": plan.leases.iter().map(lease_json).collect::<Vec<_>>(),
        "others": "closed",
    })
}

fn lease_json(held: &Held) -> Value {
    json!({
        "source": &*held.source,
        "network": held.network.to_string(),
        "seconds_left": held.left.as_secs(),
    })
}

fn kind(purpose: Purpose) -> &'static str {
    match purpose {
        Purpose::Http => "http",
        Purpose::Https => "https",
        Purpose::Forward => "forward",
        Purpose::Host => "host",
        Purpose::Admin => "admin",
    }
}

//! `[admin]`: the socket, and who may look at the edge over TCP.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use super::super::model::{Admin, Bind, Listen};
use super::super::raw::{Table, Value};
use super::path;
use super::ports::Ports;
use super::sources::Sources;
use super::target::socket_length;
use crate::name::{Hostname, NameError};

/// Reads `[admin]`.
pub(super) fn read(root: &Table<'_>, ports: &Ports, sources: &Sources) -> Admin {
    let table = root.section("admin");
    Admin { socket: socket(&table), listen: listen(&table, ports, sources) }
}

fn socket(table: &Table<'_>) -> PathBuf {
    let Some(value) = table.get("socket") else { return Admin::default_socket() };
    let socket = PathBuf::from(path(&value).unwrap_or_default());
    if let Err((message, help)) = socket_length(&socket) {
        value.refuse(message, help);
    }
    socket
}

fn listen(table: &Table<'_>, ports: &Ports, sources: &Sources) -> Option<Listen> {
    let allow = table.get("allow");
    let listed = allow.as_ref().map(|value| sources.listed(value)).unwrap_or_default();
    let hosts = table.get("hosts").map(|value| hosts(&value)).unwrap_or_default();
    let Some(value) = table.get("listen") else {
        for without in ["allow", "hosts"].iter().filter_map(|name| table.get(name)) {
            without.refuse(
                "this is about `listen`, which is not there",
                "write listen = \"127.0.0.1:9180\" too",
            );
        }
        return None;
    };
    let address = address(&value)?;
    let local = address.ip().is_loopback();
    match &allow {
        None if !local => value.refuse(
            format!("\"{address}\" can be reached from outside, and nothing says who may look"),
            "write allow = [\"internal\"] beside it, with a source of your own, or listen on 127.0.0.1",
        ),
        Some(list) if local => list.report.warn(
            &list.place,
            format!("only this machine itself reaches {}", address.ip()),
            "leave `allow` out, or listen on an address that others reach",
        ),
        Some(list) if list.node.as_array().is_some_and(|items| items.is_empty()) => {
            list.refuse("the list is empty", "name a source, as in [\"internal\"], or listen on 127.0.0.1");
        }
        Some(list) if listed.iter().any(|source| source.members.is_none()) => {
            list.report.warn(
                &list.place,
                "everyone may look at the edge's inside",
                "name a source of your own",
            );
        }
        _ => {}
    }
    let port = address.port();
    let bind = if address.ip().is_unspecified() { Bind::All(port) } else { Bind::One(address) };
    // The kernel prefers a socket of one address: a row for all would lose it.
    let taken = ports.at(bind).or_else(|| ports.at(Bind::All(port)));
    if let Some(row) = taken.filter(|_| port != 0) {
        value.refuse(format!("the row {row} of [ports] listens there"), "choose another port, as in 9180");
    }
    Some(Listen { bind, allow: listed, hosts })
}

fn address(value: &Value<'_>) -> Option<SocketAddr> {
    let text = value.text()?;
    match text.parse::<SocketAddr>() {
        Ok(address) if address.ip().is_multicast() || address.ip() == IpAddr::from([255; 4]) => {
            value.refuse(format!("nothing can listen on \"{address}\""), "write an address of this machine");
            None
        }
        Ok(address) => Some(SocketAddr::new(address.ip().to_canonical(), address.port())),
        Err(_) => {
            value.refuse(format!("{text:?} is not an address and a port"), address_help(text));
            None
        }
    }
}

fn address_help(text: &str) -> String {
    let port = text.rsplit(':').next().and_then(|port| port.parse::<u16>().ok()).unwrap_or(9180);
    if let Ok(ip) = text.parse::<IpAddr>() {
        return format!("write the port as well, as in \"{}\"", SocketAddr::new(ip, 9180));
    }
    format!("write \"127.0.0.1:{port}\" for this machine alone")
}

fn hosts(value: &Value<'_>) -> Vec<Hostname> {
    let name = |item: &Value<'_>| {
        let text = item.text()?;
        if let Some((name, _)) = text.split_once(':').filter(|(name, _)| Hostname::parse(name).is_ok()) {
            item.refuse(
                format!("{text:?} is more than a name"),
                format!("write \"{name}\": any port will do"),
            );
            return None;
        }
        let help = |error| match error {
            NameError::Address => "addresses are always answered: leave it out",
            NameError::CatchAll | NameError::Wildcard => "list the names one by one",
            NameError::Empty | NameError::Syntax => "write a name alone, as in \"edge.internal.example.com\"",
        };
        Hostname::parse(text).map_err(|error| item.refuse(format!("{text:?}: {error}"), help(error))).ok()
    };
    value.items().unwrap_or_default().iter().filter_map(name).collect()
}

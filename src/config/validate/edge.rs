//! The tables that are about the edge as a whole.

use std::num::NonZero;
use std::path::PathBuf;
use std::thread;

use nix::unistd::{User, geteuid};

use super::super::meant::did_you_mean;
use super::super::model::{
    AccessLog, AddressHeader, ClientAddress, Limits, Log, LogFormat, LogLevel, Place, Process, Store, Tls,
    TlsVersion,
};
use super::super::raw::{Table, Value};
use super::sources::Sources;
use super::{Home, acme, path};

/// `[limits]`
pub(super) fn limits(root: &Table<'_>) -> Limits {
    let table = root.section("limits");
    let count = |name| table.whole(name).and_then(|count| usize::try_from(count).ok());
    let duration = |name| table.duration(name).unwrap_or_default();
    let limits = Limits {
        connections: count("connections").unwrap_or_default(),
        connections_per_client: count("connections_per_client"),
        body: table.size("body").unwrap_or_default(),
        buffer_memory: table.size("buffer_memory").unwrap_or_default(),
        buffer_disk: table.size("buffer_disk").unwrap_or_default(),
        header_timeout: duration("header_timeout"),
        handshake_timeout: duration("handshake_timeout"),
        idle_timeout: duration("idle_timeout"),
    };
    if let (Some(each), Some(value)) = (limits.connections_per_client, table.get("connections_per_client"))
        && each > limits.connections
    {
        let help = format!("all clients together have {} (`connections`)", limits.connections);
        value.refuse(format!("one client cannot have {each} connections"), help);
    }
    limits
}

/// `[tls] client_ca`, and where it stands.
pub(super) fn client_ca(tls: &Table<'_>, home: &Home<'_>) -> Option<(PathBuf, Place)> {
    let value = tls.get("client_ca")?;
    Some((home.path(&value)?, value.place))
}

/// `[tls]`
pub(super) fn tls(table: &Table<'_>) -> Tls {
    let lower = |value: &Value<'_>| {
        let text = value.node.as_str().unwrap_or("").to_ascii_lowercase();
        let digits = text.trim_start_matches(|c: char| !c.is_ascii_digit());
        text.starts_with("ssl") || ["1", "1.0", "1.1"].contains(&digits)
    };
    if let Some(value) = table.get("min_version").filter(lower) {
        value.refuse("no version below TLS 1.2 is spoken", "write \"1.2\" or \"1.3\"; no lower value exists");
        return Tls { min_version: TlsVersion::V1_2 };
    }
    let min_version = match table.choice("min_version") {
        Some("1.3") => TlsVersion::V1_3,
        _ => TlsVersion::V1_2,
    };
    Tls { min_version }
}

/// `[store]`: relative to the working directory, for the edge writes it.
pub(super) fn store(root: &Table<'_>, home: &Home<'_>) -> Store {
    let table = root.section("store");
    let typed = table.get("path").and_then(|value| path(&value));
    let key = table.get("key").and_then(|value| acme::secret(&value, home));
    Store { path: typed.unwrap_or("certs").into(), key }
}

/// `[client_address]`
pub(super) fn client_address(root: &Table<'_>, sources: &Sources) -> Option<ClientAddress> {
    let table = root.table("client_address")?;
    let header = match table.choice("header") {
        Some("Forwarded") => AddressHeader::Forwarded,
        Some("CF-Connecting-IP") => AddressHeader::CfConnectingIp,
        _ => AddressHeader::XForwardedFor,
    };
    let trusted = table.get("trusted").map(|value| sources.believed(&value)).unwrap_or_default();
    Some(ClientAddress { trusted, header })
}

/// `[log]`
pub(super) fn log(root: &Table<'_>) -> Log {
    let table = root.section("log");
    let format = match table.choice("format") {
        Some("combined") => LogFormat::Combined,
        Some("text") => LogFormat::Text,
        _ => LogFormat::Json,
    };
    let level = match table.choice("level") {
        Some("error") => LogLevel::Error,
        Some("warn") => LogLevel::Warn,
        Some("debug") => LogLevel::Debug,
        Some("trace") => LogLevel::Trace,
        _ => LogLevel::Info,
    };
    let access = table.get("access").and_then(|value| access(&value)).unwrap_or(AccessLog::Stdout);
    Log { format, access, level }
}

/// A bare word is taken for a misspelt one, not for a file of that name.
fn access(value: &Value<'_>) -> Option<AccessLog> {
    match path(value)? {
        "stdout" => Some(AccessLog::Stdout),
        "off" => Some(AccessLog::Off),
        file if file.contains(['/', '.']) => Some(AccessLog::File(file.into())),
        word => {
            let near = did_you_mean(word, ["stdout", "off"].into_iter());
            let help =
                if near.is_empty() { format!("write \"./{word}\" for a file of that name") } else { near };
            value.refuse(format!("{word:?} is not \"stdout\", \"off\" or a path"), help);
            None
        }
    }
}

/// `[process]`
pub(super) fn process(root: &Table<'_>) -> Process {
    let table = root.section("process");
    let typed = table.whole("workers").and_then(|count| usize::try_from(count).ok()).unwrap_or_default();
    let cores = || thread::available_parallelism().map_or(1, NonZero::get);
    let user = table.get("user");
    check_user(&table, user.as_ref());
    Process {
        workers: if typed == 0 { cores() } else { typed },
        user: user.and_then(|value| Some(value.node.as_str()?.to_owned())),
        grace: table.duration("grace").unwrap_or_default(),
    }
}

/// Only root can become somebody else.
fn check_user(table: &Table<'_>, user: Option<&Value<'_>>) {
    let root = geteuid().is_root();
    let Some(value) = user else {
        if root {
            let help = "name a user in [process], as in user = \"vestibule\"";
            table.report.warn(&table.place, "the edge stays root once its ports are bound", help);
        }
        return;
    };
    let Some(name) = value.text() else { return };
    let found = User::from_name(name);
    match found {
        Ok(Some(found)) if root && found.uid.is_root() => {
            value.report.warn(
                &value.place,
                "the edge stays root once its ports are bound",
                "name another user",
            );
        }
        Ok(Some(found)) if !root && found.uid != geteuid() => {
            let help = "start it as root, or leave `user` out";
            value.report.warn(&value.place, format!("only root can become \"{name}\""), help);
        }
        Ok(None) if root => {
            let help = format!("make it, as in useradd --system --shell /usr/sbin/nologin {name}");
            value.refuse(format!("this machine has no user {name:?}"), help);
        }
        Err(error) if root => value.refuse(format!("the user {name:?} cannot be looked up: {error}"), ""),
        _ => {}
    }
}

//! The tables, in the order of the documentation.

mod acme;
mod edge;
mod site;

pub use acme::*;
pub use edge::*;
pub use site::*;

use super::Absent::{Is, Nothing, Wrong};
use super::Kind::{
    Choice, Duration, Either, Flag, Later, Map, Path, Size, Sources, Tables, Text, Texts, Whole,
};
use super::{Absent, Key, Kind, Table};

/// Every table that has a header, for telling where a misplaced key belongs.
pub static TABLES: &[&Table] = &[
    &ROOT,
    &PORT,
    &HOST_ROW,
    &SITE,
    &PROXY,
    &HEALTH,
    &ROUTE,
    &REDIRECT,
    &RATE,
    &AUTH,
    &HEADERS,
    &COMPRESS,
    &ERRORS,
    &CERTIFICATE,
    &SOURCE_FILE,
    &ACME,
    &EAB,
    &FALLBACK,
    &DNS,
    &STORE,
    &TLS,
    &CLIENT_ADDRESS,
    &LIMITS,
    &LOG,
    &ADMIN,
    &PROCESS,
    &SECRET,
];

/// The top of the file.
pub static ROOT: Table = Table {
    header: "",
    doc: "The whole file",
    keys: &[
        key(
            "sources",
            Map("a table of lists, as in internal = [\"203.0.113.0/24\"]"),
            Nothing,
            "Named groups of addresses. `public` (everyone) is built in",
        ),
        key(
            "ports",
            Map("a table with one row a port, as in 443 = { serve = \"https\", allow = [\"public\"] }"),
            Nothing,
            "One row a port; a port without a row is closed. Without the table: 80 and 443, public",
        ),
        key("site", Tables(&SITE), Wrong, "What is served under which names"),
        key("acme", Kind::Table(&ACME), Nothing, "Certificates from an ACME CA"),
        key("store", Kind::Table(&STORE), Nothing, "Where certificates and keys are kept"),
        key("tls", Kind::Table(&TLS), Nothing, "TLS with clients"),
        key(
            "client_address",
            Kind::Table(&CLIENT_ADDRESS),
            Nothing,
            "Who is believed about the client's address",
        ),
        key("limits", Kind::Table(&LIMITS), Nothing, "What a client may use up"),
        key("log", Kind::Table(&LOG), Nothing, "The log and the access lines"),
        key("admin", Kind::Table(&ADMIN), Nothing, "What the commands talk to"),
        key("process", Kind::Table(&PROCESS), Nothing, "The process itself"),
    ],
};

/// `{ file = … }` in `[sources]`.
pub static SOURCE_FILE: Table = Table {
    header: "{ file = \"…\" }",
    doc: "A source that is read from a file",
    keys: &[key("file", Path, Wrong, "One address or CIDR a line, # comments; read again on reload")],
};

/// A row of `[ports]`.
pub static PORT: Table = Table {
    header: "{ serve = \"https\", allow = [\"public\"] }",
    doc: "A row of [ports]; its key is a port, or \"address:port\" for one address alone",
    keys: &[
        key(
            "serve",
            Choice(&["http", "https"]),
            Wrong,
            "What it speaks: http only redirects to https and answers a CA, https serves the sites",
        ),
        key("allow", Sources, Wrong, "Who may connect; \"public\" is everyone"),
        key("deny", Sources, Nothing, "Who may not, even where `allow` names them"),
        key(
            "proxy_protocol",
            Sources,
            Nothing,
            "Only these peers may connect, with a PROXY v1 or v2 header; allow and deny judge the client that it names",
        ),
        key(
            "max_connections",
            Whole(1, 10_000_000),
            Nothing,
            "The most connections open on this row at once",
        ),
        key("backlog", Whole(1, 65_535), Is("4096"), "The kernel's accept queue, in connections"),
        key("forward", Later("leave the row out: what has no row is closed"), Nothing, "TCP, byte for byte"),
        later("tls", "TLS ended before forwarding"),
        later("send_proxy", "A PROXY header to what is forwarded to"),
        later("http3", "HTTP/3"),
    ],
};

/// A row of `[ports]` that the firewall alone acts on.
pub static HOST_ROW: Table = Table {
    header: "{ host = true, allow = [\"internal\"] }",
    doc: "A row of [ports] for a daemon of the host's own, TCP and UDP: only `vestibule firewall` acts on it",
    keys: &[
        key("host", Flag, Wrong, "true: a daemon of the host's own listens there, not the edge"),
        key("allow", Sources, Wrong, "Who may connect; \"public\" is everyone"),
        key("deny", Sources, Nothing, "Who may not, even where `allow` names them"),
    ],
};

const fn key(name: &'static str, kind: Kind, absent: Absent, doc: &'static str) -> Key {
    Key { name, kind, absent, doc }
}

const fn later(name: &'static str, doc: &'static str) -> Key {
    Key { name, kind: Later("leave it out"), absent: Nothing, doc }
}

const BODY: Kind = Size("1B", "1TiB");
const PATIENCE: Kind = Duration("100ms", "1h");

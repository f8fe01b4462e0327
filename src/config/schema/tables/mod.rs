//! The tables, in the order of the documentation.

mod acme;
mod edge;
mod ports;
mod site;

pub use acme::*;
pub use edge::*;
pub use ports::*;
pub use site::*;

use super::Absent::{Is, Nothing, Wrong};
use super::Kind::{
    Choice, Duration, Either, Flag, Fraction, Later, Map, Path, Size, Sources, Tables, Text, Texts, Whole,
};
use super::{Absent, Key, Kind, Table};

/// Every table that has a header, for telling where a misplaced key belongs.
pub static TABLES: &[&Table] = &[
    &ROOT,
    &SERVE_ROW,
    &FORWARD_ROW,
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
    &TRACE,
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
        key(
            "site",
            Tables(&SITE),
            Nothing,
            "What is served under which names. May be left out where no row serves https",
        ),
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
        key("trace", Kind::Table(&TRACE), Nothing, "Where spans of sampled traces are sent"),
        key("process", Kind::Table(&PROCESS), Nothing, "The process itself"),
    ],
};

/// `{ file = … }` in `[sources]`.
pub static SOURCE_FILE: Table = Table {
    header: "{ file = \"…\" }",
    doc: "A source that is read from a file",
    keys: &[key("file", Path, Wrong, "One address or CIDR a line, # comments; read again when it changes")],
};

const fn key(name: &'static str, kind: Kind, absent: Absent, doc: &'static str) -> Key {
    Key { name, kind, absent, doc }
}

const fn later(name: &'static str, doc: &'static str) -> Key {
    Key { name, kind: Later("leave it out"), absent: Nothing, doc }
}

const BODY: Kind = Size("1B", "1TiB");
const PATIENCE: Kind = Duration("100ms", "1h");

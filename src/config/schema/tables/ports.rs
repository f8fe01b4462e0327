//! The rows of `[ports]`: each kind has a table of its own.

use super::{
    Choice, Duration, Either, Flag, Is, Key, Nothing, Path, Sources, Table, Text, Whole, Wrong, key, later,
};

/// A row of `[ports]` that serves sites.
pub static SERVE_ROW: Table = Table {
    header: "{ serve = \"https\", allow = [\"public\"] }",
    doc: "A row of [ports] that serves the sites; its key is a port, or \"address:port\" for one address alone",
    keys: &[
        key(
            "serve",
            Choice(&["http", "https"]),
            Wrong,
            "What it speaks: http only redirects to https and answers a CA, https serves the sites (or `forward`, for TCP to elsewhere)",
        ),
        ALLOW,
        DENY,
        PROXY_PROTOCOL,
        MAX_CONNECTIONS,
        MAX_CONNECTIONS_PER_CLIENT,
        BACKLOG,
        later("http3", "HTTP/3"),
    ],
};

/// A row of `[ports]` that forwards.
pub static FORWARD_ROW: Table = Table {
    header: "{ forward = \"db:5432\", allow = [\"internal\"] }",
    doc: "A row of [ports] that forwards TCP, byte for byte",
    keys: &[
        key(
            "forward",
            Either("\"host:port\", \"unix:/path\", or a list of them"),
            Wrong,
            "Where to; of several the one with the fewest connections, and another where it takes none",
        ),
        ALLOW,
        DENY,
        PROXY_PROTOCOL,
        MAX_CONNECTIONS,
        MAX_CONNECTIONS_PER_CLIENT,
        BACKLOG,
        key("tls", Text("db.example.com"), Nothing, "TLS is ended here, under this name"),
        key(
            "certificate",
            Either("\"acme\", \"internal\" or { cert = \"….pem\", key = \"….pem\" }"),
            Nothing,
            "As a site's; without the key, that of the site which has the name, else \"acme\"",
        ),
        key(
            "client_ca",
            Path,
            Nothing,
            "Clients need a certificate of this CA; without the key, as the site or [tls] says",
        ),
        key(
            "send_proxy",
            Choice(&["v1", "v2"]),
            Nothing,
            "A PROXY header tells the target who the client is",
        ),
        key(
            "connect_timeout",
            Duration("10ms", "10m"),
            Is("5s"),
            "How long connecting to one target may take; where none answers, the client's connection is closed",
        ),
        key(
            "idle_timeout",
            Duration("1s", "30d"),
            Nothing,
            "How long both sides may be silent; without the key, for as long as both are there",
        ),
        EXPOSED,
    ],
};

/// A row of `[ports]` that the firewall alone acts on.
pub static HOST_ROW: Table = Table {
    header: "{ host = true, allow = [\"internal\"] }",
    doc: "A row of [ports] for a daemon of the host's own, TCP and UDP: only `vestibule firewall` acts on it",
    keys: &[
        key("host", Flag, Wrong, "true: a daemon of the host's own listens there, not the edge"),
        ALLOW,
        DENY,
        EXPOSED,
    ],
};

const ALLOW: Key = key("allow", Sources, Wrong, "Who may connect; \"public\" is everyone");
const DENY: Key = key("deny", Sources, Nothing, "Who may not, even where `allow` names them");
const EXPOSED: Key =
    key("exposed", Flag, Is("false"), "true opens a data store's port to everyone all the same");
const PROXY_PROTOCOL: Key = key(
    "proxy_protocol",
    Sources,
    Nothing,
    "Only these peers may connect, with a PROXY v1 or v2 header; allow and deny judge the client that it names",
);
const MAX_CONNECTIONS: Key =
    key("max_connections", Whole(1, 10_000_000), Nothing, "The most connections open on this row at once");
const MAX_CONNECTIONS_PER_CLIENT: Key = key(
    "max_connections_per_client",
    Whole(1, 10_000_000),
    Nothing,
    "The most of them from one IPv4 address or IPv6 /64",
);
const BACKLOG: Key =
    key("backlog", Whole(1, 65_535), Is("4096"), "The kernel's accept queue, in connections");

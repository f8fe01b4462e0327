//! The edge as a whole.

use super::{
    BODY, Choice, Duration, Either, Fraction, Is, Kind, Nothing, PATIENCE, Path, SECRET, Size, Sources,
    Table, Text, Texts, Whole, Wrong, key,
};

/// `[tls]`
pub static TLS: Table = Table {
    header: "[tls]",
    doc: "TLS with clients",
    keys: &[
        key("min_version", Choice(&["1.2", "1.3"]), Is("1.2"), "The lowest version; no lower value exists"),
        key("client_ca", Path, Nothing, "Clients of every site need a certificate of this CA"),
    ],
};

/// `[client_address]`
pub static CLIENT_ADDRESS: Table = Table {
    header: "[client_address]",
    doc: "Who is believed about the client's address, behind a load balancer or a CDN",
    keys: &[
        key("trusted", Sources, Wrong, "Peers whose header is believed"),
        key(
            "header",
            Choice(&["X-Forwarded-For", "Forwarded", "CF-Connecting-IP"]),
            Is("X-Forwarded-For"),
            "The one header that is believed",
        ),
    ],
};

/// `[limits]`
pub static LIMITS: Table = Table {
    header: "[limits]",
    doc: "What a client may use up",
    keys: &[
        key("connections", Whole(1, 10_000_000), Is("20000"), "The most client connections at once"),
        key(
            "connections_per_client",
            Whole(1, 10_000_000),
            Nothing,
            "The most of them from one IPv4 address or IPv6 /64",
        ),
        key("body", BODY, Is("64MiB"), "The longest request body"),
        key(
            "buffer_memory",
            Size("1MiB", "1TiB"),
            Is("256MiB"),
            "How much of the bodies of all sites waits in memory; what is more goes to disk",
        ),
        key(
            "buffer_disk",
            Size("0B", "1TiB"),
            Is("4GiB"),
            "How much of them waits on disk; beyond it: 503, and answers go at their clients' pace",
        ),
        key("header_timeout", PATIENCE, Is("10s"), "How long a request's head may take"),
        key("handshake_timeout", PATIENCE, Is("10s"), "How long a TLS handshake may take"),
        key(
            "idle_timeout",
            PATIENCE,
            Is("75s"),
            "How long a connection may stay without a request, and the longest pause inside a body",
        ),
    ],
};

/// `[log]`
pub static LOG: Table = Table {
    header: "[log]",
    doc: "The log and the access lines",
    keys: &[
        key("format", Choice(&["json", "combined", "text"]), Is("json"), "The form of a line"),
        key(
            "access",
            Either("\"stdout\", \"off\" or a path, as in \"/var/log/vestibule/access.log\""),
            Is("stdout"),
            "Where access lines go; a file is opened again on SIGUSR1",
        ),
        key(
            "level",
            Choice(&["error", "warn", "info", "debug", "trace"]),
            Is("info"),
            "The least level that is written",
        ),
    ],
};

/// `[admin]`
pub static ADMIN: Table = Table {
    header: "[admin]",
    doc: "What the commands talk to",
    keys: &[
        key(
            "socket",
            Path,
            Nothing,
            "A unix socket, 0600; /run/vestibule/admin.sock, or without root $XDG_RUNTIME_DIR/vestibule/admin.sock",
        ),
        key(
            "listen",
            Text("127.0.0.1:9180"),
            Nothing,
            "Where /metrics, /healthz, /readyz and a page to look at are served over HTTP, to be read and no more",
        ),
        key("allow", Sources, Nothing, "Who may read there, besides this machine itself"),
        key(
            "hosts",
            Texts("edge.internal.example.com"),
            Nothing,
            "Names that it may be asked by, besides addresses and localhost: a browser can be lured by any other",
        ),
    ],
};

/// `[trace]`
pub static TRACE: Table = Table {
    header: "[trace]",
    doc: "Where spans of sampled traces are sent: an OpenTelemetry collector, or what speaks its protocol (OTLP over HTTP)",
    keys: &[
        key(
            "endpoint",
            Text("http://collector:4318"),
            Wrong,
            "A collector's URL, to which /v1/traces is appended",
        ),
        key(
            "headers",
            Kind::Table(&SECRET),
            Nothing,
            "Header fields for it, as OTEL_EXPORTER_OTLP_HEADERS has them: authorization=Bearer%20…,x-scope-orgid=1",
        ),
        key("service", Text("vestibule"), Is("vestibule"), "What the edge is called there (service.name)"),
        key(
            "sample",
            Fraction,
            Is("1"),
            "How many of the traces that begin at the edge are sampled; for others, whoever began them has decided",
        ),
    ],
};

/// `[process]`
pub static PROCESS: Table = Table {
    header: "[process]",
    doc: "The process itself",
    keys: &[
        key("workers", Whole(0, 1024), Is("0"), "Worker threads; 0 is one a core"),
        key("user", Text("vestibule"), Nothing, "The user that it becomes after the ports are bound"),
        key("grace", Duration("0s", "1h"), Is("30s"), "How long requests in flight may take to finish"),
    ],
};

//! The tables, in the order of the documentation.

use super::Absent::{Is, Nothing, Wrong};
use super::Kind::{
    Choice, Duration, Either, Flag, Later, Map, Path, Size, Sources, Tables, Text, Texts, Whole,
};
use super::{Absent, Key, Kind, Table};

/// Every table that has a header, for telling where a misplaced key belongs.
pub static TABLES: &[&Table] = &[
    &ROOT,
    &PORT,
    &SITE,
    &PROXY,
    &ROUTE,
    &REDIRECT,
    &CERTIFICATE,
    &SOURCE_FILE,
    &ACME,
    &EAB,
    &FALLBACK,
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
        key(
            "host",
            Later("leave the row out: the host's own firewall rules this port"),
            Nothing,
            "The host's own daemon",
        ),
        later("tls", "TLS ended before forwarding"),
        later("send_proxy", "A PROXY header to what is forwarded to"),
        later("http3", "HTTP/3"),
    ],
};

/// `[[site]]`
pub static SITE: Table = Table {
    header: "[[site]]",
    doc: "What is served under which names",
    keys: &[
        key("domains", Texts("app.example.com"), Wrong, "DNS names; a wildcard, *.example.com, is one label"),
        key("redirect", Texts("www.example.com"), Nothing, "Names that get a 308 to the first of `domains`"),
        key(
            "ports",
            Either("a list of rows, as in [443, \"203.0.113.10:443\"]"),
            Nothing,
            "The rows of [ports] that serve it; without the key, every row",
        ),
        key(
            "upstream",
            Either("\"host:port\", \"unix:/path\", \"https://host:port\", or a list of them"),
            Nothing,
            "What answers; needed where a route names no other",
        ),
        key("allow", Sources, Is("public"), "Who may use it, by client address"),
        key("deny", Sources, Nothing, "Who may not, even where `allow` names them"),
        key(
            "certificate",
            Either("\"acme\", \"internal\" or { cert = \"….pem\", key = \"….pem\" }"),
            Is("acme"),
            "\"acme\": a CA, as [acme] says. \"internal\": the edge's own CA, for development. Files are watched",
        ),
        key(
            "client_ca",
            Path,
            Nothing,
            "Clients need a certificate of this CA; without the key, as [tls] says",
        ),
        key(
            "hsts",
            Either("a duration, as in \"365d\", or false"),
            Is("365d"),
            "Strict-Transport-Security; off where the certificate is \"internal\"",
        ),
        key("body", BODY, Nothing, "The longest request body; without the key, as [limits] says"),
        key("proxy", Kind::Table(&PROXY), Nothing, "How the upstream is spoken to"),
        key("route", Tables(&ROUTE), Nothing, "Paths that are treated in another way"),
        later("compress", "Compression of responses"),
        later("errors", "Error pages of your own"),
    ],
};

/// `[site.proxy]`
pub static PROXY: Table = Table {
    header: "[site.proxy]",
    doc: "How the upstream is spoken to",
    keys: &[
        key(
            "connect_timeout",
            Duration("10ms", "10m"),
            Is("2s"),
            "How long connecting to one upstream may take",
        ),
        key(
            "response_timeout",
            Duration("100ms", "1d"),
            Is("60s"),
            "How long the upstream may say nothing while its answer is awaited",
        ),
        key("buffer_request", Flag, Is("true"), "Read the whole request before a worker is taken"),
        key("buffer_response", Flag, Is("true"), "Take the response as fast as the worker gives it"),
        key("buffer_memory", Size("4KiB", "64MiB"), Is("64KiB"), "How much of one body waits in memory"),
        key(
            "buffer_disk",
            Size("0B", "1TiB"),
            Is("1GiB"),
            "How much of all bodies waits on disk, in unlinked files",
        ),
        key(
            "balance",
            Choice(&["least-busy", "round-robin"]),
            Is("least-busy"),
            "How one of several upstreams is chosen",
        ),
        later("health", "Asking upstreams whether they are well"),
        key(
            "hold",
            Duration("0s", "10m"),
            Is("10s"),
            "How long a request waits while no upstream takes a connection",
        ),
        key("retries", Whole(0, 10), Is("2"), "How often a request that may be sent twice is sent again"),
        later("headers", "Headers set or removed on responses"),
    ],
};

/// `[[site.route]]`
pub static ROUTE: Table = Table {
    header: "[[site.route]]",
    doc: "A path that is treated in another way; the longest match wins",
    keys: &[
        key("path", Text("/admin/"), Wrong, "A prefix, \"/admin/\", or one path alone, \"= /x\""),
        key("allow", Sources, Is("public"), "Who may use it, beyond the site's own allow"),
        key("deny", Sources, Nothing, "Who may not, even where `allow` names them"),
        key("body", BODY, Nothing, "The longest request body; without the key, as the site says"),
        key(
            "upstream",
            Either("\"host:port\", \"unix:/path\", \"https://host:port\", or a list of them"),
            Nothing,
            "What answers; without the key, the site's upstream",
        ),
        key("redirect", Kind::Table(&REDIRECT), Nothing, "Where the client is sent instead"),
        key("files", Path, Nothing, "A directory whose files are served; what follows `path` names one"),
        key(
            "cache",
            Either("\"immutable\", a duration, as in \"30d\", or false"),
            Is("false"),
            "Cache-Control of files; \"immutable\" is for hashed names, app.0123456789ab.js, and has others revalidated",
        ),
        key("internal", Flag, Is("false"), "Files that are reached through X-Accel-Redirect alone"),
        key(
            "sandbox",
            Flag,
            Nothing,
            "Files may be strangers' uploads: a sandboxing Content-Security-Policy, and no .br, .zst or .gz in the place of \
             another; without the key, all but cache = \"immutable\"",
        ),
        later("rate", "A rate limit"),
    ],
};

/// `redirect` of a route.
pub static REDIRECT: Table = Table {
    header: "{ to = \"/new/\", status = 308 }",
    doc: "Where the client is sent",
    keys: &[
        key("to", Text("/new/"), Wrong, "A path on the same host, or a whole http or https URL"),
        key("status", Whole(301, 308), Is("308"), "301, 302, 303, 307 or 308"),
    ],
};

/// `certificate` of a site, as files.
pub static CERTIFICATE: Table = Table {
    header: "{ cert = \"….pem\", key = \"….pem\" }",
    doc: "A certificate from PEM files, watched",
    keys: &[
        key("cert", Path, Wrong, "The chain, the site's own certificate first"),
        key("key", Path, Wrong, "The private key"),
    ],
};

/// `[acme]`
pub static ACME: Table = Table {
    header: "[acme]",
    doc: "Certificates from an ACME CA, obtained and renewed for the sites with certificate = \"acme\"",
    keys: &[
        key("email", Text("ops@example.com"), Nothing, "Whom the CA may write to"),
        DIRECTORY,
        PROFILE,
        key(
            "challenge",
            Choice(&["http-01", "tls-alpn-01", "dns-01"]),
            Nothing,
            "How names are proved; without the key, by what works, in this order",
        ),
        key("eab", Kind::Table(&EAB), Nothing, "The account at the CA that the new one belongs to"),
        key(
            "fallback",
            Tables(&FALLBACK),
            Nothing,
            "CAs that are tried in order when the first one keeps failing",
        ),
        key("ca_root", Path, Nothing, "Trust for the CA's own API, for a private CA"),
        key(
            "import",
            Either("a path, as in \"/etc/letsencrypt\", or false"),
            Is("/etc/letsencrypt"),
            "Certbot's directory: what fits is taken over where the store has nothing",
        ),
        later("dns", "The challenge dns-01"),
    ],
};

/// `eab` of a CA.
pub static EAB: Table = Table {
    header: "{ key_id = \"…\", hmac = { file = \"…\" } }",
    doc: "An external account binding",
    keys: &[
        key("key_id", Text("kid-1"), Wrong, "The key's identifier"),
        key("hmac", Kind::Table(&SECRET), Wrong, "The key, in base64url"),
    ],
};

/// A CA of `fallback`.
pub static FALLBACK: Table = Table {
    header: "{ directory = \"zerossl\", eab = { … } }",
    doc: "Another CA",
    keys: &[
        Key { absent: Wrong, ..DIRECTORY },
        PROFILE,
        key("eab", Kind::Table(&EAB), Nothing, "The account at the CA that the new one belongs to"),
    ],
};

/// A secret, wherever one is wanted.
pub static SECRET: Table = Table {
    header: "{ file = \"/run/secrets/…\" }",
    doc: "A secret, which is never written in this file: one of the two",
    keys: &[
        key("file", Path, Nothing, "A file with nothing else in it"),
        key("env", Text("NAME"), Nothing, "The name of an environment variable"),
    ],
};

/// `[store]`
pub static STORE: Table = Table {
    header: "[store]",
    doc: "Where certificates and keys are kept",
    keys: &[
        key("path", Path, Is("certs"), "A directory, 0700, relative to the working directory"),
        later("url", "A database that several edges share"),
        key(
            "key",
            Kind::Table(&SECRET),
            Nothing,
            "What the keys of certificates and accounts from a CA are sealed with, AES-256-GCM: 32 bytes",
        ),
    ],
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
        later("listen", "Metrics, health and a dashboard over HTTP"),
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

const fn key(name: &'static str, kind: Kind, absent: Absent, doc: &'static str) -> Key {
    Key { name, kind, absent, doc }
}

const fn later(name: &'static str, doc: &'static str) -> Key {
    Key { name, kind: Later("leave it out"), absent: Nothing, doc }
}

const DIRECTORY: Key = key(
    "directory",
    Either("\"letsencrypt\", \"letsencrypt-staging\", \"zerossl\" or the URL of a CA's directory"),
    Is("letsencrypt"),
    "The CA",
);
const PROFILE: Key = key(
    "profile",
    Text("shortlived"),
    Nothing,
    "The profile to order with, as the CA's directory lists them",
);
const BODY: Kind = Size("1B", "1TiB");
const PATIENCE: Kind = Duration("100ms", "1h");

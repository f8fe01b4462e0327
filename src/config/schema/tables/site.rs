//! The sites.

use super::{
    BODY, Choice, Duration, Either, Flag, Is, Key, Kind, Map, Nothing, Path, Size, Sources, Table, Tables,
    Text, Texts, Whole, Wrong, key,
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
        key(
            "rate",
            RATE_KIND,
            Nothing,
            "How often its routes may be asked, all together that have no rate of their own",
        ),
        key("auth", AUTH_KIND, Nothing, "Whose password is asked for"),
        key("proxy", Kind::Table(&PROXY), Nothing, "How the upstream is spoken to"),
        key("route", Tables(&ROUTE), Nothing, "Paths that are treated in another way"),
        key(
            "compress",
            Either("true, false or a table, as in [site.compress]"),
            Is("false"),
            "Compress answers: zstd, br or gzip, as the client takes them",
        ),
        key(
            "errors",
            Kind::Table(&ERRORS),
            Nothing,
            "Pages of your own for what the edge itself answers; maintenance",
        ),
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
        key("buffer_memory", BUFFER_MEMORY, Is("64KiB"), "How much of one body waits in memory"),
        key(
            "buffer_disk",
            Size("0B", "1TiB"),
            Is("1GiB"),
            "How much of all bodies of the site waits on disk, in unlinked files of $TMPDIR or /tmp",
        ),
        key(
            "balance",
            Choice(&["least-busy", "round-robin", "sticky"]),
            Is("least-busy"),
            "How one of several upstreams is chosen; \"sticky\": the one that the client was at, by a signed cookie",
        ),
        key(
            "concurrency",
            Whole(1, 100_000),
            Nothing,
            "The most requests at once at one upstream, as many as gunicorn has workers; without the key, no limit",
        ),
        key(
            "queue",
            Whole(0, 1_000_000),
            Is("4096"),
            "The most requests that wait for a place, or for an upstream",
        ),
        key(
            "queue_timeout",
            Duration("10ms", "10m"),
            Is("30s"),
            "How long a request waits for a place where `concurrency` says how many there are",
        ),
        key("health", Kind::Table(&HEALTH), Nothing, "Asks upstreams whether they are well"),
        key(
            "hold",
            Duration("0s", "10m"),
            Is("10s"),
            "How long a request waits while no upstream takes a connection",
        ),
        key(
            "trace",
            Choice(&["pass", "begin"]),
            Is("pass"),
            "A client's trace (traceparent) goes on where it is in order; begin: one begins where there is none",
        ),
        key("retries", Whole(0, 10), Is("2"), "How often a request that may be sent twice is sent again"),
        key(
            "headers",
            Kind::Table(&HEADERS),
            Nothing,
            "Headers set on every answer of the site, or taken off",
        ),
    ],
};

/// `health` of `[site.proxy]`
pub static HEALTH: Table = Table {
    header: "{ path = \"/healthz\", every = \"5s\" }",
    doc: "How upstreams are asked whether they are well, each with the site's own Host, as if over https",
    keys: &[
        key("path", Text("/healthz"), Wrong, "What is asked for"),
        key("every", Duration("100ms", "1h"), Is("5s"), "How often"),
        key("timeout", Duration("10ms", "5m"), Is("2s"), "How long an answer may take"),
        key("fails", Whole(1, 100), Is("2"), "How many bad answers in a row take an upstream out"),
        key("passes", Whole(1, 100), Is("1"), "How many good ones bring it back"),
        key("status", Whole(200, 599), Nothing, "The one good status; without the key, any from 200 to 399"),
        key(
            "host",
            Text("app.example.com"),
            Nothing,
            "The Host; without the key, the first whole name of the site",
        ),
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
        key(
            "buffer_request",
            Flag,
            Nothing,
            "Over [site.proxy]: read the whole request before a worker is taken",
        ),
        key(
            "buffer_response",
            Flag,
            Nothing,
            "Over [site.proxy]: take the response as fast as the worker gives it",
        ),
        key(
            "buffer_memory",
            BUFFER_MEMORY,
            Nothing,
            "Over [site.proxy]: how much of one body waits in memory",
        ),
        key(
            "headers",
            Kind::Table(&HEADERS),
            Nothing,
            "Headers set or taken off, over those of [site.proxy]",
        ),
        key(
            "compress",
            Either("true, false or a table, as in { types = [\"text/*\"] }"),
            Nothing,
            "Compress answers, over what the site says",
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
        key("rate", RATE_KIND, Nothing, "How often it may be asked; without the key, as the site says"),
        key("auth", AUTH_KIND, Nothing, "Whose password is asked for; without the key, as the site says"),
    ],
};

/// `rate` of a site or a route.
pub static RATE: Table = Table {
    header: "{ limit = 10, every = \"1m\" }",
    doc: "How often something may be asked; what is more gets a 429",
    keys: &[
        key(
            "per",
            Text("client"),
            Is("client"),
            "What requests are told apart by: \"client\", its address or IPv6 /64; \"header:NAME\"; \"cookie:NAME\"; or \"all\" together",
        ),
        key("limit", Whole(1, 1_000_000), Wrong, "How many requests in `every`"),
        key("every", Duration("1s", "1d"), Wrong, "The time in which `limit` requests pass"),
        key(
            "burst",
            Whole(0, 1_000_000),
            Nothing,
            "How many may come before they are due; without the key one less than `limit`, so that `limit` may come at once",
        ),
    ],
};

/// `auth` of a site or a route.
pub static AUTH: Table = Table {
    header: "{ file = \"/etc/vestibule/htpasswd\", realm = \"Staff\" }",
    doc: "A user name and password, asked for at the edge",
    keys: &[
        key("file", Path, Wrong, "Lines of `htpasswd -B`; read again on reload"),
        key("realm", Text("Staff"), Is("restricted"), "What the password is for, as browsers show it"),
    ],
};

const AUTH_KIND: Kind = Either("a table, as in { file = \"/etc/vestibule/htpasswd\" }, or false");
const RATE_KIND: Kind = Either("a table, as in { limit = 10, every = \"1m\" }, or false");

/// `redirect` of a route.
pub static REDIRECT: Table = Table {
    header: "{ to = \"/new/\", status = 308 }",
    doc: "Where the client is sent",
    keys: &[
        key("to", Text("/new/"), Wrong, "A path on the same host, or a whole http or https URL"),
        key("status", Whole(301, 308), Is("308"), "301, 302, 303, 307 or 308"),
    ],
};

/// `headers` of a site or a route.
pub static HEADERS: Table = Table {
    header: "{ set = { X-Frame-Options = \"DENY\" }, remove = [\"Server\"] }",
    doc: "Headers of answers: the upstream's, files' and the edge's own",
    keys: &[
        key(
            "set",
            Map("a table of headers, as in { X-Frame-Options = \"DENY\" }"),
            Nothing,
            "Each stands once, with this value; Vary is added to, and Cache-Control is not for the edge's own pages",
        ),
        key("remove", Texts("Server"), Nothing, "Each is taken off"),
    ],
};

/// `[site.errors]`
pub static ERRORS: Table = Table {
    header: "[site.errors]",
    doc: "Pages of your own for what the edge itself answers, read at every load; {status} and {request_id} are filled in",
    keys: &[
        page("400", "A request that is malformed"),
        page("401", "Nobody has said who asks"),
        page("403", "An address that is not allowed"),
        page("404", "Nothing is there"),
        page("405", "A method that is not served"),
        page("408", "A request that did not come to its end"),
        page("413", "A body over the limit"),
        page("429", "Too many requests"),
        page("500", "A mistake of the edge's own"),
        page("502", "An upstream that gave no answer"),
        page("503", "No upstream is up"),
        page("504", "An upstream that took too long"),
        page("507", "No room on the disk for a request's body"),
        page("4xx", "Any other status from 400 to 499"),
        page("5xx", "Any other status from 500 to 599"),
        page("maintenance", "Shown, with 503, while the site is in maintenance"),
        key(
            "maintenance_file",
            Path,
            Nothing,
            "The site is in maintenance while this file exists. Where it is not named and there is a page for maintenance: exactly /srv/maintenance.on",
        ),
        key("maintenance_allow", Sources, Nothing, "Who is served all the same"),
    ],
};

const fn page(name: &'static str, doc: &'static str) -> Key {
    key(name, Path, Nothing, doc)
}

/// `[site.compress]`, and `compress` of a route.
pub static COMPRESS: Table = Table {
    header: "[site.compress]",
    doc: "Answers that are compressed for clients that take it",
    keys: &[
        key(
            "types",
            Texts("text/*"),
            Nothing,
            "Their media types, * for any letters; without the key, text, JSON, JavaScript, XML, SVG, WebAssembly and what else \
             gains",
        ),
        key(
            "min_size",
            Size("1B", "16MiB"),
            Is("1KiB"),
            "The shortest that is worth it; what has no known length is",
        ),
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
const BUFFER_MEMORY: Kind = Size("4KiB", "64MiB");

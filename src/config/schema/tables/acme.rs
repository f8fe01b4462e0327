//! Certificates from a CA.

use super::{
    Choice, Duration, Either, Is, Key, Kind, Nothing, Path, Table, Tables, Text, Texts, Wrong, key, later,
};

/// `[acme]`
pub static ACME: Table = Table {
    header: "[acme]",
    doc: "Certificates from an ACME CA, obtained and renewed for the sites with certificate = \"acme\"",
    keys: &[
        key("email", Text("ops@example.com"), Nothing, "Whom the CA may write to"),
        DIRECTORY,
        STAGING,
        PROFILE,
        PREFERRED_CHAIN,
        key(
            "challenge",
            Choice(&["http-01", "tls-alpn-01", "dns-01"]),
            Nothing,
            "How names are proved; without the key, by what works, in this order. Wildcards take dns-01 alone",
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
        key("dns", Kind::Table(&DNS), Nothing, "Where records for the challenge dns-01 are written"),
        key(
            "hook",
            Texts("/etc/vestibule/on-cert"),
            Nothing,
            "A program that is told what becomes of certificates: `obtained`, `failed` or `expiring`, and the names, behind its \
             own arguments; JSON on its standard input",
        ),
        key(
            "webhook",
            Either("a URL, or a table, as in { file = \"/run/secrets/webhook\" }"),
            Nothing,
            "A URL that the same JSON is posted to",
        ),
    ],
};

/// `dns` of `[acme]`
pub static DNS: Table = Table {
    header: "{ provider = \"rfc2136\", server = \"ns1:53\", key = { file = \"…\" } }",
    doc: "Who writes the records of the challenge dns-01, and who is asked whether they are out",
    keys: &[
        key("provider", Choice(&["rfc2136", "exec", "cloudflare"]), Wrong, "Who writes the records"),
        key("server", Text("ns1.example.com:53"), Nothing, "rfc2136: the name server that takes updates"),
        key("key", Kind::Table(&SECRET), Nothing, "rfc2136: the TSIG key, as `tsig-keygen` writes it"),
        key(
            "command",
            Texts("/etc/vestibule/dns-hook"),
            Nothing,
            "exec: the program, called with `present NAME VALUE` and `cleanup NAME VALUE` behind its own arguments",
        ),
        key("timeout", Duration("1s", "1h"), Is("1m"), "exec: how long the program may take"),
        key("token", Kind::Table(&SECRET), Nothing, "cloudflare: an API token that may edit the zone's DNS"),
        key(
            "api",
            Text("https://api.cloudflare.com/client/v4"),
            Nothing,
            "cloudflare: where the API is; for a private gateway before it",
        ),
        key(
            "resolvers",
            Texts("10.0.0.2:53"),
            Nothing,
            "Who is asked where names lead; default: the machine's own resolvers",
        ),
        key(
            "nameservers",
            Texts("192.0.2.53"),
            Nothing,
            "Who is asked whether a record is out; default: the zone's own name servers",
        ),
        key("propagation", Duration("1s", "1h"), Is("2m"), "How long a record may take to be out"),
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
        STAGING,
        PROFILE,
        PREFERRED_CHAIN,
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

const DIRECTORY: Key = key(
    "directory",
    Either("\"letsencrypt\", \"letsencrypt-staging\", \"zerossl\" or the URL of a CA's directory"),
    Is("letsencrypt"),
    "The CA",
);
const STAGING: Key = key(
    "staging",
    Either("the URL of a directory, or false"),
    Nothing,
    "Where it is tried first after a failure, without consequences; Let's Encrypt has one of its own",
);
const PROFILE: Key = key(
    "profile",
    Text("shortlived"),
    Nothing,
    "The profile to order with, as the CA's directory lists them",
);
const PREFERRED_CHAIN: Key = key(
    "preferred_chain",
    Text("ISRG Root X1"),
    Nothing,
    "The common name of the root that the chain is to lead to, where the CA offers several",
);

//! `[acme]`, and secrets that stand elsewhere.

use std::path::PathBuf;

use super::super::meant::did_you_mean;
use super::super::model::{Acme, AcmeCa, Challenge, Eab, Secret, SecretSource, Webhook, is_web_url};
use super::super::raw::{Table, Value};
use super::{Home, dns};

/// Where certbot keeps its certificates.
const CERTBOT: &str = "/etc/letsencrypt";
/// A part of a URL that is so long, with letters and figures, is a token.
const TOKEN: usize = 20;
const WEBHOOK_HELP: &str =
    "this URL has a token in it: write { file = \"/run/secrets/…\" } or { env = \"NAME\" } in its place";
const ZEROSSL: &str = "zerossl";
/// The CAs that have names: their directories, and those that issue for trying.
static NAMED: &[(&str, &str, Option<&str>)] = &[
    (
        "letsencrypt",
        "https://acme-v02.api.letsencrypt.org/directory",
        Some("https://acme-staging-v02.api.letsencrypt.org/directory"),
    ),
    ("letsencrypt-staging", "https://acme-staging-v02.api.letsencrypt.org/directory", None),
    (ZEROSSL, "https://acme.zerossl.com/v2/DV90", None),
];

/// `[acme]`; all of its defaults where it is missing.
pub(super) fn read(root: &Table<'_>, home: &Home<'_>) -> Acme {
    let table = root.section("acme");
    let fallback = table.tables("fallback");
    let cas = std::iter::once(&table).chain(&fallback).map(|table| ca(table, home)).collect();
    Acme {
        email: table.get("email").and_then(|value| email(&value)),
        cas,
        challenge: challenge(&table),
        dns: table.table("dns").and_then(|table| dns::read(&table, home)),
        ca_root: table.get("ca_root").and_then(|value| home.path(&value)),
        import: import(&table, home),
        hook: table.get("hook").and_then(|value| program(&value, home, "/etc/vestibule/on-cert")),
        webhook: table.get("webhook").and_then(|value| webhook(&value, home)),
    }
}

/// A secret that stands in a file or in the environment. One that stands here was reported before.
pub(super) fn secret(value: &Value<'_>, home: &Home<'_>) -> Option<Secret> {
    if !value.node.is_table() && !value.node.is_array() {
        return None;
    }
    let table = value.table(&super::super::schema::SECRET)?;
    let place = value.place.clone();
    let source = match (table.get("file"), table.get("env")) {
        (Some(file), None) => SecretSource::File(home.path(&file)?),
        (None, Some(name)) => SecretSource::Env(variable(&name)?),
        (Some(_), Some(_)) => {
            value.refuse("a secret stands in one place", "keep `file` or `env`");
            return None;
        }
        (None, None) => {
            if table.lacks("file") && table.lacks("env") {
                value.refuse(
                    "it says nothing of where the secret is",
                    "write { file = \"/run/secrets/…\" } or { env = \"NAME\" }",
                );
            }
            return None;
        }
    };
    Some(Secret { source, place })
}

/// A program and its first arguments.
pub(super) fn program(value: &Value<'_>, home: &Home<'_>, example: &str) -> Option<Vec<String>> {
    let words: Option<Vec<&str>> = value.items()?.iter().map(Value::text).collect();
    let words = words?;
    let Some((program, arguments)) = words.split_first().filter(|(program, _)| !program.is_empty()) else {
        value.refuse("the program is missing", format!("write its path, as in [\"{example}\"]"));
        return None;
    };
    if words.iter().any(|word| word.contains('\0')) {
        value.refuse("no argument of a program can have a NUL in it", "");
        return None;
    }
    let program = home.resolve(program).to_string_lossy().into_owned();
    Some(std::iter::once(program).chain(arguments.iter().map(ToString::to_string)).collect())
}

fn webhook(value: &Value<'_>, home: &Home<'_>) -> Option<Webhook> {
    if value.node.is_table() {
        return secret(value, home).map(Webhook::Secret);
    }
    let Some(text) = value.node.as_str() else {
        value.mismatch();
        return None;
    };
    if !is_web_url(text) {
        let help = "write it as in \"https://hooks.example.com/certificates\", without a user or a password";
        value.refuse("this is not a URL that can be posted to", help);
        return None;
    }
    if text.split(['/', '?', '&', '=']).any(is_token) {
        value.report.secret(&value.place, WEBHOOK_HELP);
        return None;
    }
    Some(Webhook::Url(text.to_owned()))
}

pub(super) fn is_token(part: &str) -> bool {
    let has = |kind: fn(&char) -> bool| part.chars().any(|c| kind(&c));
    part.len() >= TOKEN && has(char::is_ascii_digit) && has(char::is_ascii_alphabetic) && !part.contains('.')
}

fn variable(value: &Value<'_>) -> Option<String> {
    let name = value.text()?;
    if name.is_empty() || name.contains(['=', '\0']) {
        value.refuse(
            format!("{name:?} is not the name of an environment variable"),
            "write its name alone, as in \"ACME_HMAC\"",
        );
        return None;
    }
    Some(name.to_owned())
}

fn email(value: &Value<'_>) -> Option<String> {
    let text = value.text()?;
    let bare = text.strip_prefix("mailto:").unwrap_or(text);
    let parts: Vec<&str> = bare.split('@').collect();
    let plain = |c: char| c.is_ascii_graphic() && !"<>,;?\"".contains(c);
    match parts.as_slice() {
        [name, host] if !name.is_empty() && host.contains('.') && bare.chars().all(plain) && bare == text => {
            Some(text.to_owned())
        }
        _ => {
            value.refuse(
                format!("{text:?} is not an e-mail address"),
                "write one address alone, as in \"ops@example.com\"",
            );
            None
        }
    }
}

/// The table itself is the first CA, and has its keys.
fn ca(table: &Table<'_>, home: &Home<'_>) -> AcmeCa {
    let typed = table.get("directory");
    let (name, directory, staging) = typed.as_ref().and_then(directory).unwrap_or_else(letsencrypt);
    let staging = match table.get("staging") {
        Some(value) => rehearsal(&value),
        None => staging,
    };
    let eab = table.table("eab").and_then(|table| eab(&table, home));
    if let (true, true, Some(value)) = (name == ZEROSSL, table.lacks("eab"), &typed) {
        let help = "add eab = { key_id = \"…\", hmac = { file = \"…\" } }, as its site gives them";
        value.refuse("ZeroSSL wants to know whose the account is", help);
    }
    AcmeCa {
        name,
        directory,
        staging,
        profile: table.get("profile").and_then(|value| profile(&value)),
        preferred_chain: table.get("preferred_chain").and_then(|value| common_name(&value)),
        eab,
    }
}

/// Whether it is a CA whose certificates every browser takes.
pub(super) fn is_public(ca: &AcmeCa) -> bool {
    NAMED.iter().any(|(_, directory, _)| *directory == ca.directory)
}

type Directory = (String, String, Option<String>);

fn letsencrypt() -> Directory {
    named("letsencrypt").unwrap_or_default()
}

fn named(name: &str) -> Option<Directory> {
    let (name, url, staging) = NAMED.iter().find(|(own, ..)| *own == name)?;
    Some(((*name).into(), (*url).into(), staging.map(Into::into)))
}

fn directory(value: &Value<'_>) -> Option<Directory> {
    let text = value.text()?;
    if let Some(found) = named(text) {
        return Some(found);
    }
    let host = text.strip_prefix("https://").and_then(|rest| rest.split(['/', '?', '#']).next());
    if host.is_some_and(|host| !host.is_empty() && !host.contains('@'))
        && !text.contains(|c: char| !c.is_ascii_graphic())
    {
        return Some((text.into(), text.into(), None));
    }
    let (message, help) = if text.starts_with("http://") {
        (
            "a CA is spoken to over https alone".to_owned(),
            format!("write \"{}\"", text.replacen("http", "https", 1)),
        )
    } else {
        let near = did_you_mean(text, NAMED.iter().map(|(name, ..)| *name));
        let words: Vec<String> = NAMED.iter().map(|(name, ..)| format!("\"{name}\"")).collect();
        (
            format!("{text:?} is not a CA"),
            if near.is_empty() {
                format!("write {} or the URL of its directory", words.join(", "))
            } else {
                near
            },
        )
    };
    value.refuse(message, help);
    None
}

/// Where a CA is tried first after a failure.
fn rehearsal(value: &Value<'_>) -> Option<String> {
    if value.flag() == Some(false) {
        return None;
    }
    let Some(text) = value.node.as_str() else {
        value.mismatch();
        return None;
    };
    let (_, url, _) = directory(value)?;
    if url == text || text == "letsencrypt-staging" {
        return Some(url);
    }
    value.refuse(
        format!("{text:?} is no place to try without consequences"),
        "write the URL of its directory, or false",
    );
    None
}

fn profile(value: &Value<'_>) -> Option<String> {
    let text = value.text()?;
    if text.is_empty() || text.contains(|c: char| !c.is_ascii_graphic()) {
        value.refuse(
            format!("{text:?} is not a profile"),
            "write one that the CA's directory lists, as in \"shortlived\"",
        );
        return None;
    }
    Some(text.to_owned())
}

fn eab(table: &Table<'_>, home: &Home<'_>) -> Option<Eab> {
    let key_id = table.get("key_id").and_then(|value| Some(value.text()?.to_owned()));
    let hmac = table.get("hmac").and_then(|value| secret(&value, home));
    Some(Eab { key_id: key_id?, hmac: hmac? })
}

fn common_name(value: &Value<'_>) -> Option<String> {
    let text = value.text()?;
    if text.trim().is_empty() || text.contains(|c: char| c.is_control()) {
        let help = "write the root's common name, as in \"ISRG Root X1\"";
        value.refuse(format!("{text:?} is not the name of a root"), help);
        return None;
    }
    Some(text.trim().to_owned())
}

fn challenge(table: &Table<'_>) -> Option<Challenge> {
    match table.choice("challenge")? {
        "http-01" => Some(Challenge::Http01),
        "tls-alpn-01" => Some(Challenge::TlsAlpn01),
        _ => {
            if let (false, Some(value)) = (table.has("dns"), table.get("challenge")) {
                value.refuse("dns-01 needs somebody who writes the records", dns::HELP);
            }
            Some(Challenge::Dns01)
        }
    }
}

/// An absolute default: it is another program's.
fn import(table: &Table<'_>, home: &Home<'_>) -> Option<PathBuf> {
    let Some(value) = table.get("import") else { return Some(CERTBOT.into()) };
    match value.flag() {
        Some(false) => None,
        Some(true) => {
            value
                .refuse("true does not say from where", format!("write \"{CERTBOT}\", or leave the key out"));
            None
        }
        None if value.node.is_str() => home.path(&value),
        None => {
            value.mismatch();
            None
        }
    }
}

//! `vestibule certs list`, `show`, `renew` and `revoke`: each certificate, as a person wants to see it.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::Path;
use std::time::Duration as Pause;

use http::Method;
use serde::de::DeserializeOwned;
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

use super::{Failure, Format, RunningEdge, files, print, print_json};
use crate::admin::certificates::{Certificate, Certificates, Told, Wish};
use crate::admin::client::{self, ClientError};
use crate::config;
use crate::name::HostPattern;
use crate::runtime::inventory;

/// How long a command waits for the edge.
const PATIENCE: Pause = Pause::from_secs(30);
/// How long it waits for CAs, of which every step has a deadline of its own.
const CA_PATIENCE: Pause = Pause::from_hours(1);
/// How often it looks how far the edge is.
const LOOK: Pause = Pause::from_millis(500);
/// The widest column of the list, in characters.
const WIDEST: usize = 44;

/// `vestibule certs list`
pub(super) fn list(edge: &RunningEdge, format: Format) -> Result<(), Failure> {
    let (certificates, note) = known(edge)?;
    if format == Format::Json {
        return print_json(&Certificates { certificates });
    }
    let now = OffsetDateTime::now_utc();
    print(&(table(&by_urgency(certificates, now), now) + note))
}

/// `vestibule certs show NAME`
pub(super) fn show(name: &str, edge: &RunningEdge) -> Result<(), Failure> {
    let (certificates, note) = known(edge)?;
    let name = HostPattern::parse(name).map_err(|error| Failure::new(format_args!("{name:?}: {error}")))?;
    let found: Vec<_> = certificates.iter().filter(|certificate| is_for(certificate, &name)).collect();
    if found.is_empty() {
        return Err(Failure::new(format_args!(
            "no certificate is for {name}; vestibule certs list has them all"
        )));
    }
    let now = OffsetDateTime::now_utc();
    let pages: Vec<String> = found.into_iter().map(|certificate| page(certificate, now)).collect();
    print(&(pages.join("\n") + note))
}

/// `vestibule certs renew NAME` and `vestibule certs revoke NAME`
pub(super) fn wish(wish: Wish, name: &str, edge: &RunningEdge) -> Result<(), Failure> {
    let name = HostPattern::parse(name).map_err(|error| Failure::new(format_args!("{name:?}: {error}")))?;
    let (word, doing) = match wish {
        Wish::Renew => ("renew", "a new certificate for"),
        Wish::Revoke => ("revoke", "the revocation of the certificate for"),
    };
    let socket = files::socket(edge)?;
    say(&format!("asking for {doing} {name}; the edge goes on with it where this is interrupted"));
    let target = format!("/v1/certificates/{word}?name={name}");
    let told = runtime()?.block_on(watched(&socket, &target, &name)).map_err(Failure::new)?;
    if told.ok { print(&format!("{}\n", told.message)) } else { Err(Failure::new(told.message)) }
}

/// `vestibule certs rekey`
pub(super) fn rekey(edge: &RunningEdge) -> Result<(), Failure> {
    let socket = files::socket(edge)?;
    say("asking for new keys for the accounts at CAs, once no order is under way");
    let told =
        ask::<Told>(&socket, Method::POST, "/v1/accounts/rekey", CA_PATIENCE)?.map_err(Failure::new)?;
    if told.ok { print(&format!("{}\n", told.message)) } else { Err(Failure::new(told.message)) }
}

/// Asks for something, and says meanwhile how far the edge is with the name's certificate.
async fn watched(socket: &Path, target: &str, name: &HostPattern) -> Result<Told, ClientError> {
    let mut asked = std::pin::pin!(client::ask_within(CA_PATIENCE, socket, Method::POST, target));
    let mut last = None;
    loop {
        tokio::select! {
            told = &mut asked => return told,
            () = tokio::time::sleep(LOOK) => {}
        }
        let known = client::ask::<Certificates>(socket, Method::GET, "/v1/certificates").await;
        let Certificates { certificates } = known.unwrap_or_default();
        let own = certificates.into_iter().find(|certificate| certificate.names.contains(&name.to_string()));
        let step = own.and_then(|own| own.doing).map(|doing| doing.step);
        if step.is_some() && step != last {
            say(step.as_deref().unwrap_or_default());
            last = step;
        }
    }
}

/// One line of progress, which is no result.
fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line} …");
}

/// From the running edge; where none runs, from its store.
fn known(edge: &RunningEdge) -> Result<(Vec<Certificate>, &'static str), Failure> {
    let socket = files::socket(edge)?;
    match ask::<Certificates>(&socket, Method::GET, "/v1/certificates", PATIENCE)? {
        Ok(Certificates { certificates }) => Ok((certificates, "")),
        Err(error @ ClientError::Nobody { .. }) if edge.socket.is_none() => {
            let Some(file) = edge.config.clone().or_else(files::default_config) else {
                return Err(Failure::new(error));
            };
            let stored = inventory::stored(&config::load(&file)?.config).map_err(Failure::new)?;
            Ok((stored.certificates, "\nNo edge runs here: this is what its store has.\n"))
        }
        Err(error) => Err(Failure::new(error)),
    }
}

fn ask<T: DeserializeOwned>(
    socket: &Path,
    method: Method,
    target: &str,
    patience: Pause,
) -> Result<Result<T, ClientError>, Failure> {
    Ok(runtime()?.block_on(client::ask_within(patience, socket, method, target)))
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Failure::new(format_args!("cannot begin: {error}")))
}

fn is_for(certificate: &Certificate, name: &HostPattern) -> bool {
    let patterns = certificate.names.iter().filter_map(|own| HostPattern::parse(own).ok());
    patterns
        .into_iter()
        .any(|own| own == *name || matches!(name, HostPattern::Exact(host) if own.matches(host)))
}

/// What is wrong first, then what ends first; else as the file has them.
fn by_urgency(mut certificates: Vec<Certificate>, now: OffsetDateTime) -> Vec<Certificate> {
    certificates.sort_by_key(|each| {
        let ends = moment(each.not_after.as_deref());
        let is_well = each.is_well() && ends.is_some_and(|at| now < at);
        (is_well, ends)
    });
    certificates
}

/// One line a certificate, one more for what is wrong with it, and a last one that counts.
fn table(certificates: &[Certificate], now: OffsetDateTime) -> String {
    let head = ["NAMES", "ISSUER", "EXPIRES", "NEXT"].map(str::to_owned);
    let lines: Vec<[String; 4]> =
        std::iter::once(head).chain(certificates.iter().map(|each| columns(each, now))).collect();
    let width = |column: usize| {
        let cells = lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count());
        cells.max().unwrap_or_default().min(WIDEST)
    };
    let (names, issuer, expires) = (width(0), width(1), width(2));
    let mut text = String::new();
    let troubles = std::iter::once(None).chain(certificates.iter().map(trouble));
    for ([first, second, third, last], trouble) in lines.iter().zip(troubles) {
        let line = format!("{first:names$}  {second:issuer$}  {third:expires$}  {last}");
        let _ = writeln!(text, "{}", line.trim_end());
        if let Some(trouble) = trouble {
            let _ = writeln!(text, "  ! {trouble}");
        }
    }
    let _ = writeln!(text, "\n{}", count(certificates, now));
    text
}

fn columns(certificate: &Certificate, now: OffsetDateTime) -> [String; 4] {
    let names = match certificate.names.as_slice() {
        [] => String::new(),
        [only] => only.clone(),
        [first, rest @ ..] => format!("{first} +{}", rest.len()),
    };
    let issuer = match (certificate.issuer.as_deref(), certificate.source.as_str()) {
        (None, _) => "none yet",
        (Some(_), "internal") => "the edge itself",
        (Some(issuer), _) => issuer,
    };
    let expires = certificate.not_after.as_deref().map(|at| dated(at, now)).unwrap_or_default();
    let next = match (&certificate.next, certificate.source.as_str()) {
        _ if certificate.doing.is_some() => doing(certificate, now).unwrap_or_default(),
        (Some(next), _) => format!("{}: {}", relative(&next.at, now), next.why),
        (None, "files") => "when its files change".to_owned(),
        (None, _) if certificate.trouble.is_some() => String::new(),
        (None, _) => "now".to_owned(),
    };
    [names, issuer.to_owned(), expires, next]
}

/// What is being done, and for how long it has been.
fn doing(certificate: &Certificate, now: OffsetDateTime) -> Option<String> {
    let doing = certificate.doing.as_ref()?;
    let since = moment(Some(&doing.since)).map_or(Duration::ZERO, |since| (now - since).max(Duration::ZERO));
    Some(format!("being ordered for {}: {}", long(since), doing.step))
}

fn trouble(certificate: &Certificate) -> Option<String> {
    if certificate.trouble.is_some() {
        return certificate.trouble.clone();
    }
    let failure = certificate.failure.as_ref()?;
    let names: Vec<String> = failure.names.iter().map(|(name, why)| format!("{name}: {why}")).collect();
    Some(if names.is_empty() { failure.error.clone() } else { names.join("; ") })
}

fn count(certificates: &[Certificate], now: OffsetDateTime) -> String {
    let expired = |each: &&Certificate| moment(each.not_after.as_deref()).is_some_and(|at| at < now);
    let count = |what: &dyn Fn(&&Certificate) -> bool| certificates.iter().filter(what).count();
    let parts = [
        (count(&|each| each.issuer.is_none()), "missing"),
        (count(&expired), "expired"),
        (count(&|each| !each.is_well()), "failing"),
    ];
    let all = certificates.len();
    let noun = if all == 1 { "certificate" } else { "certificates" };
    let bad: Vec<String> =
        parts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
    let rest = if bad.is_empty() { "all in order".to_owned() } else { bad.join(", ") };
    format!("{all} {noun}: {rest}")
}

/// Everything about one.
fn page(certificate: &Certificate, now: OffsetDateTime) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        if !value.is_empty() {
            let _ = writeln!(text, "{name:<14}{value}");
        }
    };
    line("names", &certificate.names.join(", "));
    line("without", &certificate.lacks.join(", "));
    let imported = if certificate.imported { ", imported" } else { "" };
    line("source", &format!("{}{imported}", certificate.source));
    line("issuer", certificate.issuer.as_deref().unwrap_or("none yet"));
    line("now", &doing(certificate, now).unwrap_or_default());
    line("serial", certificate.serial.as_deref().unwrap_or_default());
    line("valid from", &certificate.not_before.as_deref().map(|at| dated(at, now)).unwrap_or_default());
    line("expires", &certificate.not_after.as_deref().map(|at| dated(at, now)).unwrap_or_default());
    line("CA", certificate.directory.as_deref().unwrap_or_default());
    line("profile", certificate.profile.as_deref().unwrap_or_default());
    if let Some(next) = &certificate.next {
        line("next", &format!("{}: {}", dated(&next.at, now), next.why));
    }
    line("explanation", certificate.explanation.as_deref().unwrap_or_default());
    line("order", certificate.order.as_deref().unwrap_or_default());
    line("wrong", certificate.trouble.as_deref().unwrap_or_default());
    if let Some(failure) = &certificate.failure {
        line("failed", &format!("{} in a row: {}", failure.tries, failure.error));
        for (name, why) in &failure.names {
            line("", &format!("{name}: {why}"));
        }
    }
    for (index, event) in certificate.history.iter().rev().enumerate() {
        let name = if index == 0 { "history" } else { "" };
        line(name, &format!("{}  {:<9} {}", event.at, event.kind, event.detail));
    }
    text
}

/// The day, and how far away it is.
fn dated(at: &str, now: OffsetDateTime) -> String {
    match moment(Some(at)) {
        Some(moment) => format!("{}, {}", moment.date(), relative(at, now)),
        None => at.to_owned(),
    }
}

/// How far away a moment is, in the one unit that matters.
fn relative(at: &str, now: OffsetDateTime) -> String {
    let Some(moment) = moment(Some(at)) else { return at.to_owned() };
    let away = (moment - now).abs();
    let amount = long(away);
    if moment < now { format!("{amount} ago") } else { format!("in {amount}") }
}

fn long(time: Duration) -> String {
    match time {
        _ if time >= Duration::days(2) => format!("{} days", time.whole_days()),
        _ if time >= Duration::hours(2) => format!("{} hours", time.whole_hours()),
        _ if time >= Duration::minutes(2) => format!("{} minutes", time.whole_minutes()),
        _ => format!("{} seconds", time.whole_seconds()),
    }
}

fn moment(text: Option<&str>) -> Option<OffsetDateTime> {
    OffsetDateTime::parse(text?, &Rfc3339).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::certificates::{Doing, Event, Failure as Failed, Next};

    const NOW: OffsetDateTime = time::macros::datetime!(2026-12-01 12:00 UTC);

    fn good() -> Certificate {
        Certificate {
            names: vec!["app.example.com".into(), "www.example.com".into()],
            source: "acme".into(),
            issuer: Some("Let's Encrypt E7".into()),
            serial: Some("4a".into()),
            not_before: Some("2026-11-01T00:00:00Z".into()),
            not_after: Some("2027-01-30T00:00:00Z".into()),
            next: Some(Next { at: "2026-12-01T17:30:00Z".into(), why: "the CA's window".into() }),
            directory: Some("https://ca.example/dir".into()),
            history: vec![Event {
                at: "2026-11-01T00:00:00Z".into(),
                kind: "obtained".into(),
                detail: "http-01".into(),
            }],
            ..Certificate::default()
        }
    }

    fn bad() -> Certificate {
        Certificate {
            names: vec!["*.b.example".into()],
            source: "acme".into(),
            next: Some(Next { at: "2026-12-01T12:01:30Z".into(), why: "the try after 1 that failed".into() }),
            failure: Some(Failed {
                tries: 1,
                error: "names failed".into(),
                names: vec![("*.b.example".into(), "no such host".into())],
            }),
            ..Certificate::default()
        }
    }

    #[test]
    fn a_list_is_read_at_a_glance() {
        let files = Certificate {
            names: vec!["c.example".into()],
            source: "files".into(),
            issuer: Some("Corp CA".into()),
            not_after: Some("2026-11-28T00:00:00Z".into()),
            ..Certificate::default()
        };
        let expected = "\
NAMES               ISSUER            EXPIRES                 NEXT
app.example.com +1  Let's Encrypt E7  2027-01-30, in 59 days  in 5 hours: the CA's window
*.b.example         none yet                                  in 90 seconds: the try after 1 that failed
  ! *.b.example: no such host
c.example           Corp CA           2026-11-28, 3 days ago  when its files change

3 certificates: 1 missing, 1 expired, 1 failing
";
        assert_eq!(table(&[good(), bad(), files], NOW), expected);
        assert!(table(&[good()], NOW).ends_with("\n1 certificate: all in order\n"));
    }

    #[test]
    fn what_is_wrong_is_listed_first_and_then_what_ends_first() {
        let named = |name: &str, own: Certificate| Certificate { names: vec![name.into()], ..own };
        let ending = |at: &str| Certificate { not_after: Some(at.into()), ..good() };
        let failing = Certificate { failure: bad().failure, ..ending("2027-01-05T00:00:00Z") };
        let all = vec![
            named("late", good()),
            named("early", ending("2026-12-20T00:00:00Z")),
            named("failing", failing),
            named("expired", ending("2026-11-30T00:00:00Z")),
            named("missing", bad()),
        ];
        let order: Vec<_> = by_urgency(all, NOW).into_iter().map(|each| each.names.concat()).collect();
        assert_eq!(order, ["missing", "expired", "failing", "early", "late"]);
    }

    #[test]
    fn an_order_is_listed_with_how_far_it_is() {
        let doing =
            Doing { step: "waiting for ca.example to sign".into(), since: "2026-12-01T11:59:48Z".into() };
        let ordered = Certificate { doing: Some(doing), failure: None, ..bad() };
        let expected = "being ordered for 12 seconds: waiting for ca.example to sign\n";
        assert!(table(std::slice::from_ref(&ordered), NOW).contains(&format!("  {expected}")));
        assert!(page(&ordered, NOW).contains(&format!("\nnow           {expected}")));
    }

    #[test]
    fn a_page_has_everything() {
        let expected = "\
names         app.example.com, www.example.com
source        acme
issuer        Let's Encrypt E7
serial        4a
valid from    2026-11-01, 30 days ago
expires       2027-01-30, in 59 days
CA            https://ca.example/dir
next          2026-12-01, in 5 hours: the CA's window
history       2026-11-01T00:00:00Z  obtained  http-01
";
        assert_eq!(page(&good(), NOW), expected);
        let page = page(&bad(), NOW);
        assert!(
            page.contains(
                "failed        1 in a row: names failed\n              *.b.example: no such host\n"
            )
        );
    }

    #[test]
    fn a_name_finds_its_certificate() {
        let parse = |name: &str| HostPattern::parse(name).unwrap();
        assert!(is_for(&good(), &parse("www.example.com")) && !is_for(&good(), &parse("x.example.com")));
        assert!(is_for(&bad(), &parse("*.b.example")) && is_for(&bad(), &parse("a.b.example")));
    }
}

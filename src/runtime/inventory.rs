//! What there is to know about every certificate: from what is in use, and from the store.

use std::sync::Arc;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::{mpsc, oneshot};

use crate::acme;
use crate::acme::command::Command;
use crate::acme::progress::Progress;
use crate::acme::renewal::Decision;
use crate::acme::store::{self, EventKind, Record, RecordId, StoreError, look, sets};
use crate::admin::certificates::{Certificate, Certificates, Doing, Event, Failure, Next, Told, Wish};
use crate::config::model::{self, Config};
use crate::name::HostPattern;
use crate::snapshot::Snapshot;
use crate::tls::InUse;

/// Every certificate of a running configuration. Reads the disk.
pub(super) fn running(snapshot: &Snapshot, progress: &Progress) -> Certificates {
    let store = &snapshot.config.store.path;
    let sites = snapshot.config.certified().zip(snapshot.all_tls());
    let each = sites.flat_map(|(site, tls)| tls.in_use().into_iter().map(move |in_use| (site, in_use)));
    let certificates = each.map(|(site, in_use)| {
        let stored = site.certificate == model::Certificate::Acme;
        let id = stored.then(|| RecordId::of(&in_use.names));
        let record = id.as_ref().and_then(|id| look(store, id).ok().flatten());
        let doing = id.as_ref().and_then(|id| progress.of(id));
        let doing = doing.map(|doing| Doing { step: doing.step, since: text(doing.since) });
        let held =
            id.as_ref().and_then(|id| progress.held(id)).filter(|until| OffsetDateTime::now_utc() < *until);
        let held = held.map(|until| Next { at: text(until), why: "the CA's limits".to_owned() });
        let own = id.as_ref().and_then(|id| progress.trouble(id));
        let trouble = trouble(site, in_use.trouble.as_deref(), progress).or(own);
        let known = certificate(source(site), in_use, record);
        // What nobody looks after has no next time.
        let stopped = stored && progress.stopped().is_some();
        let next = held.or(known.next.clone()).filter(|_| !stopped);
        Certificate { doing, next, trouble, ..known }
    });
    Certificates { certificates: certificates.collect() }
}

/// Every certificate that the store has for a configuration which does not run. Reads the disk.
///
/// # Errors
/// The store cannot be read.
pub fn stored(config: &Config) -> Result<Certificates, StoreError> {
    let acme = config.certified().filter(|site| site.certificate == model::Certificate::Acme);
    let one = |names: Vec<HostPattern>| {
        let record = look(&config.store.path, &RecordId::of(&names))?;
        let bundle = record.as_ref().and_then(|record| record.bundle.as_ref());
        let in_use = bundle.map_or_else(InUse::default, |bundle| InUse::of_pem(&bundle.chain_pem));
        Ok::<_, StoreError>(certificate("acme", InUse { names, ..in_use }, record))
    };
    let certificates = acme.flat_map(sets).map(one).collect::<Result<_, _>>()?;
    Ok(Certificates { certificates })
}

/// Has something done with a certificate, and says what became of it.
pub(super) async fn told(
    wish: Wish,
    name: String,
    config: Arc<Config>,
    commands: mpsc::Sender<Command>,
) -> Told {
    let failed = |message: String| Told { ok: false, message };
    let parsed = HostPattern::parse(&name).map_err(|error| format!("{name:?}: {error}"));
    let id = match parsed.and_then(|name| record_of(&config, &name)) {
        Ok(id) => id,
        Err(message) => return failed(message),
    };
    let (reply, answer) = oneshot::channel();
    let command = match wish {
        Wish::Renew => Command::Renew(id, reply),
        Wish::Revoke => Command::Revoke(id, reply),
    };
    obeyed(&commands, command, answer).await
}

/// Has the account at every CA given a new key, and says what became of it.
pub(super) async fn rekeyed(commands: mpsc::Sender<Command>) -> Told {
    let (reply, answer) = oneshot::channel();
    obeyed(&commands, Command::Rekey(reply), answer).await
}

async fn obeyed(
    commands: &mpsc::Sender<Command>,
    command: Command,
    answer: oneshot::Receiver<Result<String, String>>,
) -> Told {
    let sent = commands.send(command).await.is_ok();
    match answer.await {
        Ok(Ok(message)) if sent => Told { ok: true, message },
        Ok(Err(message)) => Told { ok: false, message },
        _ => Told {
            ok: false,
            message: "nobody looks after certificates just now; the log says why".to_owned(),
        },
    }
}

/// The record that a name's certificate is kept in. The error says why there is none.
pub(super) fn record_of(config: &Config, name: &HostPattern) -> Result<RecordId, String> {
    let has = |site: &&model::Site| sets(site).iter().flatten().any(|own| own == name);
    let Some(site) = config.certified().find(has) else {
        return Err(format!("no site has the name {name}"));
    };
    match &site.certificate {
        model::Certificate::Acme => {}
        model::Certificate::Internal => {
            return Err(format!("the certificate of {name} is the edge's own, and renewed by itself"));
        }
        model::Certificate::Files { cert, .. } => {
            return Err(format!(
                "the certificate of {name} is in {}: put another in its place",
                cert.display()
            ));
        }
    }
    let set = sets(site).into_iter().find(|set| set.contains(name)).unwrap_or_default();
    Ok(RecordId::of(&set))
}

fn source(site: &model::Site) -> &'static str {
    match site.certificate {
        model::Certificate::Acme => "acme",
        model::Certificate::Internal => "internal",
        model::Certificate::Files { .. } => "files",
    }
}

/// What is wrong beside orders that fail. `kept` is why the certificate in use is still the one before.
fn trouble(site: &model::Site, kept: Option<&str>, progress: &Progress) -> Option<String> {
    match (&site.certificate, kept) {
        (model::Certificate::Internal, Some(why)) => Some(format!("it cannot be renewed: {why}")),
        (_, Some(why)) => Some(format!("its files are wrong, and the ones before stay in use: {why}")),
        (model::Certificate::Acme, None) => progress.stopped().map(|why| format!("not looked after: {why}")),
        _ => None,
    }
}

fn certificate(source: &str, in_use: InUse, record: Option<Record>) -> Certificate {
    let (not_before, not_after) = in_use.validity.map(|(from, to)| (text(from), text(to))).unzip();
    let by_itself =
        in_use.renew_at.map(|at| Next { at: text(at), why: "a third of its life is left".to_owned() });
    let known = in_use.validity.is_some();
    let plain = Certificate {
        names: in_use.names.iter().map(ToString::to_string).collect(),
        source: source.to_owned(),
        issuer: known.then_some(in_use.issuer),
        serial: known.then_some(in_use.serial),
        not_before,
        not_after,
        next: by_itself,
        ..Certificate::default()
    };
    match record {
        Some(record) => with_record(plain, record),
        None => plain,
    }
}

fn with_record(plain: Certificate, record: Record) -> Certificate {
    let (at, why) = next(&record);
    let failure = failure(&record);
    let Record { bundle, order, ari, history, .. } = record;
    let event = |event: store::Event| Event {
        at: text(event.at),
        kind: word(event.kind).to_owned(),
        detail: event.detail,
    };
    Certificate {
        next: Some(Next { at: text(at), why }),
        failure,
        lacks: bundle.iter().flat_map(|bundle| &bundle.lacks).map(ToString::to_string).collect(),
        imported: bundle.as_ref().is_some_and(|bundle| bundle.imported),
        profile: bundle.as_ref().and_then(|bundle| bundle.profile.clone()),
        directory: bundle.map(|bundle| bundle.directory).filter(|directory| !directory.is_empty()),
        order: order.map(|order| order.url),
        explanation: ari.and_then(|ari| ari.explanation),
        history: history.into_iter().map(event).collect(),
        ..plain
    }
}

/// What failed since the last success, and which names the certificate in use is without.
fn failure(record: &Record) -> Option<Failure> {
    let Record { retry, refused, .. } = record;
    if let Some(error) = retry.last_error.clone().filter(|_| retry.failures > 0) {
        return Some(Failure { tries: retry.failures, error, names: retry.per_name.clone() });
    }
    let lacks = record.bundle.as_ref().is_some_and(|bundle| !bundle.lacks.is_empty());
    let refused = refused.as_ref().filter(|_| lacks)?;
    let names: Vec<_> = refused.names.iter().map(|(name, why)| (name.to_string(), why.clone())).collect();
    let error = names.iter().map(|(name, why)| format!("{name}: {why}")).collect::<Vec<_>>().join("; ");
    Some(Failure { tries: refused.tries, error, names })
}

/// When the next order is due, and why. A try that a person asked for and that failed puts nothing forward.
fn next(record: &Record) -> (OffsetDateTime, String) {
    let (now, retry) = (OffsetDateTime::now_utc(), &record.retry);
    match (acme::due(record, now), acme::waits(record, now).filter(|_| retry.failures > 0)) {
        (Decision::Keep { until, why }, _) => (until, why.text().to_owned()),
        (Decision::Renew(_), Some(at)) => (at, format!("the try after {} that failed", retry.failures)),
        (Decision::Renew(why), None) => (now, why.text().to_owned()),
    }
}

fn word(kind: EventKind) -> &'static str {
    match kind {
        EventKind::Ordered => "ordered",
        EventKind::Resumed => "resumed",
        EventKind::Obtained => "obtained",
        EventKind::Imported => "imported",
        EventKind::Failed => "failed",
        EventKind::Revoked => "revoked",
        EventKind::Other => "other",
    }
}

fn text(at: OffsetDateTime) -> String {
    at.truncate_to_second().format(&Rfc3339).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use time::Duration;

    use super::*;
    use crate::acme::store::{Bundle, Secret};

    fn record(left: Duration, failures: u32) -> Record {
        let now = OffsetDateTime::now_utc();
        let mut record = Record::new(vec![HostPattern::parse("a.example").unwrap()]);
        record.bundle = Some(Bundle {
            key_pem: Secret::new(""),
            chain_pem: String::new(),
            directory: String::new(),
            profile: None,
            issued: now + left - Duration::days(90),
            not_before: now + left - Duration::days(90),
            not_after: now + left,
            ari_id: None,
            imported: false,
            lacks: Vec::new(),
        });
        record.retry.failures = failures;
        record.retry.not_before = Some(now + Duration::minutes(10));
        record
    }

    #[test]
    fn the_next_try_is_told_where_one_is_due() {
        for (left, failures, days, why) in [
            (89, 0, 58, "its age"),
            (89, 2, 58, "its age"),
            (10, 0, 0, "its age"),
            (10, 2, 0, "the try after 2 that failed"),
            (-1, 0, 0, "it has expired"),
        ] {
            let (at, told) = next(&record(Duration::days(left), failures));
            assert_eq!(
                ((at - OffsetDateTime::now_utc()).whole_days(), told.as_str()),
                (days, why),
                "{left} {failures}"
            );
        }
    }
}

//! One attempt at a certificate: the CAs in turn, the methods in turn, and what is written down of how it ended.

use std::cell::RefCell;

use time::{Duration, OffsetDateTime};

use super::account::{Ca, on_disk};
use super::failure::Failure;
use super::notice::{Notice, What};
use super::order::{Job, Keep};
use super::progress::Under;
use super::renewal::{self, Why};
use super::solve::Method;
use super::store::{CaPause, EventKind, Record, Store};
use super::tend::{Kept, Memory, Tending, shown};
use super::{partial, preflight, watchful};
use crate::name::HostPattern;
use crate::tls::TlsProblem;

/// What came of an order, in words.
pub(super) type End = Result<String, String>;

impl Tending {
    /// Orders at the CAs in turn. The caller holds the lock until the end is written down.
    pub(super) async fn renew(
        &self,
        mut record: Record,
        why: Why,
        usable: bool,
        memory: &RefCell<Memory>,
        under: &Under,
    ) -> Result<(OffsetDateTime, End), Failure> {
        // Without room on the disk there is no use in an order.
        on_disk(&self.common.store, Store::probe).await?;
        if !usable {
            record.bundle = None;
        }
        let names = &*partial::to_order(&record, why, OffsetDateTime::now_utc());
        let mut last = None;
        for index in self.order_of_cas(&record) {
            let Some(ca) = self.common.cas.get(index) else { continue };
            let now = OffsetDateTime::now_utc();
            if record.order.is_none()
                && let Err(until) = self.common.pace.borrow_mut().room(&ca.directory, now)
            {
                if last.is_none() {
                    last = Some(Err(until));
                }
                continue;
            }
            self.inspect(&record, names, memory);
            let ca_url = &ca.directory;
            tracing::info!(certificate = %self.id, names = shown(names), why = why.text(), ca = ca_url, "a certificate is ordered");
            match self.order_at(index, names, &mut record, memory, under).await {
                Err(Failure::Crowded(until)) if last.is_none() => last = Some(Err(until)),
                Err(Failure::Crowded(_)) => {}
                Ok(()) => return Ok((self.install(&record, names, memory), Ok(obtained(&record, names)))),
                Err(failure) => {
                    self.pause(ca, &failure, &mut record);
                    let next_may_do_better = failure.is_theirs();
                    last = Some(Ok(failure));
                    if !next_may_do_better {
                        break;
                    }
                }
            }
        }
        match last {
            Some(Ok(failure)) => {
                let at = match self.note_refusal(&mut record, why, names, &failure) {
                    Some(at) => self.put_off(record, &failure, at, memory).await,
                    None => self.failed(record, &failure, memory).await,
                };
                Ok((at, Err(failure.to_string())))
            }
            Some(Err(until)) => {
                under.hold(until);
                let told = format!("the CA's limits leave no room before {}", watchful::text(until));
                Ok((until, Err(told)))
            }
            None => Err(none_left()),
        }
    }

    /// Looks at the names before the first order, and after failures.
    fn inspect(&self, record: &Record, names: &[HostPattern], memory: &RefCell<Memory>) {
        if !std::mem::replace(&mut memory.borrow_mut().inspected, true) || record.retry.failures > 0 {
            preflight::spawn(self, names);
        }
    }

    /// The first CA alone at first; once it failed, the others behind it. A CA with a pending order comes first.
    fn order_of_cas(&self, record: &Record) -> Vec<usize> {
        let all = &self.common.cas;
        let pending = record.order.as_ref().map(|order| order.directory.as_str());
        let begun = all.iter().position(|ca| Some(ca.directory.as_str()) == pending);
        let most = if record.retry.failures == 0 { 1 } else { all.len() };
        let mut order: Vec<usize> = begun.into_iter().chain(0..most).collect();
        let mut seen = std::collections::HashSet::new();
        order.retain(|index| seen.insert(*index));
        order
    }

    /// One CA, by the methods in turn. At the first try a name that one method fails is tried by the next at once; later
    /// they take turns, so that no name fails more than five times an hour.
    async fn order_at(
        &self,
        index: usize,
        names: &[HostPattern],
        record: &mut Record,
        memory: &RefCell<Memory>,
        under: &Under,
    ) -> Result<(), Failure> {
        let Some(ca) = self.common.cas.get(index) else { return Err(none_left()) };
        let methods = self.methods_for(record, names);
        if methods.is_empty() {
            return Err(Failure::Unfit(
                "no row of the site can answer a challenge: http-01 needs an http row, tls-alpn-01 an https row, dns-01 `dns` in [acme]".to_owned(),
            ));
        }
        let replaces = record.bundle.as_ref().filter(|bundle| bundle.directory == ca.directory);
        let replaces = replaces.and_then(|bundle| bundle.ari_id.clone());
        let mut end = Err(none_left());
        for method in methods {
            if (record.retry.failures > 0 || record.refused.is_some())
                && !record.retry.staging_ok
                && record.order.is_none()
                && let Some(staging) = self.common.staging.get(index).and_then(Option::as_ref)
            {
                self.rehearse(staging, names, method, record, memory, under).await?;
                record.retry.staging_ok = true;
            }
            let pace = Some(&*self.common.pace);
            let job = Job { pace, replaces: replaces.as_deref(), ..self.job(ca, names, method, under) };
            let mut kept = Kept { tending: self, memory };
            let done = match job.run(record, &mut kept).await {
                Err(Failure::Crowded(_)) if matches!(end, Err(Failure::Names(_))) => break,
                Ok(alternates) if !alternates.is_empty() => {
                    // What is wrong with it is told once it is installed for good.
                    let _ = self.put_to_use(record);
                    job.prefer(alternates, record, &mut kept).await;
                    Ok(())
                }
                other => other.map(drop),
            };
            let is_names = matches!(done, Err(Failure::Names(_)));
            if let Err(failure @ Failure::Names(_)) = &done {
                tracing::warn!(certificate = %self.id, by = method.name(), names = %failure, "names were not proved");
            }
            end = better(end, done);
            if !is_names {
                break;
            }
        }
        end
    }

    /// The CA's staging directory first: a failure there costs nothing.
    async fn rehearse(
        &self,
        staging: &Ca,
        names: &[HostPattern],
        method: Method,
        record: &mut Record,
        memory: &RefCell<Memory>,
        under: &Under,
    ) -> Result<(), Failure> {
        let mut trial = Record::new(record.names.clone());
        let mut kept = Rehearsal { record, kept: Kept { tending: self, memory } };
        let end = self.job(staging, names, method, under).run(&mut trial, &mut kept).await;
        record.published = trial.published;
        match end {
            Ok(_) => {
                tracing::info!(certificate = %self.id, staging = staging.directory, "the rehearsal went well");
            }
            Err(Failure::Names(names)) => {
                let at = |(name, why)| (name, format!("{why}, at {}", staging.host()));
                return Err(Failure::Names(names.into_iter().map(at).collect()));
            }
            Err(failure @ Failure::Dns { .. }) => return Err(failure),
            // Its trouble is its own: a certificate must not wait for it.
            Err(failure) => {
                tracing::warn!(certificate = %self.id, %failure, "no rehearsal is possible; the CA itself is asked");
            }
        }
        Ok(())
    }

    fn job<'a>(&'a self, ca: &'a Ca, names: &'a [HostPattern], method: Method, under: &'a Under) -> Job<'a> {
        let (answers, dns) = (&self.common.answers, self.common.dns.as_ref());
        Job { ca, names, answers, dns, method, replaces: None, pace: None, under }
    }

    fn methods_for(&self, record: &Record, names: &[HostPattern]) -> Vec<Method> {
        let all = &self.methods;
        let refused = record.refused.as_ref().map_or(0, |refused| refused.tries);
        let tries = match record.retry.failures {
            0 => refused,
            failures => failures,
        };
        // Without the refused ones, it is the first try of the rest.
        let is_rest = names.len() < record.names.len() && record.retry.failures <= 1;
        if tries > 0 && !is_rest {
            let turn = usize::try_from(tries).unwrap_or(0) % all.len().max(1);
            return all.get(turn).copied().into_iter().collect();
        }
        // What worked before comes first.
        let obtained = record.history.iter().rev().find(|event| event.kind == EventKind::Obtained);
        let worked = |method: &&Method| obtained.is_some_and(|event| event.detail.contains(method.name()));
        let first = all.iter().find(worked).copied();
        first.into_iter().chain(all.iter().copied().filter(|method| Some(*method) != first)).collect()
    }

    fn put_to_use(&self, record: &Record) -> Result<(), TlsProblem> {
        let Some(bundle) = &record.bundle else { return Ok(()) };
        let part_of = Some(&*self.names).filter(|_| !bundle.lacks.is_empty());
        self.tls.install(&bundle.chain_pem, bundle.key_pem.expose(), part_of)
    }

    fn install(&self, record: &Record, names: &[HostPattern], memory: &RefCell<Memory>) -> OffsetDateTime {
        let now = OffsetDateTime::now_utc();
        memory.borrow_mut().forget();
        let Some(bundle) = &record.bundle else { return now };
        match self.put_to_use(record) {
            Ok(()) => {
                let not_after = watchful::text(bundle.not_after);
                tracing::info!(certificate = %self.id, names = shown(names), not_after = &not_after, ca = bundle.directory, "a certificate was obtained and is in use");
                let text = format!("a new certificate is in use, valid until {not_after}");
                let notice = Notice::new(What::Obtained, names, &text);
                let ca = Some(bundle.directory.clone());
                self.common.notifier.tell(&Notice { not_after: Some(not_after), ca, ..notice });
                self.tell_lack(record);
            }
            Err(problem) => {
                tracing::error!(certificate = %self.id, %problem, "a certificate was obtained, and cannot be used");
            }
        }
        now
    }

    /// Which names are still without a certificate, and why.
    fn tell_lack(&self, record: &Record) {
        if let Some(refused) = &record.refused {
            let (names, next_try) = (reasons(&refused.names), watchful::text(refused.not_before));
            tracing::warn!(certificate = %self.id, names, next_try, "a certificate is without names that were refused");
        }
    }

    /// Notes the names that failed while others did not. Some: the certificate in use is as good as it gets for now, and the
    /// names that it lacks are tried again then.
    fn note_refusal(
        &self,
        record: &mut Record,
        why: Why,
        ordered: &[HostPattern],
        failure: &Failure,
    ) -> Option<OffsetDateTime> {
        let (seed, now) = (self.id.as_str().as_bytes(), OffsetDateTime::now_utc());
        match failure {
            Failure::Names(failed) => partial::refuse(record, ordered, failed, seed, now),
            _ if why == Why::Lacking => partial::put_off(record, failure.retry_after(), seed, now),
            _ => {}
        }
        let lacks = record.bundle.as_ref().is_some_and(|bundle| !bundle.lacks.is_empty());
        let joined = lacks && matches!(why, Why::Lacking | Why::Asked);
        record.refused.as_ref().filter(|_| joined).map(|refused| refused.not_before)
    }

    /// Notes that names which the certificate lacks have failed again.
    async fn put_off(
        &self,
        mut record: Record,
        failure: &Failure,
        at: OffsetDateTime,
        memory: &RefCell<Memory>,
    ) -> OffsetDateTime {
        record.note(OffsetDateTime::now_utc(), EventKind::Failed, failure.to_string());
        // The disk's refusal is told, and the record kept in memory.
        let _ = Kept { tending: self, memory }.keep(&record).await;
        let (names, next_try) = (shown(&self.names), watchful::text(at));
        let failures = record.refused.as_ref().map_or(0, |refused| refused.tries);
        tracing::warn!(certificate = %self.id, names, %failure, failures, next_try = &next_try, "names that were refused stay without a certificate");
        let text = "names that were refused stay without a certificate";
        self.tell_failure(&record, text, failure.to_string(), failures, next_try);
        at
    }

    /// Notes a failure, and when to try again.
    async fn failed(
        &self,
        mut record: Record,
        failure: &Failure,
        memory: &RefCell<Memory>,
    ) -> OffsetDateTime {
        let now = OffsetDateTime::now_utc();
        let retry = &mut record.retry;
        retry.failures = retry.failures.saturating_add(1);
        if matches!(failure, Failure::Account { .. }) {
            // No minute will change that: once a day.
            retry.failures = retry.failures.max(4);
        }
        retry.staging_ok = false;
        // A CA that asks to be left alone is; another one need not be.
        let asked = failure.retry_after().filter(|_| !self.is_a_ca_free(now));
        let at = renewal::retry_at(retry.failures, asked, self.id.as_str().as_bytes(), now);
        retry.not_before = Some(at);
        retry.last_error = Some(failure.to_string());
        retry.per_name = match failure {
            Failure::Names(names) => names.clone(),
            _ => Vec::new(),
        };
        let (failures, error) = (retry.failures, failure.to_string());
        record.note(now, EventKind::Failed, failure.to_string());
        // The disk's refusal is told, and the record kept in memory.
        let _ = Kept { tending: self, memory }.keep(&record).await;
        let (names, next_try) = (shown(&self.names), watchful::text(at));
        tracing::warn!(certificate = %self.id, names, %failure, failures, next_try = &next_try, "no certificate was obtained");
        self.tell_failure(&record, "no certificate was obtained", error, failures, next_try);
        at
    }

    /// Whether one of the CAs would take an order now.
    fn is_a_ca_free(&self, now: OffsetDateTime) -> bool {
        let mut pace = self.common.pace.borrow_mut();
        self.common.cas.iter().any(|ca| pace.room(&ca.directory, now).is_ok())
    }

    fn tell_failure(&self, record: &Record, what: &str, error: String, failures: u32, next_try: String) {
        let text = format!("{what}: {error}");
        let notice = Notice::new(What::Failed, &self.names, &text);
        let not_after = record.bundle.as_ref().map(|bundle| watchful::text(bundle.not_after));
        let (error, next_try) = (Some(error), Some(next_try));
        self.common.notifier.tell(&Notice { not_after, error, failures, next_try, ..notice });
    }

    /// A CA that asks to be left alone is left alone for every name, by the next process too.
    fn pause(&self, ca: &Ca, failure: &Failure, record: &mut Record) {
        if let Some(wait) = failure.retry_after().and_then(|wait| Duration::try_from(wait).ok()) {
            let (directory, until) = (ca.directory.clone(), OffsetDateTime::now_utc() + wait);
            self.common.pace.borrow_mut().pause(&directory, until);
            record.retry.ca_pause = Some(CaPause { directory, until });
        }
    }
}

/// A rehearsal leaves nothing behind: what it writes into the DNS is remembered in the certificate's own record.
struct Rehearsal<'a> {
    record: &'a mut Record,
    kept: Kept<'a>,
}

impl Keep for Rehearsal<'_> {
    async fn keep(&mut self, trial: &Record) -> Result<(), Failure> {
        if self.record.published == trial.published {
            return Ok(());
        }
        self.record.published.clone_from(&trial.published);
        self.kept.keep(self.record).await
    }
}

/// Of two methods' ends, the one with fewer names that failed; else the later.
fn better(before: Result<(), Failure>, after: Result<(), Failure>) -> Result<(), Failure> {
    match (&before, &after) {
        (Err(Failure::Names(old)), Err(Failure::Names(new))) if old.len() < new.len() => before,
        _ => after,
    }
}

fn obtained(record: &Record, names: &[HostPattern]) -> String {
    let until = record.bundle.as_ref().map(|bundle| watchful::text(bundle.not_after)).unwrap_or_default();
    format!("{} has a new certificate, valid until {until}", shown(names))
}

fn reasons(names: &[(HostPattern, String)]) -> String {
    names.iter().map(|(name, why)| format!("{name}: {why}")).collect::<Vec<_>>().join("; ")
}

fn none_left() -> Failure {
    Failure::Unfit("no CA is left to ask".to_owned())
}

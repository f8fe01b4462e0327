//! One certificate's care: load, decide, lock, load again and decide again, order, install.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use instant_acme::RevocationRequest;
use time::{Duration, OffsetDateTime};
use tokio::sync::oneshot;

use super::account::{Ca, on_disk};
use super::failure::{Failure, patiently};
use super::manager::{Common, TICK};
use super::order::{Job, Keep, Leaf, certificate_identifier};
use super::renewal::{self, Decision, Subject, Why, Window};
use super::solve::Method;
use super::store::{Ari, Bundle, CaPause, EventKind, Lock, Record, RecordId, Store};
use super::{preflight, watchful};
use crate::name::HostPattern;
use crate::tls::SiteTls;

/// How long another edge that orders is left alone.
const OTHERS: Duration = Duration::seconds(10);
/// How long a CA without renewal information, or in trouble, is left alone about it.
const UNCLEAR: Duration = renewal::AFTER_ERROR;

/// A certificate that the configuration asks for, and all that is needed for it.
pub(super) struct Tending {
    pub(super) id: RecordId,
    pub(super) names: Vec<HostPattern>,
    pub(super) tls: Arc<SiteTls>,
    /// In the order in which they are tried; may be empty.
    pub(super) methods: Vec<Method>,
    pub(super) common: Rc<Common>,
}

/// What came of an order, in words.
type End = Result<String, String>;

/// What is remembered from look to look.
#[derive(Default)]
pub(super) struct Memory {
    /// When the next look is due.
    pub(super) next: Option<OffsetDateTime>,
    /// When the CA may be asked again about renewal, where the record cannot say it.
    ask_again: Option<OffsetDateTime>,
    /// The alarm that was raised last, and for which certificate.
    alarm: Option<(OffsetDateTime, i32)>,
    /// A record that the disk did not take.
    unsaved: Option<Record>,
    /// Whether the names were looked at before an order.
    inspected: bool,
    /// What a person has asked for.
    asked: Vec<Asked>,
}

/// What a person may ask for, and where the answer goes.
pub(super) enum Asked {
    Renew(Answer),
    Revoke(Answer),
}

type Answer = oneshot::Sender<Result<String, String>>;

impl Asked {
    pub(super) fn answer(self, answer: Result<String, String>) {
        let (Self::Renew(reply) | Self::Revoke(reply)) = self;
        // Whoever asked may have left.
        let _ = reply.send(answer);
    }
}

impl Tending {
    /// Looks at the certificate, sees to it where that is due, and notes when to look again.
    pub(super) async fn look(&self, memory: &RefCell<Memory>) {
        let asked = std::mem::take(&mut memory.borrow_mut().asked);
        let (renew, revoke): (Vec<_>, Vec<_>) =
            asked.into_iter().partition(|own| matches!(own, Asked::Renew(_)));
        let revoked = if revoke.is_empty() { Ok(String::new()) } else { self.revoke(memory).await };
        for own in revoke {
            own.answer(revoked.clone());
        }
        let next = match self.tend(memory, !renew.is_empty()).await {
            Ok((next, end)) => {
                for own in renew {
                    own.answer(end.clone());
                }
                next
            }
            Err(failure) => {
                tracing::error!(certificate = %self.id, %failure, "a certificate cannot be seen to");
                for own in renew {
                    own.answer(Err(failure.to_string()));
                }
                OffsetDateTime::now_utc() + TICK
            }
        };
        let mut memory = memory.borrow_mut();
        // Never far ahead: the clock may jump, and another edge may be faster.
        let next = next.min(OffsetDateTime::now_utc() + TICK);
        memory.next = Some(next).filter(|_| memory.asked.is_empty());
    }

    /// Has the CA revoke the certificate; the next look orders another.
    async fn revoke(&self, memory: &RefCell<Memory>) -> Result<String, String> {
        let text = |failure: Failure| failure.to_string();
        let Some(_lock) = self.lock().await.map_err(text)? else {
            return Err("it is being renewed just now; ask again in a minute".to_owned());
        };
        let mut record = self.load().await.map_err(text)?;
        let Some(bundle) = &record.bundle else { return Err("there is no certificate to revoke".to_owned()) };
        let Some(ca) = self.common.cas.iter().find(|ca| ca.directory == bundle.directory) else {
            return Err("the configuration does not have the CA that issued it".to_owned());
        };
        let leaf = Leaf::read(&bundle.chain_pem).ok_or("the stored certificate does not parse")?;
        let account = ca.account().await.map_err(text)?;
        patiently("revoking the certificate", true, async || {
            account.revoke(&RevocationRequest { certificate: &leaf.der, reason: None }).await
        })
        .await
        .map_err(text)?;
        tracing::warn!(certificate = %self.id, "the certificate was revoked, as asked; another is ordered");
        record.note(OffsetDateTime::now_utc(), EventKind::Revoked, "by command");
        Kept { tending: self, memory }.keep(&record).await.map_err(text)?;
        Ok(format!("{} was revoked; another is ordered", shown(&self.names)))
    }

    /// Returns when to look again, and what came of an order.
    async fn tend(&self, memory: &RefCell<Memory>, asked: bool) -> Result<(OffsetDateTime, End), Failure> {
        self.save_again(memory).await?;
        let quiet = |next| Ok((next, Err("nothing was done; the log says why".to_owned())));
        let record = self.load().await?;
        let usable = self.restore(&record);
        watchful::alarm(self, &record, memory);
        let now = OffsetDateTime::now_utc();
        if usable && self.is_poll_due(&record, memory, now) {
            self.ask_when(memory).await?;
            if !asked {
                return quiet(now);
            }
        }
        match decide(&record, usable, now) {
            Decision::Keep { until, .. } if !asked => return quiet(until),
            _ => {}
        }
        if let Some(wait) = record.retry.not_before.filter(|at| now < *at && !asked) {
            return quiet(wait);
        }
        let Ok(_room) = self.common.room.acquire().await else { return quiet(now + TICK) };
        let Some(_lock) = self.lock().await? else { return quiet(now + OTHERS) };
        let record = self.load().await?;
        let usable = self.restore(&record);
        match decide(&record, usable, OffsetDateTime::now_utc()) {
            Decision::Renew(why) => self.renew(record, why, usable, memory).await,
            Decision::Keep { .. } if asked => self.renew(record, Why::Asked, usable, memory).await,
            Decision::Keep { .. } => quiet(now),
        }
    }

    /// Orders at the CAs in turn. The caller holds the lock until the end is written down.
    async fn renew(
        &self,
        mut record: Record,
        why: Why,
        usable: bool,
        memory: &RefCell<Memory>,
    ) -> Result<(OffsetDateTime, End), Failure> {
        // Without room on the disk there is no use in an order.
        on_disk(&self.common.store, Store::probe).await?;
        if !usable {
            record.bundle = None;
        }
        let mut last = None;
        for index in self.order_of_cas(&record) {
            let Some(ca) = self.common.cas.get(index) else { continue };
            let now = OffsetDateTime::now_utc();
            if record.order.is_none()
                && let Err(until) = self.common.pace.borrow_mut().take(&ca.directory, now)
            {
                if last.is_none() {
                    last = Some(Err(until));
                }
                continue;
            }
            self.inspect(&record, memory);
            let (names, ca_url) = (shown(&self.names), &ca.directory);
            tracing::info!(certificate = %self.id, names, why = why.text(), ca = ca_url, "a certificate is ordered");
            match self.order_at(index, &mut record, memory).await {
                Ok(()) => return Ok((self.install(&record, memory), Ok(self.obtained(&record)))),
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
            Some(Ok(failure)) => Ok((self.failed(record, &failure, memory).await, Err(failure.to_string()))),
            Some(Err(until)) => {
                let told = format!("the CA's limits leave no room before {}", watchful::text(until));
                Ok((until, Err(told)))
            }
            None => Err(none_left()),
        }
    }

    /// Looks at the names before the first order, and after failures.
    fn inspect(&self, record: &Record, memory: &RefCell<Memory>) {
        if !std::mem::replace(&mut memory.borrow_mut().inspected, true) || record.retry.failures > 0 {
            preflight::spawn(self, &record.names);
        }
    }

    fn obtained(&self, record: &Record) -> String {
        let until = record.bundle.as_ref().map(|bundle| watchful::text(bundle.not_after)).unwrap_or_default();
        format!("{} has a new certificate, valid until {until}", shown(&self.names))
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
        record: &mut Record,
        memory: &RefCell<Memory>,
    ) -> Result<(), Failure> {
        let Some(ca) = self.common.cas.get(index) else { return Err(none_left()) };
        let methods = self.methods_for(record);
        if methods.is_empty() {
            return Err(Failure::Unfit(
                "no row of the site can answer a challenge: http-01 needs an http row, tls-alpn-01 an https row".to_owned(),
            ));
        }
        let replaces = record.bundle.as_ref().filter(|bundle| bundle.directory == ca.directory);
        let replaces = replaces.and_then(|bundle| bundle.ari_id.clone());
        let mut end = Err(none_left());
        for method in methods {
            if record.retry.failures > 0
                && !record.retry.staging_ok
                && record.order.is_none()
                && let Some(staging) = self.common.staging.get(index).and_then(Option::as_ref)
            {
                self.rehearse(staging, method, record).await?;
                record.retry.staging_ok = true;
            }
            let job = Job { ca, answers: &self.common.answers, method, replaces: replaces.as_deref() };
            end = job.run(record, &mut Kept { tending: self, memory }).await;
            match &end {
                Err(Failure::Names(names)) => {
                    let names = names
                        .iter()
                        .map(|(name, why)| format!("{name}: {why}"))
                        .collect::<Vec<_>>()
                        .join("; ");
                    tracing::warn!(certificate = %self.id, by = method.name(), names, "names were not proved");
                }
                _ => break,
            }
        }
        end
    }

    /// The CA's staging directory first: a failure there costs nothing.
    async fn rehearse(&self, staging: &Ca, method: Method, record: &Record) -> Result<(), Failure> {
        let mut trial = Record::new(record.names.clone());
        let job = Job { ca: staging, answers: &self.common.answers, method, replaces: None };
        job.run(&mut trial, &mut Nothing).await
    }

    fn methods_for(&self, record: &Record) -> Vec<Method> {
        let all = &self.methods;
        if record.retry.failures > 0 {
            let turn = usize::try_from(record.retry.failures).unwrap_or(0) % all.len().max(1);
            return all.get(turn).copied().into_iter().collect();
        }
        // What worked before comes first.
        let obtained = record.history.iter().rev().find(|event| event.kind == EventKind::Obtained);
        let worked = |method: &&Method| obtained.is_some_and(|event| event.detail.contains(method.name()));
        let first = all.iter().find(worked).copied();
        first.into_iter().chain(all.iter().copied().filter(|method| Some(*method) != first)).collect()
    }

    fn install(&self, record: &Record, memory: &RefCell<Memory>) -> OffsetDateTime {
        let now = OffsetDateTime::now_utc();
        let Memory { unsaved, asked, .. } = memory.take();
        *memory.borrow_mut() = Memory { unsaved, asked, ..Memory::default() };
        let Some(bundle) = &record.bundle else { return now };
        match self.tls.install(&bundle.chain_pem, bundle.key_pem.expose()) {
            Ok(()) => {
                let (names, not_after) = (shown(&self.names), watchful::text(bundle.not_after));
                tracing::info!(certificate = %self.id, names, not_after, ca = bundle.directory, "a certificate was obtained and is in use");
            }
            Err(problem) => {
                tracing::error!(certificate = %self.id, %problem, "a certificate was obtained, and cannot be used");
            }
        }
        now
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
        let at = renewal::retry_at(retry.failures, failure.retry_after(), self.id.as_str().as_bytes(), now);
        retry.not_before = Some(at);
        retry.last_error = Some(failure.to_string());
        retry.per_name = match failure {
            Failure::Names(names) => names.clone(),
            _ => Vec::new(),
        };
        let failures = retry.failures;
        record.note(now, EventKind::Failed, failure.to_string());
        // The disk's refusal is told, and the record kept in memory.
        let _ = Kept { tending: self, memory }.keep(&record).await;
        let (names, next_try) = (shown(&self.names), watchful::text(at));
        tracing::warn!(certificate = %self.id, names, %failure, failures, next_try, "no certificate was obtained");
        at
    }

    /// A CA that asks to be left alone is left alone for every name, by the next process too.
    fn pause(&self, ca: &Ca, failure: &Failure, record: &mut Record) {
        if let Some(wait) = failure.retry_after().and_then(|wait| Duration::try_from(wait).ok()) {
            let (directory, until) = (ca.directory.clone(), OffsetDateTime::now_utc() + wait);
            self.common.pace.borrow_mut().pause(&directory, until);
            record.retry.ca_pause = Some(CaPause { directory, until });
        }
    }

    fn is_poll_due(&self, record: &Record, memory: &RefCell<Memory>, now: OffsetDateTime) -> bool {
        let Some(bundle) = &record.bundle else { return false };
        let known = self.common.cas.iter().any(|ca| ca.directory == bundle.directory);
        let held_back = memory.borrow().ask_again.is_some_and(|at| now < at);
        let due = record.ari.as_ref().is_none_or(|ari| ari.next_check <= now || ari.checked > now);
        known && bundle.ari_id.is_some() && due && !held_back && now < bundle.not_after
    }

    /// Asks the CA when it wants the certificate renewed (RFC 9773).
    async fn ask_when(&self, memory: &RefCell<Memory>) -> Result<(), Failure> {
        let Some(_lock) = self.lock().await? else {
            hold_back(memory, OTHERS);
            return Ok(());
        };
        let mut record = self.load().await?;
        let Some(bundle) = &record.bundle else { return Ok(()) };
        let Some(ca) = self.common.cas.iter().find(|ca| ca.directory == bundle.directory) else {
            return Ok(());
        };
        match ask(ca, bundle.ari_id.as_deref().unwrap_or_default()).await {
            Ok((ari, window)) if renewal::is_usable(window, bundle.not_before, bundle.not_after) => {
                let chosen = renewal::moment(&leaf_of(bundle), window);
                let ari = Ari { chosen, ..ari };
                self.tell_window(record.ari.replace(ari.clone()).as_ref(), &ari);
                Kept { tending: self, memory }.keep(&record).await?;
            }
            Ok((_, window)) => {
                let (from, to) = (watchful::text(window.start), watchful::text(window.end));
                tracing::warn!(
                    certificate = %self.id, from, to,
                    "the CA suggests a window that cannot be; the certificate's age decides"
                );
                hold_back(memory, UNCLEAR);
            }
            Err(failure) => {
                tracing::warn!(
                    certificate = %self.id, %failure,
                    "the CA did not say when to renew; the certificate's age decides"
                );
                let asked = failure.retry_after().and_then(|wait| Duration::try_from(wait).ok());
                hold_back(memory, asked.unwrap_or_default().max(UNCLEAR));
            }
        }
        Ok(())
    }

    fn tell_window(&self, old: Option<&Ari>, new: &Ari) {
        if old.is_some_and(|old| (old.window_start, old.window_end) == (new.window_start, new.window_end)) {
            return;
        }
        let (from, to) = (watchful::text(new.window_start), watchful::text(new.window_end));
        let explanation = new.explanation.as_deref();
        tracing::info!(certificate = %self.id, from, to, explanation, "the CA suggests when to renew");
    }

    /// Serves what is stored, where that is newer than what is served. False where it cannot be served.
    fn restore(&self, record: &Record) -> bool {
        let Some(bundle) = &record.bundle else { return false };
        match self.tls.restore(&bundle.chain_pem, bundle.key_pem.expose()) {
            Ok(_) => true,
            Err(problem) => {
                tracing::error!(certificate = %self.id, %problem, "a stored certificate cannot be used; another is ordered");
                false
            }
        }
    }

    async fn load(&self) -> Result<Record, Failure> {
        let id = self.id.clone();
        let stored = on_disk(&self.common.store, move |store| store.load(&id)).await?;
        Ok(stored.unwrap_or_else(|| Record::new(self.names.clone())))
    }

    async fn lock(&self) -> Result<Option<Lock>, Failure> {
        let id = self.id.clone();
        on_disk(&self.common.store, move |store| store.lock(&id)).await
    }

    /// Writes what the disk did not take before.
    async fn save_again(&self, memory: &RefCell<Memory>) -> Result<(), Failure> {
        let Some(record) = memory.borrow().unsaved.clone() else { return Ok(()) };
        let id = self.id.clone();
        on_disk(&self.common.store, move |store| store.save(&id, &record)).await?;
        memory.borrow_mut().unsaved = None;
        tracing::info!(certificate = %self.id, "the disk took what it had refused");
        Ok(())
    }
}

/// The names as a person writes them.
pub(super) fn shown(names: &[HostPattern]) -> String {
    names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

pub(super) fn decide(record: &Record, usable: bool, now: OffsetDateTime) -> Decision {
    let Some(bundle) = record.bundle.as_ref().filter(|_| usable) else { return renewal::decide(None, now) };
    let leaf = leaf_of(bundle);
    let revoked =
        record.history.iter().any(|event| event.kind == EventKind::Revoked && event.at >= bundle.issued);
    let window = record.ari.as_ref().map(|ari| Window { start: ari.window_start, end: ari.window_end });
    let subject = Subject {
        leaf: &leaf,
        not_before: bundle.not_before,
        not_after: bundle.not_after,
        names_fit: true,
        revoked,
        window,
    };
    renewal::decide(Some(&subject), now)
}

fn leaf_of(bundle: &Bundle) -> Vec<u8> {
    Leaf::read(&bundle.chain_pem).map(|leaf| leaf.der.to_vec()).unwrap_or_default()
}

fn hold_back(memory: &RefCell<Memory>, wait: Duration) {
    memory.borrow_mut().ask_again = Some(OffsetDateTime::now_utc() + wait);
}

async fn ask(ca: &Ca, id: &str) -> Result<(Ari, Window), Failure> {
    let account = ca.account().await?;
    let id =
        certificate_identifier(id).ok_or_else(|| Failure::Unfit("an identifier that is none".to_owned()))?;
    let asked = patiently("asking when to renew", true, async || account.renewal_info(&id).await).await;
    let (info, again) = asked?;
    let window = Window { start: info.suggested_window.start, end: info.suggested_window.end };
    let now = OffsetDateTime::now_utc();
    let ari = Ari {
        window_start: window.start,
        window_end: window.end,
        chosen: window.start,
        explanation: info.explanation_url,
        checked: now,
        next_check: renewal::next_poll(now, again),
    };
    Ok((ari, window))
}

/// Keeps a record in the store; what the disk refuses is kept in memory, and written later.
struct Kept<'a> {
    tending: &'a Tending,
    memory: &'a RefCell<Memory>,
}

impl Keep for Kept<'_> {
    async fn keep(&mut self, record: &Record) -> Result<(), Failure> {
        let (id, copy) = (self.tending.id.clone(), record.clone());
        match on_disk(&self.tending.common.store, move |store| store.save(&id, &copy)).await {
            Ok(()) => self.memory.borrow_mut().unsaved = None,
            Err(failure) => {
                tracing::error!(certificate = %self.tending.id, %failure, "the store does not take a record; it is kept in memory, and written later");
                self.memory.borrow_mut().unsaved = Some(record.clone());
            }
        }
        Ok(())
    }
}

/// A rehearsal leaves nothing behind.
struct Nothing;

impl Keep for Nothing {
    async fn keep(&mut self, _: &Record) -> Result<(), Failure> {
        Ok(())
    }
}

fn none_left() -> Failure {
    Failure::Unfit("no CA is left to ask".to_owned())
}

impl Memory {
    /// Notes what a person asked for, for the next look, which is due now.
    pub(super) fn ask(&mut self, asked: Asked) {
        self.asked.push(asked);
        self.next = None;
    }

    /// Whether this alarm has not been raised for the certificate that ends then.
    pub(super) fn is_new_alarm(&mut self, not_after: OffsetDateTime, part: i32) -> bool {
        let new = self.alarm != Some((not_after, part));
        self.alarm = Some((not_after, part));
        new
    }
}

//! One certificate's care: load, decide, lock, load again and decide again, order, install.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use instant_acme::RevocationRequest;
use time::{Duration, OffsetDateTime};
use tokio::sync::oneshot;

use super::account::on_disk;
use super::attempt::End;
use super::failure::{Failure, patiently};
use super::manager::{Common, TICK};
use super::order::{Keep, Leaf};
use super::renewal::{self, Decision, Subject, Why, Window};
use super::solve::{Method, dns01};
use super::store::{Alarm, Bundle, EventKind, Lock, Record, RecordId, Store};
use super::{partial, watchful};
use crate::name::HostPattern;
use crate::tls::{SiteTls, TlsProblem};

/// How long another edge that orders is left alone.
pub(super) const OTHERS: Duration = Duration::seconds(10);

/// A certificate that the configuration asks for, and all that is needed for it.
pub(super) struct Tending {
    pub(super) id: RecordId,
    pub(super) names: Vec<HostPattern>,
    pub(super) tls: Arc<SiteTls>,
    /// In the order in which they are tried; may be empty.
    pub(super) methods: Vec<Method>,
    pub(super) common: Rc<Common>,
}

/// What is remembered from look to look.
#[derive(Default)]
pub(super) struct Memory {
    /// When the next look is due.
    pub(super) next: Option<OffsetDateTime>,
    /// When the CA may be asked again about renewal, where the record cannot say it.
    pub(super) ask_again: Option<OffsetDateTime>,
    /// Since when the certificate has had very little of its life left.
    pub(super) low_since: Option<Instant>,
    /// A record that the disk did not take.
    unsaved: Option<Unsaved>,
    /// The last record that was read with a certificate, for when none can be.
    seen: Option<Record>,
    /// The alarm that this process raised last.
    pub(super) alarmed: Option<Alarm>,
    /// Whether the names were looked at before an order.
    pub(super) inspected: bool,
    /// What a person has asked for.
    asked: Vec<Asked>,
}

/// What the disk did not take, and why.
struct Unsaved {
    record: Record,
    why: String,
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
        let done = self.tend(memory, !renew.is_empty()).await;
        self.note_trouble(memory, done.as_ref().err());
        let next = match done {
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
                watchful::alarm_despite(self, memory, &failure).await;
                OffsetDateTime::now_utc() + TICK
            }
        };
        let mut memory = memory.borrow_mut();
        // Never far ahead: the clock may jump, and another edge may be faster.
        let next = next.min(OffsetDateTime::now_utc() + TICK);
        memory.next = Some(next).filter(|_| memory.asked.is_empty());
    }

    /// Says why the certificate cannot be seen to, for as long as it cannot.
    fn note_trouble(&self, memory: &RefCell<Memory>, failure: Option<&Failure>) {
        let failed = failure.map(|failure| format!("it cannot be seen to: {failure}"));
        let unsaved = || memory.borrow().refusal().map(|why| format!("it is not stored yet: {why}"));
        self.common.progress.set_trouble(&self.id, failed.or_else(unsaved));
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
        let revoked = patiently("revoking the certificate", true, async || {
            account.revoke(&RevocationRequest { certificate: &leaf.der, reason: None }).await
        });
        match revoked.await {
            Err(failure) if failure.kind() == "alreadyRevoked" => {}
            other => other.map_err(text)?,
        }
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
        memory.borrow_mut().see(&record);
        if has_leftovers(&record) {
            dns01::tidy(self.common.dns.as_ref(), &self.common.store, &self.id).await?;
        }
        let usable = self.restore(&record);
        // What failed at the last look is the reason, if it fails still: the end of this look knows.
        let is_troubled = self.common.progress.trouble(&self.id).is_some();
        if !is_troubled {
            watchful::alarm(self, &record, memory).await?;
        }
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
        if let Some(wait) = renewal::waits(record.retry.not_before, now).filter(|_| !asked) {
            if is_troubled {
                self.try_store().await?;
            }
            return quiet(wait);
        }
        let under =
            self.common.progress.begin(&self.id, shown(&self.names), "waiting for the orders before it");
        let Ok(_room) = self.common.room.acquire().await else { return quiet(now + TICK) };
        let Some(_lock) = self.lock().await? else { return quiet(now + OTHERS) };
        let record = self.load().await?;
        let usable = self.restore(&record);
        match decide(&record, usable, OffsetDateTime::now_utc()) {
            Decision::Renew(why) => self.renew(record, why, usable, memory, &under).await,
            Decision::Keep { .. } if asked => self.renew(record, Why::Asked, usable, memory, &under).await,
            Decision::Keep { .. } => quiet(now),
        }
    }

    /// Serves what is stored, where that is newer than what is served. False where it cannot be served.
    fn restore(&self, record: &Record) -> bool {
        let Some(bundle) = &record.bundle else { return false };
        if let Some(Err(problem)) = record.spare.as_ref().map(|spare| serve(&self.tls, &self.names, spare)) {
            tracing::warn!(certificate = %self.id, %problem, "the certificate before it cannot be used");
        }
        match serve(&self.tls, &self.names, bundle) {
            Ok(_) => true,
            Err(problem) => {
                tracing::error!(certificate = %self.id, %problem, "a stored certificate cannot be used; another is ordered");
                false
            }
        }
    }

    pub(super) async fn load(&self) -> Result<Record, Failure> {
        let id = self.id.clone();
        let stored = on_disk(&self.common.store, move |store| store.load(&id)).await?;
        Ok(stored.unwrap_or_else(|| Record::new(self.names.clone())))
    }

    pub(super) async fn save(&self, record: &Record) -> Result<(), Failure> {
        let (id, copy) = (self.id.clone(), record.clone());
        on_disk(&self.common.store, move |store| store.save(&id, &copy)).await
    }

    pub(super) async fn lock(&self) -> Result<Option<Lock>, Failure> {
        let id = self.id.clone();
        on_disk(&self.common.store, move |store| store.lock(&id)).await
    }

    /// Whether the store could be used, while there is nothing to be done with it.
    async fn try_store(&self) -> Result<(), Failure> {
        on_disk(&self.common.store, Store::probe).await?;
        self.lock().await.map(drop)
    }

    /// Writes what the disk did not take before.
    async fn save_again(&self, memory: &RefCell<Memory>) -> Result<(), Failure> {
        let unsaved = memory.borrow().unsaved.as_ref().map(|unsaved| unsaved.record.clone());
        let Some(record) = unsaved else { return Ok(()) };
        self.save(&record).await?;
        memory.borrow_mut().unsaved = None;
        tracing::info!(certificate = %self.id, "the disk took what it had refused");
        Ok(())
    }
}

/// Serves a stored certificate of these names where nothing newer is there. False where it is of no use.
pub(super) fn serve(tls: &SiteTls, names: &[HostPattern], bundle: &Bundle) -> Result<bool, TlsProblem> {
    let own = Some(names).filter(|_| !bundle.lacks.is_empty());
    tls.restore(&bundle.chain_pem, bundle.key_pem.expose(), own)
}

/// Whether records stand in the DNS that no order goes on with at once.
fn has_leftovers(record: &Record) -> bool {
    let waits = renewal::waits(record.retry.not_before, OffsetDateTime::now_utc()).is_some();
    !record.published.is_empty() && (record.order.is_none() || waits)
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
    let obtained = record.history.iter().filter(|event| event.kind == EventKind::Obtained);
    let lately = obtained.filter(|event| (bundle.issued - event.at).abs() < Duration::WEEK).count();
    let subject = Subject {
        leaf: &leaf,
        not_before: bundle.not_before,
        not_after: bundle.not_after,
        names_fit: true,
        revoked,
        window,
        issued: bundle.issued,
        lacking: partial::joins_at(record, bundle, now),
        lately: u32::try_from(lately).unwrap_or(u32::MAX),
    };
    renewal::decide(Some(&subject), now)
}

pub(super) fn leaf_of(bundle: &Bundle) -> Vec<u8> {
    Leaf::read(&bundle.chain_pem).map(|leaf| leaf.der.to_vec()).unwrap_or_default()
}

/// Keeps a record in the store; what the disk refuses is kept in memory, and written later.
pub(super) struct Kept<'a> {
    pub(super) tending: &'a Tending,
    pub(super) memory: &'a RefCell<Memory>,
}

impl Keep for Kept<'_> {
    async fn keep(&mut self, record: &Record) -> Result<(), Failure> {
        match self.tending.save(record).await {
            Ok(()) => self.memory.borrow_mut().unsaved = None,
            Err(failure) => {
                tracing::error!(certificate = %self.tending.id, %failure, "the store does not take a record; it is kept in memory, and written later");
                let unsaved = Unsaved { record: record.clone(), why: failure.to_string() };
                self.memory.borrow_mut().unsaved = Some(unsaved);
            }
        }
        Ok(())
    }
}

impl Memory {
    /// Notes what a person asked for, for the next look, which is due now.
    pub(super) fn ask(&mut self, asked: Asked) {
        self.asked.push(asked);
        self.next = None;
    }

    /// Remembers a record with a certificate. A store that is gone has none, and says nothing else.
    fn see(&mut self, record: &Record) {
        if record.bundle.is_some() {
            self.seen = Some(record.clone());
        }
    }

    /// The newest record that is known of, whether the disk has it or not.
    pub(super) fn last_known(&self) -> Option<Record> {
        self.unsaved.as_ref().map(|unsaved| &unsaved.record).or(self.seen.as_ref()).cloned()
    }

    pub(super) fn has_unsaved(&self) -> bool {
        self.unsaved.is_some()
    }

    /// Why the disk did not take the newest record; None where it has it.
    fn refusal(&self) -> Option<String> {
        self.unsaved.as_ref().map(|unsaved| unsaved.why.clone())
    }

    /// Begins anew with another certificate; what is to be written, and what was asked for, stays.
    pub(super) fn forget(&mut self) {
        let Self { unsaved, asked, .. } = std::mem::take(self);
        *self = Self { unsaved, asked, ..Self::default() };
    }
}

//! When the CA wants a certificate renewed (RFC 9773): asked, checked, kept.

use std::cell::RefCell;

use instant_acme::Error;
use time::{Duration, OffsetDateTime};
use tokio::sync::Semaphore;

use super::account::Ca;
use super::failure::{Failure, patiently};
use super::order::{Keep, certificate_identifier};
use super::renewal::{self, Window};
use super::store::{Ari, Record};
use super::tend::{Kept, Memory, OTHERS, Tending, leaf_of};
use super::watchful;
use crate::client::one_line;

/// How long a CA without renewal information, or in trouble, is left alone about it.
const UNCLEAR: Duration = renewal::AFTER_ERROR;
/// The longest explanation that is kept, in characters.
const MAX_URL: usize = 500;
/// How many certificates' renewal is asked about at once.
static TURNS: Semaphore = Semaphore::const_new(4);

impl Tending {
    /// Whether the CA is to be asked about the certificate now.
    pub(super) fn is_poll_due(&self, record: &Record, memory: &RefCell<Memory>, now: OffsetDateTime) -> bool {
        let Some(bundle) = &record.bundle else { return false };
        let known = self.common.cas.iter().any(|ca| ca.directory == bundle.directory);
        let held_back = renewal::waits(memory.borrow().ask_again, now).is_some();
        let due = record.ari.as_ref().is_none_or(|ari| ari.next_check <= now || ari.checked > now);
        known && bundle.ari_id.is_some() && due && !held_back && now < bundle.not_after
    }

    /// Asks the CA when it wants the certificate renewed (RFC 9773).
    pub(super) async fn ask_when(&self, memory: &RefCell<Memory>) -> Result<(), Failure> {
        let _turn = TURNS.acquire().await;
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
            Err(failure) if is_without(&failure) => hold_back(memory, UNCLEAR),
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
}

/// Whether the CA tells nobody when to renew, as its directory says: no failure.
fn is_without(failure: &Failure) -> bool {
    matches!(failure, Failure::Ca { source, .. } if matches!(source.downcast_ref(), Some(Error::Unsupported(_))))
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
        explanation: info.explanation_url.map(|url| one_line(&url, MAX_URL)),
        checked: now,
        next_check: renewal::next_poll(now, again),
    };
    Ok((ari, window))
}

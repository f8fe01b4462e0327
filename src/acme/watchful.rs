//! Saying that a certificate's end comes near while nothing newer is there.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::failure::Failure;
use super::notice::{Notice, What};
use super::renewal;
use super::store::{Alarm, Bundle, Lock, Record};
use super::tend::{Memory, Tending, shown};

/// How long a certificate with a twentieth of its life left, or none, may wait for its first attempt without an alarm: it may
/// have grown old while no edge ran.
const LEFT_ALONE: Duration = Duration::from_mins(10);

/// Raises each alarm once for each certificate, whoever runs and however often: with a third, a sixth and a twentieth of its
/// life left, where a renewal has failed, and at its end.
pub(super) async fn alarm(
    tending: &Tending,
    record: &Record,
    memory: &RefCell<Memory>,
) -> Result<(), Failure> {
    if due(record, memory, None).is_none() {
        return Ok(());
    }
    // Whoever has the lock may be about to end the trouble.
    let Some(lock) = tending.lock().await? else { return Ok(()) };
    let record = tending.load().await?;
    raise(tending, record, memory, None, Some(lock)).await
}

/// The same for a certificate that cannot be seen to: a store that takes and gives nothing keeps nobody from being told.
pub(super) async fn alarm_despite(tending: &Tending, memory: &RefCell<Memory>, trouble: &Failure) {
    let trouble = trouble.to_string();
    let known = memory.borrow().last_known();
    let Some(known) = known.filter(|known| due(known, memory, Some(&trouble)).is_some()) else { return };
    let lock = match tending.lock().await {
        Ok(None) => return,
        lock => lock.ok().flatten(),
    };
    let stored =
        if lock.is_some() && !memory.borrow().has_unsaved() { tending.load().await.ok() } else { None };
    let stored = stored.filter(|stored| stored.bundle.is_some());
    // What cannot be read, as a later version's, is not written over.
    let lock = lock.filter(|_| stored.is_some());
    // What the disk refuses now is no news.
    let _ = raise(tending, stored.unwrap_or(known), memory, Some(trouble), lock).await;
}

/// Tells the alarm where it is still due, and writes that down where the lock could be had: what cannot be written down is
/// remembered for as long as the process runs.
async fn raise(
    tending: &Tending,
    mut record: Record,
    memory: &RefCell<Memory>,
    trouble: Option<String>,
    lock: Option<Lock>,
) -> Result<(), Failure> {
    let due = due(&record, memory, trouble.as_deref());
    let (Some(due), Some(bundle)) = (due, record.bundle.clone()) else { return Ok(()) };
    memory.borrow_mut().alarmed = Some(due);
    record.alarm = Some(due);
    // Not kept for later: written then, it might take the place of what another edge has obtained.
    let written = if lock.is_some() { tending.save(&record).await } else { Ok(()) };
    // A disk that takes no record keeps the CA from being asked, whatever the CA said before.
    let refusal = written.as_ref().err().map(ToString::to_string);
    let why = trouble.or(refusal).or_else(|| record.retry.last_error.clone());
    tell(tending, &record, &bundle, due.part, why);
    written
}

/// The alarm that is to be raised now.
fn due(record: &Record, memory: &RefCell<Memory>, trouble: Option<&str>) -> Option<Alarm> {
    let bundle = record.bundle.as_ref()?;
    let part = renewal::alarm(bundle.not_before, bundle.not_after, OffsetDateTime::now_utc())?;
    let is_low = matches!(part, 0 | 20);
    let low = || memory.borrow_mut().low_since.get_or_insert_with(Instant::now).elapsed();
    let is_stuck = is_low && low() > LEFT_ALONE;
    let alarm = Alarm { not_after: bundle.not_after, part };
    let is_told = [record.alarm, memory.borrow().alarmed].contains(&Some(alarm));
    ((record.retry.failures > 0 || is_stuck || trouble.is_some()) && !is_told).then_some(alarm)
}

fn tell(tending: &Tending, record: &Record, bundle: &Bundle, part: i32, why: Option<String>) {
    let (names, not_after) = (shown(&tending.names), text(bundle.not_after));
    let why = why.unwrap_or_else(|| "no attempt could be made".to_owned());
    let said = match part {
        0 => "a certificate has expired and is still served: renewing fails".to_owned(),
        part => format!("less than 1/{part} of a certificate's life is left: renewing fails"),
    };
    tracing::error!(names, not_after = &not_after, why, "{said}");
    let notice = Notice::new(What::Expiring, &tending.names, &format!("{said}: {why}"));
    let next_try = renewal::waits(record.retry.not_before, OffsetDateTime::now_utc()).map(text);
    let (failures, ca) = (record.retry.failures, Some(bundle.directory.clone()));
    let (not_after, error) = (Some(not_after), Some(why));
    tending.common.notifier.tell(&Notice { not_after, ca, error, failures, next_try, ..notice });
}

/// A moment, as logs have it.
pub(super) fn text(at: OffsetDateTime) -> String {
    at.truncate_to_second().format(&Rfc3339).unwrap_or_default()
}

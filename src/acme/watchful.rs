//! Saying that a certificate's end comes near while nothing newer is there.

use std::cell::RefCell;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::renewal;
use super::store::Record;
use super::tend::{Memory, Tending, shown};

/// Raises each alarm once for each certificate: with a third, a sixth and a twentieth of its life left, where a renewal has
/// failed, and at its end.
pub(super) fn alarm(tending: &Tending, record: &Record, memory: &RefCell<Memory>) {
    let Some(bundle) = &record.bundle else { return };
    let now = OffsetDateTime::now_utc();
    let Some(part) = renewal::alarm(bundle.not_before, bundle.not_after, now) else { return };
    if record.retry.failures == 0 || !memory.borrow_mut().is_new_alarm(bundle.not_after, part) {
        return;
    }
    let why = record.retry.last_error.as_deref().unwrap_or_default();
    let (names, not_after) = (shown(&tending.names), text(bundle.not_after));
    if now >= bundle.not_after {
        tracing::error!(
            names,
            not_after,
            why,
            "a certificate has expired and is still served: renewing fails"
        );
    } else {
        tracing::error!(
            names,
            not_after,
            why,
            "less than 1/{part} of a certificate's life is left: renewing fails"
        );
    }
}

/// A moment, as logs have it.
pub(super) fn text(at: OffsetDateTime) -> String {
    at.truncate_to_second().format(&Rfc3339).unwrap_or_default()
}

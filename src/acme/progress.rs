//! How far the certificates are that are being obtained, for whoever asks, and for the log.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use time::OffsetDateTime;

use super::store::RecordId;

/// How long one step takes before the log says that it still goes on, and how often it says so at the least.
const REMINDERS: (Duration, Duration) = (Duration::from_secs(10), Duration::from_mins(5));

/// What is being done for each certificate. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Progress(Arc<Mutex<Book>>);

#[derive(Debug, Default)]
struct Book {
    doing: HashMap<RecordId, Doing>,
    /// Those for which the CA's limits leave no room before then.
    held: HashMap<RecordId, OffsetDateTime>,
    /// Those that cannot be seen to, and why.
    troubles: HashMap<RecordId, String>,
    /// Why none is looked after just now.
    stopped: Option<String>,
}

/// What is being done for one.
#[derive(Debug, Clone)]
pub struct Doing {
    /// In words, as in "waiting for ca.example to sign".
    pub step: String,
    /// Since when it has been ordered.
    pub since: OffsetDateTime,
    names: String,
    begun: Instant,
    said: Instant,
    pause: Duration,
}

/// One certificate that is being obtained. Dropping it says that this is over.
pub(super) struct Under {
    progress: Progress,
    id: RecordId,
    begun: Instant,
}

impl Progress {
    /// What is being done for the certificate just now.
    pub fn of(&self, id: &RecordId) -> Option<Doing> {
        self.book().doing.get(id).cloned()
    }

    /// Until when the CA's limits keep the certificate from being ordered.
    pub fn held(&self, id: &RecordId) -> Option<OffsetDateTime> {
        self.book().held.get(id).copied()
    }

    /// Why no certificate is looked after just now; None where they are.
    pub fn stopped(&self) -> Option<String> {
        self.book().stopped.clone()
    }

    pub(super) fn set_stopped(&self, why: Option<String>) {
        self.book().stopped = why;
    }

    /// Why the certificate cannot be seen to; None where it can.
    pub fn trouble(&self, id: &RecordId) -> Option<String> {
        self.book().troubles.get(id).cloned()
    }

    pub(super) fn set_trouble(&self, id: &RecordId, why: Option<String>) {
        match why {
            Some(why) => self.book().troubles.insert(id.clone(), why),
            None => self.book().troubles.remove(id),
        };
    }

    /// Forgets the trouble with certificates that are not wanted any more.
    pub(super) fn retain(&self, wanted: &HashSet<&RecordId>) {
        self.book().troubles.retain(|id, _| wanted.contains(id));
    }

    /// Begins with the certificate of these names.
    pub(super) fn begin(&self, id: &RecordId, names: String, step: &str) -> Under {
        let now = Instant::now();
        let since = OffsetDateTime::now_utc();
        let doing = Doing { step: step.to_owned(), since, names, begun: now, said: now, pause: REMINDERS.0 };
        self.book().doing.insert(id.clone(), doing);
        Under { progress: self.clone(), id: id.clone(), begun: now }
    }

    /// Says what has taken long, and more and more seldom.
    pub(super) fn remind(&self) {
        for (id, doing) in &mut self.book().doing {
            if doing.said.elapsed() < doing.pause {
                continue;
            }
            let seconds = doing.begun.elapsed().as_secs();
            tracing::info!(certificate = %id, names = doing.names, seconds, "still {}", doing.step);
            doing.said = Instant::now();
            doing.pause = (doing.pause * 2).min(REMINDERS.1);
        }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Under {
    /// The next step, told in the log.
    pub(super) fn step(&self, step: String) {
        let mut book = self.progress.book();
        book.held.remove(&self.id);
        let Some(doing) = book.doing.get_mut(&self.id) else { return };
        tracing::info!(certificate = %self.id, names = doing.names, "{step}");
        let now = Instant::now();
        (doing.step, doing.said, doing.pause) = (step, now, REMINDERS.0);
    }

    /// There is no room for it before then, which is told once.
    pub(super) fn hold(&self, until: OffsetDateTime) {
        let mut book = self.progress.book();
        if book.held.insert(self.id.clone(), until).is_none() {
            let until = super::watchful::text(until);
            tracing::info!(certificate = %self.id, until, "the CA's limits leave no room for an order before then");
        }
    }
}

impl Drop for Under {
    fn drop(&mut self) {
        let mut book = self.progress.book();
        // Another may have begun since, where a reload took the site away and another brought it back.
        if book.doing.get(&self.id).is_some_and(|doing| doing.begun == self.begun) {
            book.doing.remove(&self.id);
        }
    }
}

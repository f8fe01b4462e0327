//! The tries to have one request answered, for a trace that is recorded: each is a span of its own, and the one that an
//! upstream answers is the one that it was told as its parent.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use memchr::memmem;

use crate::observe::spans::SpanId;

/// The most connections that fail and are told of, for a request that waits while all is down.
const MOST_FAILED: usize = 16;

/// All tries of one request.
#[derive(Debug, Clone)]
pub struct Attempts {
    all: Vec<Attempt>,
    /// The span that the request's head names.
    named: SpanId,
    /// Whether the head has been sent, and its span is taken.
    sent: bool,
}

/// One try.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// Its span.
    pub span: SpanId,
    /// Who was asked.
    pub peer: Arc<str>,
    /// When the connection was begun, or the sending where there was one.
    pub began: Instant,
    /// When the answer's head was there, or it was clear that none would come; None for one that still waited at the end.
    pub ended: Option<Instant>,
    /// The answer's status.
    pub status: Option<u16>,
    /// Why there was none.
    pub error: Option<&'static str>,
}

impl Attempts {
    /// None yet.
    pub fn none() -> Self {
        Self { all: Vec::new(), named: SpanId::random(), sent: false }
    }

    /// The span that the request's head is to name.
    pub fn named(&self) -> SpanId {
        self.named
    }

    /// All of them.
    pub fn all(&self) -> &[Attempt] {
        &self.all
    }

    /// The final head of an answer is there.
    pub fn answered(&mut self, status: u16) {
        self.end(Some(status), None);
    }

    /// No connection was made.
    pub(super) fn not_connected(&mut self, peer: &Arc<str>, began: Instant, error: &'static str) {
        if self.all.len() < MOST_FAILED {
            self.begin(SpanId::random(), peer, began);
            self.end(None, Some(error));
        }
    }

    /// The request is sent, with the head that this returns: each try names itself.
    pub(super) fn send(&mut self, peer: &Arc<str>, began: Instant, head: Bytes) -> Bytes {
        let head = if std::mem::replace(&mut self.sent, true) { self.rename(&head) } else { head };
        self.begin(self.named, peer, began);
        head
    }

    /// No answer came.
    pub(super) fn failed(&mut self, error: &'static str) {
        self.end(None, Some(error));
    }

    fn begin(&mut self, span: SpanId, peer: &Arc<str>, began: Instant) {
        let peer = Arc::clone(peer);
        self.all.push(Attempt { span, peer, began, ended: None, status: None, error: None });
    }

    fn end(&mut self, status: Option<u16>, error: Option<&'static str>) {
        if let Some(last) = self.all.last_mut() {
            (last.ended, last.status, last.error) = (Some(Instant::now()), status, error);
        }
    }

    /// The head with another span in the place of the one that it names.
    fn rename(&mut self, head: &Bytes) -> Bytes {
        let old = std::mem::replace(&mut self.named, SpanId::random());
        let mut head = Vec::from(&head[..]);
        if let Some(at) = memmem::find(&head, old.as_str().as_bytes())
            && let Some(place) = head.get_mut(at..at + old.as_str().len())
        {
            place.copy_from_slice(self.named.as_str().as_bytes());
        }
        head.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_try_names_itself() {
        let mut attempts = Attempts::none();
        let head = |attempts: &Attempts| Bytes::from(format!("a: {}\r\n", attempts.named().as_str()));
        let (peer, first, began) = ("192.0.2.1:80".into(), head(&attempts), Instant::now());
        attempts.not_connected(&peer, began, "unreachable");
        assert_eq!(attempts.send(&peer, began, first.clone()), first);
        attempts.failed("unanswered");
        let second = attempts.send(&peer, began, first.clone());
        assert!(second == head(&attempts) && second != first);
        attempts.answered(200);
        let all = attempts.all();
        let told: Vec<_> = all.iter().map(|attempt| (attempt.status, attempt.error)).collect();
        assert_eq!(told, [(None, Some("unreachable")), (None, Some("unanswered")), (Some(200), None)]);
        assert!(
            all[0].span != all[1].span && first.ends_with(format!("{}\r\n", all[1].span.as_str()).as_bytes())
        );
    }
}

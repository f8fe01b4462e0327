//! One timer for a connection's whole life.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// A deadline that is moved far more often than it passes. Moving it later costs one store: the timer underneath
/// is armed again only when it fires early, or has to fire sooner.
#[derive(Debug, Default)]
pub struct Deadline {
    due: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Deadline {
    /// Due after `span` from now.
    pub fn set(&mut self, span: Duration) {
        self.due = Some(Instant::now() + span);
    }

    /// Due after `span` from now, if not sooner.
    pub fn set_at_most(&mut self, span: Duration) {
        let due = Instant::now() + span;
        self.due = Some(self.due.map_or(due, |own| own.min(due)));
    }

    /// Never due.
    pub fn clear(&mut self) {
        self.due = None;
    }

    /// Whether it will pass one day.
    pub fn is_set(&self) -> bool {
        self.due.is_some()
    }

    /// Ready once the deadline has passed; wakes the task when it does.
    pub fn poll_passed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(due) = self.due else { return Poll::Pending };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(due)));
        if timer.deadline() > due {
            timer.as_mut().reset(due);
        }
        while timer.as_mut().poll(cx).is_ready() {
            if timer.deadline() >= due {
                return Poll::Ready(());
            }
            timer.as_mut().reset(due);
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;

    #[tokio::test(start_paused = true)]
    async fn it_passes_when_it_is_due_and_not_before() {
        let mut deadline = Deadline::default();
        let start = Instant::now();
        deadline.set(Duration::from_secs(1));
        assert!(poll_fn(|cx| Poll::Ready(deadline.poll_passed(cx).is_pending())).await);
        deadline.set(Duration::from_secs(5));
        poll_fn(|cx| deadline.poll_passed(cx)).await;
        assert!(start.elapsed() >= Duration::from_secs(5));
        deadline.set(Duration::from_secs(50));
        assert!(poll_fn(|cx| Poll::Ready(deadline.poll_passed(cx).is_pending())).await);
        deadline.set(Duration::from_secs(2));
        poll_fn(|cx| deadline.poll_passed(cx)).await;
        assert!(start.elapsed() < Duration::from_secs(8));
    }
}

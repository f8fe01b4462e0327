//! One costly part for many tests that run at the same time: made by the first, ended with the last.

use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Unlike a static, what it holds is dropped, so that no child process outlives the tests.
pub(crate) struct Shared<T>(Mutex<Weak<T>>);

impl<T> Shared<T> {
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(Weak::new()))
    }

    /// The living one, else a new one.
    pub(crate) fn get(&self, make: impl FnOnce() -> T) -> Arc<T> {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        slot.upgrade().unwrap_or_else(|| {
            let fresh = Arc::new(make());
            *slot = Arc::downgrade(&fresh);
            fresh
        })
    }
}

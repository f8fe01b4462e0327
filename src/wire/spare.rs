//! Large buffers that are used again, so that nobody clears memory which is written over at once.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};

/// How long a large buffer is, in octets.
pub const SIZE: usize = 64 * 1024;
/// Up to here a buffer is as long as it was asked for, and not kept.
const SMALL: usize = 16 * 1024;
/// How many a thread keeps.
const KEPT: usize = 8;

thread_local! {
    static KEEPING: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

/// A buffer, which the thread that drops it keeps for its next one. Its octets are any.
#[derive(Debug)]
pub struct Spare(Box<[u8]>);

impl Spare {
    /// A buffer of [`SIZE`], or of `wanted` octets where these are few.
    pub fn take(wanted: usize) -> Self {
        if wanted <= SMALL {
            return Self(vec![0; wanted].into_boxed_slice());
        }
        let kept = KEEPING.with_borrow_mut(Vec::pop);
        Self(kept.unwrap_or_else(|| vec![0; SIZE].into_boxed_slice()))
    }
}

impl Deref for Spare {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for Spare {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl Drop for Spare {
    fn drop(&mut self) {
        if self.len() <= SMALL {
            return;
        }
        // A thread that ends keeps nothing any more.
        let _ = KEEPING.try_with(|kept| {
            if let Ok(mut kept) = kept.try_borrow_mut()
                && kept.len() < KEPT
            {
                kept.push(std::mem::take(&mut self.0));
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_large_ones_are_kept() {
        let many: Vec<Spare> = (0..KEPT + 3).map(|_| Spare::take(SMALL + 1)).collect();
        assert!(many.iter().all(|spare| spare.len() == SIZE));
        let small = Spare::take(7);
        assert_eq!(small.len(), 7);
        drop((many, small));
        KEEPING.with_borrow(|kept| assert_eq!(kept.len(), KEPT));
        let again = Spare::take(SIZE);
        KEEPING.with_borrow(|kept| assert_eq!((kept.len(), again.len()), (KEPT - 1, SIZE)));
    }
}

//! Session tickets (RFC 8446 section 4.6.1, RFC 5077): sealed with AES-256-GCM under a key that every worker
//! shares and that is replaced every few hours. There is no session cache.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::error::Unspecified;
use rustls::server::ProducesTickets;

/// How long a key seals new tickets. Random nonces stay safe for 2^32 tickets a key: 198,000 a second.
pub(super) const PERIOD: Duration = Duration::from_hours(6);

const NAME_LEN: usize = 16;

/// The ticket keys of one policy: one that seals, and the one before it, which only opens.
pub(super) struct Tickets {
    period: Duration,
    keys: ArcSwap<Keys>,
}

impl Tickets {
    pub(super) fn new(period: Duration) -> Result<Self, Unspecified> {
        let keys = Keys { current: Arc::new(Key::new()?), previous: None, until: Instant::now() + period };
        Ok(Self { period, keys: ArcSwap::from_pointee(keys) })
    }

    /// Replaces the key when its time has come. A ticket opens for at most two periods after its key was made.
    pub(super) fn turn(&self, now: Instant) -> Arc<Keys> {
        let keys = self.keys.load_full();
        if now < keys.until {
            return keys;
        }
        // Without randomness for a new key the old ones go on: resumption is no reason to fail a handshake.
        let Ok(next) = keys.next(now, self.period) else { return keys };
        self.keys.compare_and_swap(&keys, Arc::new(next));
        self.keys.load_full()
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        u32::try_from(self.period.as_secs() * 2).unwrap_or(u32::MAX)
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.turn(Instant::now()).current.seal(plain).ok()
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        self.turn(Instant::now()).open(ticket)
    }
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tickets").finish_non_exhaustive()
    }
}

pub(super) struct Keys {
    current: Arc<Key>,
    previous: Option<Arc<Key>>,
    until: Instant,
}

impl Keys {
    fn next(&self, now: Instant, period: Duration) -> Result<Self, Unspecified> {
        let current = Arc::new(Key::new()?);
        let missed = now >= self.until + period;
        Ok(if missed {
            Self { current, previous: None, until: now + period }
        } else {
            Self { current, previous: Some(Arc::clone(&self.current)), until: self.until + period }
        })
    }

    fn open(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (name, sealed) = ticket.split_first_chunk::<NAME_LEN>()?;
        let key = std::iter::once(&self.current).chain(&self.previous).find(|key| key.name == *name)?;
        key.open(sealed)
    }
}

/// A ticket is the key's name, the nonce, the sealed state and its tag.
struct Key {
    name: [u8; NAME_LEN],
    aead: RandomizedNonceKey,
}

impl Key {
    fn new() -> Result<Self, Unspecified> {
        let (mut name, mut secret) = ([0; NAME_LEN], [0; 32]);
        aws_lc_rs::rand::fill(&mut name)?;
        aws_lc_rs::rand::fill(&mut secret)?;
        Ok(Self { name, aead: RandomizedNonceKey::new(&AES_256_GCM, &secret)? })
    }

    fn seal(&self, plain: &[u8]) -> Result<Vec<u8>, Unspecified> {
        let mut sealed = plain.to_vec();
        let nonce = self.aead.seal_in_place_append_tag(Aad::from(self.name), &mut sealed)?;
        Ok([&self.name, nonce.as_ref().as_slice(), &sealed].concat())
    }

    fn open(&self, sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_LEN>()?;
        let mut state = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let plain = self.aead.open_in_place(nonce, Aad::from(self.name), &mut state).ok()?.len();
        state.truncate(plain);
        Some(state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_opens_for_two_periods_and_no_longer() {
        let tickets = Tickets::new(PERIOD).unwrap();
        let born = Instant::now();
        let ticket = tickets.encrypt(b"session").unwrap();
        let opens = |after: Duration| tickets.turn(born + after).open(&ticket);
        assert_eq!(opens(Duration::ZERO).as_deref(), Some(&b"session"[..]));
        assert_eq!(opens(PERIOD + Duration::from_secs(1)).as_deref(), Some(&b"session"[..]));
        assert_eq!(opens(PERIOD * 2 + Duration::from_secs(1)), None);
    }

    #[test]
    fn an_idle_edge_forgets_its_keys() {
        let tickets = Tickets::new(PERIOD).unwrap();
        let ticket = tickets.encrypt(b"session").unwrap();
        assert_eq!(tickets.turn(Instant::now() + PERIOD * 5).open(&ticket), None);
    }

    #[test]
    fn a_new_key_seals_after_a_period() {
        let tickets = Tickets::new(PERIOD).unwrap();
        let before = tickets.encrypt(b"session").unwrap();
        tickets.turn(Instant::now() + PERIOD);
        let after = tickets.encrypt(b"session").unwrap();
        assert_ne!(before[..NAME_LEN], after[..NAME_LEN]);
        assert!(tickets.decrypt(&before).is_some() && tickets.decrypt(&after).is_some());
    }

    #[test]
    fn what_was_not_sealed_here_does_not_open() {
        let tickets = Tickets::new(PERIOD).unwrap();
        let ticket = tickets.encrypt(b"session").unwrap();
        for at in 0..ticket.len() {
            let mut bent = ticket.clone();
            bent[at] ^= 1;
            assert_eq!(tickets.decrypt(&bent), None, "bit flipped in byte {at}");
            assert_eq!(tickets.decrypt(&ticket[..at]), None, "cut at {at}");
        }
        assert_eq!(Tickets::new(PERIOD).unwrap().decrypt(&ticket), None);
    }
}

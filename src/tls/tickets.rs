//! Session tickets (RFC 8446 section 4.6.1, RFC 5077): sealed with AES-256-GCM under a key that every worker
//! shares and that is replaced every few hours. There is no session cache.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::error::Unspecified;
use rustls::server::ProducesTickets;
use serde::{Deserialize, Serialize};

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

    /// Goes on with another process's keys, for as long as it would have.
    pub(super) fn inherit(period: Duration, legacy: &Legacy) -> Result<Self, Unspecified> {
        let key = |secret: &Secret| Key::of(secret.name, secret.secret).map(Arc::new);
        let left = Duration::from_millis(legacy.left).min(period);
        let keys = Keys {
            current: key(&legacy.current)?,
            previous: legacy.previous.as_ref().map(key).transpose()?,
            until: Instant::now() + left,
        };
        Ok(Self { period, keys: ArcSwap::from_pointee(keys) })
    }

    /// The keys, for a process that goes on with them.
    pub(super) fn bequeath(&self) -> Legacy {
        let now = Instant::now();
        let keys = self.turn(now);
        let left = keys.until.saturating_duration_since(now).as_millis();
        Legacy {
            current: keys.current.to_secret(),
            previous: keys.previous.as_deref().map(Key::to_secret),
            left: u64::try_from(left).unwrap_or(u64::MAX),
        }
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

/// Keys on their way to the process that goes on with them: secret, and written nowhere.
#[derive(Serialize, Deserialize)]
pub(super) struct Legacy {
    current: Secret,
    previous: Option<Secret>,
    /// How long the current one still seals, in milliseconds.
    left: u64,
}

#[derive(Serialize, Deserialize)]
struct Secret {
    name: [u8; NAME_LEN],
    secret: [u8; 32],
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
    secret: [u8; 32],
    aead: RandomizedNonceKey,
}

impl Key {
    fn new() -> Result<Self, Unspecified> {
        let (mut name, mut secret) = ([0; NAME_LEN], [0; 32]);
        aws_lc_rs::rand::fill(&mut name)?;
        aws_lc_rs::rand::fill(&mut secret)?;
        Self::of(name, secret)
    }

    fn of(name: [u8; NAME_LEN], secret: [u8; 32]) -> Result<Self, Unspecified> {
        Ok(Self { name, secret, aead: RandomizedNonceKey::new(&AES_256_GCM, &secret)? })
    }

    fn to_secret(&self) -> Secret {
        Secret { name: self.name, secret: self.secret }
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
    fn keys_that_are_handed_on_open_and_end_as_they_would_have() {
        let tickets = Tickets::new(PERIOD).unwrap();
        let first = tickets.encrypt(b"session").unwrap();
        tickets.turn(Instant::now() + PERIOD);
        let second = tickets.encrypt(b"session").unwrap();
        let legacy = serde_json::to_string(&tickets.bequeath()).unwrap();
        let heir = Tickets::inherit(PERIOD, &serde_json::from_str(&legacy).unwrap()).unwrap();
        assert!(heir.decrypt(&first).is_some() && heir.decrypt(&second).is_some());
        assert!(tickets.decrypt(&heir.encrypt(b"session").unwrap()).is_some());
        let later = heir.turn(Instant::now() + PERIOD);
        assert!(later.open(&first).is_none() && later.open(&second).is_some());
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

//! Passwords that are asked for at the edge (RFC 7617).
//!
//! Hashes that are as slow as they should be are looked at off the worker threads, few at a time. A password that was right
//! once is known again by a keyed hash, which costs a microsecond; wrong ones are counted against their client.

use std::collections::HashMap;
use std::num::NonZero;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::sync::{OnceCell, Semaphore};

use crate::addr::ClientAddr;
use crate::config::model::{self, Auth, Per};
use crate::limit::network;
use crate::limit::rate::{Over, Rate};
use crate::password::Stored;

/// Who may come in by saying a password.
#[derive(Debug)]
pub struct Door {
    /// What a client without one is told: `WWW-Authenticate`.
    pub challenge: String,
    /// By name.
    users: Arc<[(String, Stored)]>,
    /// By user: the tag of what was right.
    known: Box<[OnceLock<Tag>]>,
    /// What is being looked at, so that a browser's twenty first requests are one look.
    looks: Mutex<HashMap<Tag, Arc<OnceCell<bool>>>>,
    wrong: Rate,
    key: hmac::Key,
}

/// Why somebody may not come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    /// No name and password, or wrong ones.
    Stranger,
    /// Too many wrong ones from this client.
    TooMany(Over),
    /// Too many are being looked at.
    Busy,
}

impl Door {
    /// A door that nobody has come through yet.
    pub fn new(auth: &Auth) -> Self {
        let mut seed = [0; 32];
        // Without randomness the tags would still be those of one password each.
        let _ = getrandom::fill(&mut seed);
        let wrong =
            model::Rate { per: Per::Client, limit: WRONG, every: Duration::from_mins(1), burst: WRONG - 1 };
        Self {
            challenge: format!("Basic realm=\"{}\", charset=\"UTF-8\"", auth.realm),
            users: Arc::clone(&auth.users),
            known: auth.users.iter().map(|_| OnceLock::new()).collect(),
            looks: Mutex::default(),
            wrong: Rate::new(&wrong),
            key: hmac::Key::new(hmac::HMAC_SHA256, &seed),
        }
    }

    /// The name of the user that an Authorization field names rightly. Dropping this is safe at any time.
    ///
    /// # Errors
    /// There is none; a name that nobody has takes as long as a wrong password.
    pub async fn enter(
        &self,
        client: ClientAddr,
        field: Option<&[u8]>,
        now: Instant,
    ) -> Result<&str, Denied> {
        let typed = field.and_then(Typed::read).ok_or(Denied::Stranger)?;
        let tag = self.tag(&typed);
        let user = self.users.binary_search_by(|(name, _)| name.as_bytes().cmp(typed.name())).ok();
        let (name, known) = user.and_then(|at| Some((&*self.users.get(at)?.0, self.known.get(at)?))).unzip();
        if known.and_then(OnceLock::get).is_some_and(|known| verify_slices_are_equal(known, &tag).is_ok()) {
            return name.ok_or(Denied::Stranger);
        }
        let look = self.look(tag);
        let right = *look.cell.get_or_try_init(|| self.compare(client, user, typed, now)).await?;
        let (true, Some(name), Some(known)) = (right, name, known) else { return Err(Denied::Stranger) };
        let _ = known.set(tag);
        Ok(name)
    }

    /// Counts as a wrong one until it is known to be right.
    async fn compare(
        &self,
        client: ClientAddr,
        user: Option<usize>,
        typed: Typed,
        now: Instant,
    ) -> Result<bool, Denied> {
        let key = self.wrong.key(network(client));
        self.wrong.take(key, now).map_err(Denied::TooMany)?;
        let right = self.work(user, typed).await;
        if right != Ok(false) {
            self.wrong.give_back(key, now);
        }
        right
    }

    /// The slow part.
    async fn work(&self, user: Option<usize>, typed: Typed) -> Result<bool, Denied> {
        let _place = QUEUE.try_acquire().map_err(|_| Denied::Busy)?;
        let desk = DESKS.acquire().await.map_err(|_| Denied::Busy)?;
        let (users, at) = (Arc::clone(&self.users), user.unwrap_or_else(|| self.decoy(&typed)));
        let look = move || {
            // The desk is taken until the work is done, whether somebody still waits for it or not.
            let _desk = desk;
            users.get(at).is_some_and(|(_, stored)| stored.is(typed.password()))
        };
        let right = tokio::task::spawn_blocking(look).await.map_err(|_| Denied::Busy)?;
        Ok(right && user.is_some())
    }

    /// Whose password a name that nobody has is compared with: always the same one's.
    fn decoy(&self, typed: &Typed) -> usize {
        let tag = hmac::sign(&self.key, typed.name());
        let number =
            tag.as_ref().iter().fold(0_usize, |number, octet| number.rotate_left(8) ^ usize::from(*octet));
        number % self.users.len().max(1)
    }

    fn tag(&self, typed: &Typed) -> Tag {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(&typed.colon.to_be_bytes());
        context.update(&typed.text);
        context.sign().as_ref().try_into().unwrap_or_default()
    }

    fn look(&self, tag: Tag) -> Look<'_> {
        let cell = Arc::clone(self.looks().entry(tag).or_default());
        Look { door: self, tag, cell }
    }

    fn looks(&self) -> MutexGuard<'_, HashMap<Tag, Arc<OnceCell<bool>>>> {
        // A thread that panicked while it held the map left it whole.
        self.looks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody's interest in a look. With the last one it is forgotten.
struct Look<'d> {
    door: &'d Door,
    tag: Tag,
    cell: Arc<OnceCell<bool>>,
}

impl Drop for Look<'_> {
    fn drop(&mut self) {
        let mut looks = self.door.looks();
        // The map's own, and this one.
        if Arc::strong_count(&self.cell) <= 2 {
            looks.remove(&self.tag);
        }
    }
}

/// A keyed hash of a name and a password.
type Tag = [u8; 32];

/// A name and a password as they were typed.
#[derive(Debug)]
struct Typed {
    text: Vec<u8>,
    /// Where the colon between them is.
    colon: usize,
}

impl Typed {
    /// Reads an Authorization field (RFC 7617 section 2).
    fn read(field: &[u8]) -> Option<Self> {
        let (scheme, token) = field.split_at_checked(6)?;
        if !scheme.eq_ignore_ascii_case(b"basic ") {
            return None;
        }
        let text = STANDARD.decode(token.trim_ascii()).ok()?;
        let colon = text.iter().position(|octet| *octet == b':')?;
        (text.len() - colon <= MAX_PASSWORD).then_some(Self { text, colon })
    }

    fn name(&self) -> &[u8] {
        self.text.get(..self.colon).unwrap_or_default()
    }

    fn password(&self) -> &[u8] {
        self.text.get(self.colon + 1..).unwrap_or_default()
    }
}

/// How many wrong passwords a client may say in a minute, or at once.
const WRONG: u64 = 10;
/// The longest password, in octets: what is longer only makes work.
const MAX_PASSWORD: usize = 512;
/// How many may wait for their turn, at all doors together.
static QUEUE: Semaphore = Semaphore::const_new(256);
/// How many hashes are looked at together, at all doors: half the cores, the rest is the workers'.
static DESKS: LazyLock<Semaphore> =
    LazyLock::new(|| Semaphore::new((available_parallelism().map_or(1, NonZero::get) / 2).max(1)));

#[cfg(test)]
mod tests {
    use super::*;

    const HASHES: [(&str, &str); 2] = [
        ("alice", "$2y$05$u2uIC2PRwXgPJWgvyaoGYuTRTsApaDS37F87GL4xJSO4pz3Yaip7m"),
        (
            "bob",
            "$6$rounds=1000$cipXdhlfjuC73LAt$RxboK3/CKcFqUJRQv4aw7mY6P4vQ53dLpIRi0gmjdA68PmHbJeVwNChTmJWcR/lszpfnlTWLTBn1PzjBk.6tw.",
        ),
    ];

    fn door() -> Door {
        let users = HASHES.map(|(name, hash)| (name.to_owned(), Stored::parse(hash).unwrap()));
        Door::new(&Auth { realm: "Staff".into(), file: "htpasswd".into(), users: users.into() })
    }

    fn client(last: u8) -> ClientAddr {
        ClientAddr::new([192, 0, 2, last].into())
    }

    fn field(text: &str) -> Vec<u8> {
        format!("Basic {}", STANDARD.encode(text)).into_bytes()
    }

    #[tokio::test]
    async fn the_right_ones_come_in_and_are_known_again() {
        let (door, now) = (door(), Instant::now());
        assert_eq!(door.challenge, "Basic realm=\"Staff\", charset=\"UTF-8\"");
        for (text, expected) in [
            ("alice:secret", Ok("alice")),
            ("bob:secret", Ok("bob")),
            ("alice:secret", Ok("alice")),
            ("alice:Secret", Err(Denied::Stranger)),
            ("alic:esecret", Err(Denied::Stranger)),
            ("carol:secret", Err(Denied::Stranger)),
            (":secret", Err(Denied::Stranger)),
            ("alice", Err(Denied::Stranger)),
        ] {
            assert_eq!(door.enter(client(1), Some(&field(text)), now).await, expected, "{text}");
        }
        let long = field(&format!("alice:{}", "s".repeat(MAX_PASSWORD)));
        for field in [&b"Bearer abc"[..], b"Basic", b"Basic ", b"Basic !", b"", &long] {
            assert_eq!(door.enter(client(1), Some(field), now).await, Err(Denied::Stranger));
        }
        assert_eq!(door.enter(client(1), None, now).await, Err(Denied::Stranger));
        let mixed = [b"bAsIc   ", STANDARD.encode("bob:secret").as_bytes()].concat();
        assert_eq!(door.enter(client(1), Some(&mixed), now).await, Ok("bob"));
        assert!(door.looks().is_empty());
    }

    #[tokio::test]
    async fn guessing_ends_and_holds_nobody_else_back() {
        let (door, now) = (door(), Instant::now());
        door.enter(client(1), Some(&field("alice:secret")), now).await.unwrap();
        for guess in 0..WRONG {
            let guess = field(&format!("bob:{guess}"));
            assert_eq!(door.enter(client(1), Some(&guess), now).await, Err(Denied::Stranger));
        }
        let right = field("bob:secret");
        assert_eq!(
            door.enter(client(1), Some(&right), now).await,
            Err(Denied::TooMany(Over(Duration::from_secs(6))))
        );
        assert_eq!(
            door.enter(client(1), Some(&field("alice:secret")), now).await,
            Ok("alice"),
            "behind one address"
        );
        assert_eq!(door.enter(client(2), Some(&right), now).await, Ok("bob"));
        assert_eq!(door.enter(client(1), Some(&right), now).await, Ok("bob"), "known by now");
    }

    #[tokio::test]
    async fn many_first_requests_are_one_look() {
        let (door, now) = (Arc::new(door()), Instant::now());
        let asked: Vec<_> = (0..50)
            .map(|_| {
                let door = Arc::clone(&door);
                tokio::spawn(async move {
                    door.enter(client(1), Some(&field("bob:secret")), now).await.map(str::to_owned)
                })
            })
            .collect();
        for asked in asked {
            assert_eq!(asked.await.unwrap().as_deref(), Ok("bob"));
        }
        assert!(door.looks().is_empty());
    }

    #[tokio::test]
    async fn whoever_leaves_leaves_nothing_behind() {
        let (door, now) = (door(), Instant::now());
        let right = field("bob:secret");
        let mut entering = Box::pin(door.enter(client(1), Some(&right), now));
        assert!(
            std::future::poll_fn(|cx| std::task::Poll::Ready(entering.as_mut().poll(cx).is_pending())).await
        );
        assert_eq!(door.looks().len(), 1);
        drop(entering);
        assert!(door.looks().is_empty());
        assert_eq!(door.enter(client(1), Some(&right), now).await, Ok("bob"));
    }
}

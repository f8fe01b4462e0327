//! Passwords as they are stored: hashed, in the forms that `htpasswd`, `openssl passwd` and `argon2` write.

use argon2::Argon2;
use argon2::password_hash::PasswordVerifier as _;
use argon2::password_hash::phc::PasswordHash;
use sha_crypt::{PasswordHashRef, ShaCrypt};

/// A stored password that can be compared with what somebody types.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Stored {
    scheme: Scheme,
    text: Box<str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Scheme {
    Bcrypt,
    Argon2,
    ShaCrypt,
}

/// Why a text is no stored password that anybody should trust.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadPassword {
    /// A form that was broken long ago, or holds the password itself.
    #[error("{0}")]
    Weak(&'static str),
    /// A form that is not known here.
    #[error("this form of hash is not known")]
    Unknown,
    /// It begins like one.
    #[error("this {0} hash is broken")]
    Broken(&'static str),
    /// Looking at it once would take seconds, or much memory.
    #[error("this {0} hash costs too much to look at: {1} at most")]
    Costly(&'static str, &'static str),
}

impl Stored {
    /// Reads a hash. `$2y$…` (and `$2a$`, `$2b$`) is bcrypt, `$argon2id$…` (and `i`, `d`) is argon2, `$6$…` and `$5$…` are
    /// SHA-512-crypt and SHA-256-crypt.
    ///
    /// # Errors
    /// It is none of these, broken, or too costly. The error never shows it.
    pub fn parse(text: &str) -> Result<Self, BadPassword> {
        let scheme = match text.strip_prefix('$').and_then(|rest| rest.split('$').next()) {
            Some("2y" | "2b" | "2a") => bcrypt(text).map(|()| Scheme::Bcrypt),
            Some("argon2id" | "argon2i" | "argon2d") => argon2(text).map(|()| Scheme::Argon2),
            Some("6" | "5") => sha_crypt(text).map(|()| Scheme::ShaCrypt),
            Some("apr1" | "1") => {
                Err(BadPassword::Weak("MD5 is guessed in no time, and is what htpasswd takes without -B"))
            }
            Some(_) => Err(BadPassword::Unknown),
            None if text.starts_with("{SHA}") || text.starts_with("{SSHA}") => {
                Err(BadPassword::Weak("SHA-1 is guessed in no time"))
            }
            None if text.is_empty() => Err(BadPassword::Weak("the password is empty")),
            None => Err(BadPassword::Weak("this is plain text, or DES, which is guessed in no time")),
        }?;
        Ok(Self { scheme, text: text.into() })
    }

    /// Whether this is the password. It takes a while, as it is to: call it where nobody waits. What it compares, it compares
    /// in constant time.
    pub fn is(&self, typed: &[u8]) -> bool {
        match self.scheme {
            Scheme::Bcrypt => ::bcrypt::verify(typed, &self.text).unwrap_or(false),
            Scheme::Argon2 => Argon2::default().verify_password(typed, &*self.text).is_ok(),
            Scheme::ShaCrypt => PasswordHashRef::new(&self.text)
                .is_ok_and(|hash| ShaCrypt::default().verify_password(typed, hash).is_ok()),
        }
    }
}

/// Hashes stay out of logs.
impl std::fmt::Debug for Stored {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Stored({:?})", self.scheme)
    }
}

/// About four seconds of a core.
const MAX_BCRYPT: u32 = 16;
/// The same, in passes over so many KiB.
const MAX_ARGON2: u64 = 8 * MAX_ARGON2_MEMORY as u64;
const MAX_ARGON2_MEMORY: u32 = 256 * 1024;
const MAX_ROUNDS: u32 = 5_000_000;

fn bcrypt(text: &str) -> Result<(), BadPassword> {
    let parts: ::bcrypt::HashParts = text.parse().map_err(|_| BadPassword::Broken("bcrypt"))?;
    match parts.get_cost() {
        0..4 => Err(BadPassword::Broken("bcrypt")),
        cost if cost > MAX_BCRYPT => Err(BadPassword::Costly("bcrypt", "a cost of 16")),
        _ => Ok(()),
    }
}

fn argon2(text: &str) -> Result<(), BadPassword> {
    let broken = |_| BadPassword::Broken("argon2");
    let hash = PasswordHash::new(text).map_err(broken)?;
    let params = argon2::Params::try_from(&hash).map_err(|_| BadPassword::Broken("argon2"))?;
    if hash.salt.is_none() || hash.hash.is_none() {
        return Err(BadPassword::Broken("argon2"));
    }
    let work = u64::from(params.m_cost()) * u64::from(params.t_cost());
    if params.m_cost() > MAX_ARGON2_MEMORY || work > MAX_ARGON2 {
        return Err(BadPassword::Costly("argon2", "256 MiB and 8 passes over as much"));
    }
    Ok(())
}

/// `$6$salt$hash`, or with `rounds=N$` before the salt.
fn sha_crypt(text: &str) -> Result<(), BadPassword> {
    let broken = Err(BadPassword::Broken("SHA-crypt"));
    let fields: Vec<&str> = text.split('$').skip(1).collect();
    let (id, rounds, salt, hash) = match fields.as_slice() {
        [id, salt, hash] => (*id, "5000", *salt, *hash),
        [id, rounds, salt, hash] => (*id, rounds.strip_prefix("rounds=").unwrap_or_default(), *salt, *hash),
        _ => return broken,
    };
    let is_code = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'/'));
    let length = if id == "6" { 86 } else { 43 };
    let Ok(rounds) = rounds.parse::<u32>() else { return broken };
    if salt.len() > 16 || hash.len() != length || !is_code(hash) || PasswordHashRef::new(text).is_err() {
        return broken;
    }
    match rounds {
        0..1000 => broken,
        rounds if rounds > MAX_ROUNDS => Err(BadPassword::Costly("SHA-crypt", "five million rounds")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the programs write them, for the password `secret`.
    const GOOD: [&str; 6] = [
        "$2y$05$u2uIC2PRwXgPJWgvyaoGYuTRTsApaDS37F87GL4xJSO4pz3Yaip7m",
        "$6$lYKrApOTtSqylrPg$iAeEMU/LhCKfF7iFogTQWkV3JPCKTU9sfyUf27xHfUzBf6ENSVdxcwlRFvc7oSR/.5qJkTxLvinGGJerxJiBL/",
        "$6$zqRPANsesFWUlxVT$eFRdsQgl5mCnBPuKE3aAoQvpoqTfPPBg8hiAsoHQ0F6z8nYfnJhKPp3w7pu9buzTjPz0wiicMYBPbwwzL6E21.",
        "$5$acF3MbOnfWg4iTxJ$YFFUEA0SMxCza/60PPTRUwnQBquoKoDxiWANkDviPS/",
        "$argon2id$v=19$m=4096,t=3,p=1$c2FsdHNhbHQ$OLeWCvLwvsLRPgRDUFsaPr4TPYfqZKBxQuyYI2VLP2w",
        "$6$rounds=1000$cipXdhlfjuC73LAt$RxboK3/CKcFqUJRQv4aw7mY6P4vQ53dLpIRi0gmjdA68PmHbJeVwNChTmJWcR/lszpfnlTWLTBn1PzjBk.6tw.",
    ];

    #[test]
    fn what_the_programs_write_is_read() {
        for text in GOOD {
            let stored = Stored::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert!(stored.is(b"secret"), "{text}");
            for wrong in [&b""[..], b"Secret", b"secret ", b"secret\0", &[b's'; 4096]] {
                assert!(!stored.is(wrong), "{text} {wrong:?}");
            }
            assert!(!format!("{stored:?}").contains('$'));
        }
    }

    #[test]
    fn what_nobody_should_trust_is_refused() {
        let long = "a".repeat(86);
        for (text, expected) in [
            ("secret", "this is plain text, or DES, which is guessed in no time"),
            ("rl.3StKT.4T8M", "this is plain text, or DES, which is guessed in no time"),
            ("", "the password is empty"),
            ("{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=", "SHA-1 is guessed in no time"),
            ("$apr1$x$y", "MD5 is guessed in no time, and is what htpasswd takes without -B"),
            ("$1$x$y", "MD5 is guessed in no time, and is what htpasswd takes without -B"),
            ("$y$j9T$x$y", "this form of hash is not known"),
            (
                "$2x$05$u2uIC2PRwXgPJWgvyaoGYuTRTsApaDS37F87GL4xJSO4pz3Yaip7m",
                "this form of hash is not known",
            ),
            ("$2y$05$short", "this bcrypt hash is broken"),
            ("$2y$03$u2uIC2PRwXgPJWgvyaoGYuTRTsApaDS37F87GL4xJSO4pz3Yaip7m", "this bcrypt hash is broken"),
            (
                "$2y$17$u2uIC2PRwXgPJWgvyaoGYuTRTsApaDS37F87GL4xJSO4pz3Yaip7m",
                "this bcrypt hash costs too much to look at: a cost of 16 at most",
            ),
            ("$6$salt$short", "this SHA-crypt hash is broken"),
            ("$6$salt", "this SHA-crypt hash is broken"),
            (&format!("$6$rounds=999$salt${long}"), "this SHA-crypt hash is broken"),
            (&format!("$6$round=5000$salt${long}"), "this SHA-crypt hash is broken"),
            (
                &format!("$6$rounds=5000001$salt${long}"),
                "this SHA-crypt hash costs too much to look at: five million rounds at most",
            ),
            ("$argon2id$v=19$m=4096,t=3,p=1$c2FsdHNhbHQ", "this argon2 hash is broken"),
            (
                "$argon2id$v=19$m=4194304,t=3,p=1$c2FsdHNhbHQ$OLeWCvLwvsLRPgRDUFsaPr4TPYfqZKBxQuyYI2VLP2w",
                "this argon2 hash costs too much to look at: 256 MiB and 8 passes over as much at most",
            ),
        ] {
            assert_eq!(Stored::parse(text).unwrap_err().to_string(), expected, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(tail in ".*") {
            for begin in ["", "$2y$", "$6$", "$argon2id$", "$6$rounds=5000$"] {
                let _ = Stored::parse(&format!("{begin}{tail}"));
            }
        }
    }
}

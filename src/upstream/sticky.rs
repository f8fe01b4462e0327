//! Cookies that bring a client back to the member that it was at.
//!
//! What a cookie says is a keyed hash of the member's address: nobody can make one up, and none tells where a member is.
//! The key is kept in the store, so that a restart scatters nobody.

use std::fmt;
use std::path::Path;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::tls::StoreError;
use crate::tls::record;

/// What a cookie calls a member.
pub type Token = [u8; TOKEN];

/// 128 bits in base64.
const TOKEN: usize = 22;
/// In octets.
const KEY: usize = 32;

/// The key that tokens are made with.
pub struct Key(hmac::Key);

impl Key {
    /// Opens the key of a store, and makes it where there is none. Fails when others may read it, or it is damaged.
    pub fn open(store: &Path) -> Result<Self, StoreError> {
        let path = store.join("sticky.key");
        record::private_dir(store)?;
        if record::read(&path)?.is_none() {
            let mut fresh = [0; KEY];
            getrandom::fill(&mut fresh).map_err(|error| {
                let source = std::io::Error::other(error);
                StoreError::Io { doing: "make", path: path.clone(), source }
            })?;
            record::create(&path, &fresh)?;
        }
        match record::read(&path)? {
            Some(key) if key.len() == KEY => Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, &key))),
            Some(key) => {
                let why = format!("{} octets, and a key has {KEY}", key.len());
                Err(StoreError::Corrupt { path, why })
            }
            None => Err(StoreError::Missing { path }),
        }
    }

    /// What the cookie of this name calls a member.
    pub(super) fn token(&self, cookie: &str, peer: &str) -> Token {
        let tag = hmac::sign(&self.0, format!("{cookie}\n{peer}").as_bytes());
        let mut token = [0; TOKEN];
        let half = tag.as_ref().get(..16).unwrap_or_default();
        let _ = URL_SAFE_NO_PAD.encode_slice(half, &mut token);
        token
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}

/// The token that a request's Cookie fields bring under a name; of several the first that has its form.
pub fn token<'h>(cookies: impl Iterator<Item = &'h [u8]>, name: &str) -> Option<Token> {
    cookies
        .flat_map(|field| field.split(|octet| *octet == b';'))
        .filter_map(|pair| pair.trim_ascii().strip_prefix(name.as_bytes())?.strip_prefix(b"="))
        .find_map(|value| value.try_into().ok())
}

/// The Set-Cookie field's value: for the browser's session, and for the edge alone.
pub(super) fn set_cookie(name: &str, token: &Token) -> Vec<u8> {
    let token = std::str::from_utf8(token).unwrap_or_default();
    format!("{name}={token}; Path=/; Secure; HttpOnly; SameSite=Lax").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_outlives_the_process_and_tokens_tell_nothing() {
        let store = tempfile::tempdir().unwrap();
        let key = || Key::open(&store.path().join("store")).unwrap();
        let token = key().token("__Host-vestibule", "10.0.0.5:8000");
        assert_eq!(token, key().token("__Host-vestibule", "10.0.0.5:8000"));
        assert_ne!(token, key().token("__Host-vestibule", "10.0.0.6:8000"));
        assert_ne!(token, key().token("__Host-vestibule-ws", "10.0.0.5:8000"));
        std::fs::write(store.path().join("store/sticky.key"), "short").unwrap();
        assert!(matches!(Key::open(&store.path().join("store")), Err(StoreError::Corrupt { .. })));
    }

    #[test]
    fn cookies_are_found_among_others() {
        const RIGHT: &str = "0123456789abcdefghijkl";
        for (fields, found) in [
            (vec![format!("a=b; v={RIGHT}; c=d")], true),
            (vec!["a=b".into(), format!("v={RIGHT}")], true),
            (vec![format!("v=short;v={RIGHT}")], true),
            (vec![format!("xv={RIGHT}"), format!("v={RIGHT}x"), "v".into(), String::new()], false),
        ] {
            let token = token(fields.iter().map(String::as_bytes), "v");
            assert_eq!(token.is_some(), found, "{fields:?}");
        }
    }
}

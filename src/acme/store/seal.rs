//! Private keys that only the holder of another key can read: AES-256-GCM.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use base64::Engine as _;
use base64::engine::GeneralPurpose;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};

/// The key's length in octets.
const KEY_LEN: usize = 32;
/// Every spelling of base64.
const SPELLINGS: [GeneralPurpose; 4] = [STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD];

/// Why bytes are no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a key of {KEY_LEN} bytes, raw, in hexadecimal or in base64; make one with: openssl rand -base64 {KEY_LEN}"
)]
pub struct KeyError;

/// What `[store] key` names, ready to seal and to open.
pub struct Seal(RandomizedNonceKey);

impl Seal {
    /// Reads a key: 32 bytes as they are, 64 hexadecimal digits, or base64. White space around the text is nothing.
    pub fn new(key: &[u8]) -> Result<Self, KeyError> {
        let octets = octets(key).ok_or(KeyError)?;
        RandomizedNonceKey::new(&AES_256_GCM, &octets).map(Self).map_err(|_| KeyError)
    }

    /// A text that opens with the same key and the same `place` alone. None when there is no randomness.
    pub(super) fn seal(&self, plain: &[u8], place: &str) -> Option<String> {
        let mut sealed = plain.to_vec();
        let nonce = self.0.seal_in_place_append_tag(Aad::from(place), &mut sealed).ok()?;
        Some(STANDARD.encode([nonce.as_ref().as_slice(), &sealed].concat()))
    }

    /// None for another key, another place, and for what was changed.
    pub(super) fn open(&self, sealed: &str, place: &str) -> Option<Vec<u8>> {
        let mut bytes = STANDARD.decode(sealed).ok()?;
        let (nonce, sealed) = bytes.split_first_chunk_mut::<NONCE_LEN>()?;
        let nonce = Nonce::assume_unique_for_key(*nonce);
        self.0.open_in_place(nonce, Aad::from(place), sealed).ok().map(|plain| plain.to_vec())
    }
}

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seal")
    }
}

fn octets(key: &[u8]) -> Option<Vec<u8>> {
    let is_text = key.iter().all(|octet| (b' '..=b'~').contains(octet) || octet.is_ascii_whitespace());
    if !is_text {
        return (key.len() == KEY_LEN).then(|| key.to_vec());
    }
    // A password of 32 letters is text too, and no key.
    let text = key.trim_ascii();
    let decoded =
        hexadecimal(text).or_else(|| SPELLINGS.iter().find_map(|spelling| spelling.decode(text).ok()));
    decoded.filter(|octets| octets.len() == KEY_LEN)
}

fn hexadecimal(text: &[u8]) -> Option<Vec<u8>> {
    if text.len() != 2 * KEY_LEN {
        return None;
    }
    let octet = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    text.chunks(2).map(octet).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_in_every_form() {
        let raw: Vec<u8> = (0..32).map(|octet: u8| octet | 0x80).collect();
        let hex = super::super::hex(&raw);
        let sealed = Seal::new(&raw).unwrap().seal(b"secret", "here").unwrap();
        for form in [
            raw.clone(),
            hex.clone().into_bytes(),
            format!("{}\n", hex.to_uppercase()).into_bytes(),
            format!(" {}\n", STANDARD.encode(&raw)).into_bytes(),
            URL_SAFE_NO_PAD.encode(&raw).into_bytes(),
        ] {
            assert_eq!(Seal::new(&form).unwrap().open(&sealed, "here").unwrap(), b"secret");
        }
        for wrong in [&b""[..], b"correct horse battery staple 123", &raw[1..], &hex.as_bytes()[2..], b"\n"] {
            assert_eq!(Seal::new(wrong).unwrap_err(), KeyError, "{wrong:?}");
        }
    }

    #[test]
    fn another_key_place_or_text_opens_nothing() {
        let seal = Seal::new(&[0x80; 32]).unwrap();
        let sealed = seal.seal(b"secret", "here").unwrap();
        assert_ne!(sealed, seal.seal(b"secret", "here").unwrap());
        assert_eq!(seal.open(&sealed, "there"), None);
        assert_eq!(Seal::new(&[0x81; 32]).unwrap().open(&sealed, "here"), None);
        for wrong in ["", "AAAA", "not base64", &sealed[4..]] {
            assert_eq!(seal.open(wrong, "here"), None);
        }
    }
}

//! A TSIG key (RFC 8945), as BIND's `tsig-keygen` writes it and as BIND and Knot read it.
//!
//! ```text
//! key "vestibule." {
//!     algorithm hmac-sha256;
//!     secret "…base64…";
//! };
//! ```

use base64::prelude::{BASE64_STANDARD, Engine};
use hickory_proto::rr::Name;
use hickory_proto::rr::TSigner;
use hickory_proto::rr::rdata::tsig::TsigAlgorithm;

/// How far two clocks may be apart, in seconds (RFC 8945 section 10).
const FUDGE: u16 = 300;
const FORM: &str = "write the file with `tsig-keygen NAME`, which says: key \"NAME\" { algorithm hmac-sha256; secret \"…\"; };";

/// Reads a key's file. The error says what to do, and never shows the secret.
pub(super) fn read(text: &[u8]) -> Result<TSigner, String> {
    let text = std::str::from_utf8(text).map_err(|_| format!("the TSIG key is not text; {FORM}"))?;
    let words = words(text);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (name, body) = match words.as_slice() {
        ["key", name, "{", body @ .., "}", ";"] | ["key", name, "{", body @ .., "}"] => (*name, body),
        _ => return Err(format!("this is not a TSIG key; {FORM}")),
    };
    if body.contains(&"key") {
        return Err("there are several keys in the file, and one is wanted".to_owned());
    }
    let entry = |wanted: &str| {
        let found = body.split(|word| *word == ";").find(|entry| entry.first() == Some(&wanted));
        match found {
            Some([_, value]) => Ok(*value),
            _ => Err(format!("the TSIG key has no `{wanted}`; {FORM}")),
        }
    };
    let algorithm = algorithm(entry("algorithm")?)?;
    let secret = BASE64_STANDARD
        .decode(entry("secret")?)
        .map_err(|_| format!("the TSIG key's secret is not base64; {FORM}"))?;
    let name = Name::from_ascii(name).map_err(|error| format!("the TSIG key's name: {error}"))?;
    TSigner::new(secret, algorithm, name, FUDGE).map_err(|error| error.to_string())
}

/// MD5 must not be used any more and SHA-1 should not (RFC 8945 section 6).
fn algorithm(name: &str) -> Result<TsigAlgorithm, String> {
    match name.to_ascii_lowercase().trim_end_matches('.') {
        "hmac-sha256" => Ok(TsigAlgorithm::HmacSha256),
        "hmac-sha384" => Ok(TsigAlgorithm::HmacSha384),
        "hmac-sha512" => Ok(TsigAlgorithm::HmacSha512),
        _ => Err(format!(
            "the TSIG key's algorithm {name:?} is not one of hmac-sha256, hmac-sha384, hmac-sha512; make a key with `tsig-keygen -a hmac-sha256 NAME`"
        )),
    }
}

/// Words, quoted ones without their quotes, and the signs `{`, `}` and `;`; without comments of any of BIND's three kinds.
fn words(text: &str) -> Vec<String> {
    let (mut words, mut rest) = (Vec::new(), text.trim_start());
    while let Some(first) = rest.chars().next() {
        let cut = |end: &str| rest.split_once(end).map_or("", |(_, behind)| behind);
        rest = if rest.starts_with("//") || first == '#' {
            cut("\n")
        } else if rest.starts_with("/*") {
            cut("*/")
        } else if let Some(quoted) = rest.strip_prefix('"') {
            let (word, behind) = quoted.split_once('"').unwrap_or((quoted, ""));
            words.push(word.to_owned());
            behind
        } else {
            let sign = |c: char| matches!(c, '{' | '}' | ';');
            let end = rest.find(|c: char| c.is_whitespace() || sign(c) || c == '"').unwrap_or(rest.len());
            let (word, behind) = rest.split_at(if sign(first) { 1 } else { end });
            words.push(word.to_owned());
            behind
        }
        .trim_start();
    }
    words
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECRET: &str = "c2VjcmV0IHNlY3JldCBzZWNyZXQgc2VjcmV0IDEyMzQ=";

    #[test]
    fn keys_are_read_as_bind_writes_them() {
        for (text, name, algorithm) in [
            (
                format!("key \"vestibule\" {{\n\talgorithm hmac-sha256;\n\tsecret \"{SECRET}\";\n}};\n"),
                "vestibule.",
                TsigAlgorithm::HmacSha256,
            ),
            (
                format!(
                    "# made by hand\n/* twice */key a.b. {{secret {SECRET};algorithm HMAC-SHA512;}}; // so"
                ),
                "a.b.",
                TsigAlgorithm::HmacSha512,
            ),
        ] {
            let key = read(text.as_bytes()).unwrap();
            assert_eq!((key.signer_name().to_ascii().as_str(), key.algorithm()), (name, &algorithm));
            assert_eq!(key.key(), b"secret secret secret secret 1234");
        }
    }

    #[test]
    fn what_is_no_key_is_told_without_its_secret() {
        let with = |algorithm: &str, secret: &str| {
            format!("key \"k\" {{ algorithm {algorithm}; secret \"{secret}\"; }};")
        };
        let good = with("hmac-sha256", SECRET);
        for (text, expected) in [
            (String::new(), "this is not a TSIG key; write the file with `tsig-keygen NAME`"),
            (SECRET.to_owned(), "this is not a TSIG key"),
            (with("hmac-md5", SECRET), "is not one of hmac-sha256"),
            (with("hmac-sha256", "hunter2!"), "the TSIG key's secret is not base64"),
            ("key \"k\" { secret \"x\"; };".to_owned(), "has no `algorithm`"),
            ("key \"k\" { algorithm hmac-sha256; };".to_owned(), "has no `secret`"),
            (good.repeat(2), "several keys"),
            (good.replace("\"k\"", "\"..\""), "the TSIG key's name"),
        ] {
            let error = read(text.as_bytes()).err().unwrap();
            assert!(error.contains(expected), "{text}: {error}");
            assert!(!error.contains(SECRET) && !error.contains("hunter2"), "{error}");
        }
        assert!(read(&[0xff]).is_err());
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(key|[ \"{};/*#a=]|\\PC){0,40}") {
            let _ = read(text.as_bytes());
        }
    }
}

//! Bytes from outside, made harmless for each form of line: no line, field or terminal command can be forged.

/// The most of one field that is written, in octets; a longer one ends in `…`.
pub(super) const FIELD: usize = 4096;

/// Appends text as the inside of a JSON string. What is not UTF-8 becomes U+FFFD; control and direction
/// characters, which could lie to a reader, are written as escapes.
pub(super) fn json(out: &mut Vec<u8>, text: &[u8]) {
    let (text, cut) = limited(text);
    escaped(out, text, |byte| is_plain(byte) || byte == b' ', json_other);
    if cut {
        out.extend_from_slice("…".as_bytes());
    }
}

/// Appends text as the inside of a quoted field of the combined format: `"`, `\` and all that is not printable
/// ASCII as `\xHH`.
pub(super) fn quoted(out: &mut Vec<u8>, text: &[u8]) {
    hexed(out, text, |byte| is_plain(byte) || byte == b' ');
}

/// Appends text as one word: as [`quoted`], and a space is escaped too.
pub(super) fn word(out: &mut Vec<u8>, text: &[u8]) {
    hexed(out, text, is_plain);
}

fn hexed(out: &mut Vec<u8>, text: &[u8], plain: impl Fn(u8) -> bool) {
    let (text, cut) = limited(text);
    escaped(out, text, plain, |out, rest| {
        if let Some(&byte) = rest.first() {
            out.extend_from_slice(b"\\x");
            hex(out, u32::from(byte), 2);
        }
        1
    });
    if cut {
        out.extend_from_slice(b"...");
    }
}

/// Copies runs of plain bytes; `other` writes what stands at the head of its argument, and says how many bytes
/// that was.
fn escaped(
    out: &mut Vec<u8>,
    mut text: &[u8],
    plain: impl Fn(u8) -> bool,
    other: impl Fn(&mut Vec<u8>, &[u8]) -> usize,
) {
    // Most text is plain to its end; without a way out in the middle, the compiler looks at sixteen octets at once.
    if text.iter().fold(true, |all, byte| all & plain(*byte)) {
        out.extend_from_slice(text);
        return;
    }
    while !text.is_empty() {
        let run = text.iter().position(|byte| !plain(*byte)).unwrap_or(text.len());
        let (plain_bytes, rest) = text.split_at(run);
        out.extend_from_slice(plain_bytes);
        if rest.is_empty() {
            return;
        }
        text = rest.get(other(out, rest)..).unwrap_or_default();
    }
}

/// Printable ASCII but the quote and the backslash.
fn is_plain(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~') && byte != b'"' && byte != b'\\'
}

fn json_other(out: &mut Vec<u8>, rest: &[u8]) -> usize {
    let Some(character) = first_char(rest) else {
        out.extend_from_slice("\u{fffd}".as_bytes());
        return broken_len(rest);
    };
    match character {
        '"' => out.extend_from_slice(b"\\\""),
        '\\' => out.extend_from_slice(b"\\\\"),
        '\n' => out.extend_from_slice(b"\\n"),
        '\r' => out.extend_from_slice(b"\\r"),
        '\t' => out.extend_from_slice(b"\\t"),
        _ if misleads(character) => {
            out.extend_from_slice(b"\\u");
            hex(out, character.into(), 4);
        }
        _ => out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
    }
    character.len_utf8()
}

/// Controls, line and paragraph separators, and the marks that turn the direction of text; all in the Basic
/// Multilingual Plane, so that one `\u` escape holds each.
fn misleads(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The character at the head, if it is whole and valid there.
fn first_char(bytes: &[u8]) -> Option<char> {
    let chunk = head(bytes).utf8_chunks().next()?;
    chunk.valid().chars().next()
}

/// How many bytes at the head make one invalid sequence: 1 to 3.
fn broken_len(bytes: &[u8]) -> usize {
    head(bytes).utf8_chunks().next().map_or(1, |chunk| chunk.invalid().len().max(1))
}

/// As much as one character can take.
fn head(bytes: &[u8]) -> &[u8] {
    bytes.get(..4).unwrap_or(bytes)
}

fn limited(text: &[u8]) -> (&[u8], bool) {
    text.get(..FIELD).map_or((text, false), |start| (start, text.len() > FIELD))
}

fn hex(out: &mut Vec<u8>, value: u32, digits: u32) {
    for digit in (0..digits).rev() {
        let nibble = (value >> (4 * digit)) & 0xf;
        out.extend(char::from_digit(nibble, 16).map(|digit| digit as u8));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(escape: fn(&mut Vec<u8>, &[u8]), text: &[u8]) -> String {
        let mut out = Vec::new();
        escape(&mut out, text);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn each_form_escapes_what_it_must() {
        for (text, as_json, as_quoted, as_word) in [
            (&b""[..], "", "", ""),
            (b"/a?b=c&d", "/a?b=c&d", "/a?b=c&d", "/a?b=c&d"),
            (b"a b", "a b", "a b", "a\\x20b"),
            (b"\"\\", "\\\"\\\\", "\\x22\\x5c", "\\x22\\x5c"),
            (b"a\r\nb\t", "a\\r\\nb\\t", "a\\x0d\\x0ab\\x09", "a\\x0d\\x0ab\\x09"),
            (b"\x00\x1b\x7f", "\\u0000\\u001b\\u007f", "\\x00\\x1b\\x7f", "\\x00\\x1b\\x7f"),
            ("ü€".as_bytes(), "ü€", "\\xc3\\xbc\\xe2\\x82\\xac", "\\xc3\\xbc\\xe2\\x82\\xac"),
            ("😀".as_bytes(), "😀", "\\xf0\\x9f\\x98\\x80", "\\xf0\\x9f\\x98\\x80"),
            (
                "\u{85}\u{202e}".as_bytes(),
                "\\u0085\\u202e",
                "\\xc2\\x85\\xe2\\x80\\xae",
                "\\xc2\\x85\\xe2\\x80\\xae",
            ),
            (b"a\xffb", "a\u{fffd}b", "a\\xffb", "a\\xffb"),
            (b"\xe2\x82", "\u{fffd}", "\\xe2\\x82", "\\xe2\\x82"),
        ] {
            assert_eq!(run(json, text), as_json, "{text:?}");
            assert_eq!(run(quoted, text), as_quoted, "{text:?}");
            assert_eq!(run(word, text), as_word, "{text:?}");
        }
    }

    #[test]
    fn long_fields_are_cut() {
        assert_eq!(run(json, &[b'a'; FIELD]), "a".repeat(FIELD));
        assert_eq!(run(json, &[b'a'; FIELD + 1]), "a".repeat(FIELD) + "…");
        assert_eq!(run(word, &[b'a'; FIELD + 1]), "a".repeat(FIELD) + "...");
    }

    proptest! {
        #[test]
        fn json_reads_back(text in any::<Vec<u8>>()) {
            let read: String = serde_json::from_str(&format!("\"{}\"", run(json, &text))).unwrap();
            prop_assert_eq!(read, String::from_utf8_lossy(&text));
        }

        #[test]
        fn the_others_are_printable(text in any::<Vec<u8>>()) {
            prop_assert!(run(quoted, &text).bytes().all(|b| is_plain(b) || b == b' ' || b == b'\\'));
            prop_assert!(run(word, &text).bytes().all(|b| is_plain(b) || b == b'\\'));
        }
    }
}

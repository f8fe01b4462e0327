//! Which octets may stand where.

/// Whether every byte is a token character, and there is at least one (RFC 9110 section 5.6.2).
pub fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|b| TCHARS.get(usize::from(*b)) == Some(&true))
}

/// Whether a request target has only characters that it may have.
pub fn is_target(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().fold(true, |all, b| all & is_target_octet(*b))
}

/// Whether a field value has only what it may: no control character but the tab (RFC 9110 section 5.5).
pub fn is_value(text: &[u8]) -> bool {
    // Without a way out in the middle, the compiler looks at sixteen octets at once.
    text.iter().fold(true, |all, b| all & is_value_octet(*b))
}

/// `tchar` of RFC 9110 section 5.6.2.
const fn is_tchar(b: u8) -> bool {
    matches!(b, b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~')
}

/// What a field value may hold: visible ASCII, space, tab, and `obs-text`.
fn is_value_octet(b: u8) -> bool {
    matches!(b, b'\t' | b' '..=b'~' | 0x80..)
}

/// RFC 3986's characters, and those that browsers send all the same (`"`, `<`, `>`, `\`, `^`, `` ` ``, `{`, `|`,
/// `}`): no space, no control character, no fragment, nothing above ASCII.
fn is_target_octet(b: u8) -> bool {
    matches!(b, b'!'..=b'~') && b != b'#'
}

/// [`is_tchar`] of every octet.
#[expect(clippy::indexing_slicing, reason = "evaluated at compile time, where a panic is a build that fails")]
const TCHARS: [bool; 256] = {
    let mut chars = [false; 256];
    let mut b = u8::MAX;
    while b > 0 {
        chars[b as usize] = is_tchar(b);
        b -= 1;
    }
    chars
};

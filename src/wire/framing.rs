//! How long a message's body is (RFC 9112 section 6), and nothing ambiguous.

use http::{Method, StatusCode};

use super::head::{Head, Version, members};
use super::known::Known;
use crate::fault::Fault;

/// How a body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    None,
    /// After so many octets; never 0 for a request.
    Length(u64),
    /// With the last chunk.
    Chunked,
    /// With the connection: responses only.
    Close,
}

/// A request's framing. Both lengths, a repeated or signed Content-Length, and any transfer coding but one
/// `chunked` are refused (RFC 9112 section 6.3 allows to repair some of them; a repaired request is one that two programs
/// read in two ways).
pub fn of_request(head: &Head, version: Version) -> Result<Framing, Fault> {
    let coding = head
        .single(Known::TransferEncoding)
        .map_err(|_| Fault::BadRequest("Transfer-Encoding stands more than once"))?;
    let length = content_length(head).map_err(Fault::BadRequest)?;
    match (coding, length) {
        (Some(_), Some(_)) => Err(Fault::BadRequest("both Transfer-Encoding and Content-Length")),
        (Some(_), None) if version == Version::Http10 => {
            Err(Fault::BadRequest("Transfer-Encoding in an HTTP/1.0 request"))
        }
        (Some(coding), None) if coding.eq_ignore_ascii_case(b"chunked") => Ok(Framing::Chunked),
        (Some(coding), None) => Err(other_coding(coding)),
        (None, Some(0) | None) => Ok(Framing::None),
        (None, Some(length)) => Ok(Framing::Length(length)),
    }
}

/// A response's framing (RFC 9112 section 6.3), as strict as a request's.
pub fn of_response(
    head: &Head,
    version: Version,
    status: StatusCode,
    method: &Method,
) -> Result<Framing, Fault> {
    let broken = |reason| Fault::UpstreamBroken { reason, source: None };
    let coding = head
        .single(Known::TransferEncoding)
        .map_err(|_| broken("Transfer-Encoding stands more than once"))?;
    let length = content_length(head).map_err(broken)?;
    if coding.is_some() && length.is_some() {
        return Err(broken("both Transfer-Encoding and Content-Length"));
    }
    if method == Method::HEAD || status.is_informational() || matches!(status.as_u16(), 204 | 304) {
        return Ok(Framing::None);
    }
    match (coding, length) {
        (Some(coding), _) if coding.eq_ignore_ascii_case(b"chunked") && version == Version::Http11 => {
            Ok(Framing::Chunked)
        }
        (Some(_), _) => Err(broken("a transfer coding that is not chunked")),
        (None, Some(0)) => Ok(Framing::None),
        (None, Some(length)) => Ok(Framing::Length(length)),
        (None, None) => Ok(Framing::Close),
    }
}

/// The one Content-Length, as digits alone.
pub fn content_length(head: &Head) -> Result<Option<u64>, &'static str> {
    head.single(Known::ContentLength)
        .map_err(|_| "Content-Length stands more than once")?
        .map(|value| digits(value).ok_or("Content-Length is not a number"))
        .transpose()
}

/// A decimal number of 1 to 18 digits, with no sign and no space.
pub fn digits(text: &[u8]) -> Option<u64> {
    let plain = !text.is_empty() && text.len() <= 18 && text.iter().all(u8::is_ascii_digit);
    plain.then(|| text.iter().fold(0, |n, digit| n * 10 + u64::from(digit - b'0')))
}

/// `gzip, chunked` is HTTP that is not implemented here; a list that does not end in one `chunked` is no HTTP.
fn other_coding(value: &[u8]) -> Fault {
    let chunked = members(value).filter(|coding| coding.eq_ignore_ascii_case(b"chunked")).count();
    let last = members(value).last().is_some_and(|coding| coding.eq_ignore_ascii_case(b"chunked"));
    if last && chunked == 1 && value.iter().all(|b| b.is_ascii_graphic() || *b == b' ') {
        Fault::TransferCoding
    } else {
        Fault::BadRequest("the transfer coding is not chunked")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(lines: &str) -> Result<Framing, u16> {
        let mut head = Head::default();
        let text = format!("POST / HTTP/1.1\r\n{lines}\r\n");
        let line = head.parse_request(text.as_bytes()).map_err(|_| 0u16)?;
        of_request(&head, line.version).map_err(|fault| fault.status().as_u16())
    }

    #[test]
    fn one_length_or_one_chunked() {
        for (lines, expected) in [
            ("", Ok(Framing::None)),
            ("Content-Length: 0\r\n", Ok(Framing::None)),
            ("Content-Length: 10\r\n", Ok(Framing::Length(10))),
            ("content-length: 010\r\n", Ok(Framing::Length(10))),
            ("Transfer-Encoding: Chunked\r\n", Ok(Framing::Chunked)),
            ("Content-Length: +1\r\n", Err(400)),
            ("Content-Length: -1\r\n", Err(400)),
            ("Content-Length: 1 1\r\n", Err(400)),
            ("Content-Length: 1,1\r\n", Err(400)),
            ("Content-Length: 0x1\r\n", Err(400)),
            ("Content-Length:\r\n", Err(400)),
            ("Content-Length: 1\r\nContent-Length: 1\r\n", Err(400)),
            ("Content-Length: 99999999999999999999\r\n", Err(400)),
            ("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", Err(400)),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", Err(400)),
            ("Transfer-Encoding: chunked, chunked\r\n", Err(400)),
            ("Transfer-Encoding: chunked, identity\r\n", Err(400)),
            ("Transfer-Encoding: xchunked\r\n", Err(400)),
            ("Transfer-Encoding: \"chunked\"\r\n", Err(400)),
            ("Transfer-Encoding:\r\n", Err(400)),
            ("Transfer-Encoding: gzip, chunked\r\n", Err(501)),
        ] {
            assert_eq!(request(lines), expected, "{lines:?}");
        }
    }
}

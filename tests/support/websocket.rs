//! Just enough of RFC 6455 to talk: frames, over any transport.

/// The handshake's fields over HTTP/1.1, without the request line, Host and the end.
pub(crate) const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// The answer to that key (RFC 6455 section 1.3).
pub(crate) const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// A client's text frame, masked as it must be.
pub(crate) fn text_frame(text: &str) -> Vec<u8> {
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    let mut frame = vec![0x81];
    match u16::try_from(text.len()).expect("a short text") {
        length @ 0..126 => frame.push(0x80 | u8::try_from(length).unwrap()),
        length => {
            frame.push(0xfe);
            frame.extend(length.to_be_bytes());
        }
    }
    frame.extend(mask);
    frame.extend(text.bytes().zip(mask.into_iter().cycle()).map(|(octet, key)| octet ^ key));
    frame
}

/// The payload of the first whole frame, and how many octets it took; None while it is not whole.
pub(crate) fn parse_frame(bytes: &[u8]) -> Option<(String, usize)> {
    let (length, start) = match bytes.get(1)? & 0x7f {
        126 => (usize::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?])), 4),
        length => (usize::from(length), 2),
    };
    let payload = bytes.get(start..start + length)?;
    Some((String::from_utf8_lossy(payload).into_owned(), start + length))
}

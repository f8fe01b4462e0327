//! Heads: whatever is accepted is rendered and read again to the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vestibule::wire::head::{Head, Scanner};

fuzz_target!(|bytes: &[u8]| {
    let mut head = Head::default();
    let _ = head.parse_response(bytes);
    let _ = head.parse_trailers(bytes);
    let Ok(Some(end)) = Scanner::default().find_end(bytes) else { return };
    let Ok(line) = head.parse_request(&bytes[..end]) else { return };
    let mut again = format!("{} ", line.method).into_bytes();
    again.extend_from_slice(head.slice(line.target));
    again.extend_from_slice(b" HTTP/1.1\r\n");
    for field in head.fields() {
        again.extend_from_slice(&[field.name, b": ", field.value, b"\r\n"].concat());
    }
    again.extend_from_slice(b"\r\n");
    let mut second = Head::default();
    second.parse_request(&again).expect("what was read can be written and read again");
    assert!(head.fields().map(|f| (f.name, f.value)).eq(second.fields().map(|f| (f.name, f.value))));
});

//! Chunked bodies: however the bytes are cut, the data is the same.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use vestibule::wire::chunked::{Decoded, Decoder};

fuzz_target!(|bytes: &[u8]| {
    assert_eq!(decode(bytes, bytes.len().max(1)), decode(bytes, 1));
});

/// The data, and whether the body ended, needs more (None), or is wrong.
fn decode(bytes: &[u8], step: usize) -> (Vec<u8>, Option<bool>) {
    let (mut decoder, mut buffer, mut data) = (Decoder::default(), BytesMut::new(), Vec::new());
    let mut pieces = bytes.chunks(step);
    loop {
        match decoder.decode(&mut buffer) {
            Ok(Decoded::Data(more)) => data.extend_from_slice(&more),
            Ok(Decoded::End(_)) => return (data, Some(true)),
            Ok(Decoded::More) => match pieces.next() {
                Some(piece) => buffer.extend_from_slice(piece),
                None => return (data, None),
            },
            Err(_) => return (data, Some(false)),
        }
    }
}

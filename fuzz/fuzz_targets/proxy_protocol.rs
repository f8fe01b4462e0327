//! PROXY headers: a whole one is within the bytes, and none is said to be longer than it may be.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vestibule::net::proxy_protocol::{Parsed, parse};

fuzz_target!(|bytes: &[u8]| match parse(bytes) {
    Ok(Parsed::Whole(_, length)) => assert!(length <= bytes.len()),
    Ok(Parsed::Missing(missing)) => assert!(missing > 0),
    Err(_) => {}
});

//! Paths: what is normal stays as it is, and has nothing that could be resolved once more.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vestibule::route::normalize;

fuzz_target!(|bytes: &[u8]| {
    let Ok(path) = normalize(bytes) else { return };
    assert!(!path.windows(2).any(|pair| pair == b"//"));
    assert!(!path.split(|b| *b == b'/').any(|segment| segment == b"." || segment == b".."));
});

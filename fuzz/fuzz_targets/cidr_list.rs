//! Lists of networks: any text is read, or refused line by line.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Err(problems) = vestibule::addr::parse_list(text) {
        assert!(!problems.is_empty());
    }
});

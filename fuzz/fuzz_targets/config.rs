//! Configurations: any text is read, or refused with a text.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Err(problems) = vestibule::config::parse(text.to_owned(), "fuzz.toml".as_ref()) {
        assert!(!problems.to_string().is_empty());
    }
});

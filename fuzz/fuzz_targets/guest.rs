//! What the guest's agent reads of what the host says, and of what an agent before it has stored: whatever it is, it is
//! understood or refused. The first byte says which of the three it is.

#![no_main]

use libfuzzer_sys::fuzz_target;
use vmint_guest::decoders::{open, record, request};

fuzz_target!(|bytes: &[u8]| {
    if let Some((kind, text)) = bytes.split_first() {
        let _understood = match kind % 3 {
            0 => request(text),
            1 => open(text),
            _ => record(text),
        };
    }
});

//! `helper prepare`: the last thing that runs in a template before it is saved.
//!
//! - It waits until the kernel's random generator is seeded: a generator that is not ready in the template does not
//!   reseed itself in the clones, and they would all draw the same numbers.
//! - It sets the kernel log's mark, so that a clone that looks for the kernel's reseed sees newer records only.
//! - It opens what the clone will need, for a caller that lives on.
//! - It writes out what is dirty and says what the clock shows.

use crate::failure::{Doing, Failure};
use crate::identity::Sources;
use crate::{EXIT_DONE, EXIT_FAILED, json, sys};

pub(crate) fn main() -> u8 {
    match prepare(&mut Sources::default()) {
        Ok(line) => {
            println!("{line}");
            EXIT_DONE
        }
        Err(failure) => {
            println!(
                "{}",
                json::Object::new()
                    .string("error", &failure.to_string())
                    .end()
            );
            EXIT_FAILED
        }
    }
}

pub(crate) fn prepare(sources: &mut Sources) -> Result<String, Failure> {
    // Blocks until the generator is ready, which the kernel promises for every machine within seconds.
    sys::random_bytes(&mut [0u8; 16])
        .doing(|| "wait for the kernel's random generator".to_owned())?;
    sys::clear_kernel_log_mark().doing(|| "set the kernel log's mark".to_owned())?;
    sources.open()?;
    sys::sync();
    let now_ns = sys::clock_realtime_ns().doing(|| "read the clock".to_owned())?;
    Ok(json::Object::new()
        .number("clock_realtime_ns", now_ns)
        .end())
}

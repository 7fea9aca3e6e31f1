//! `helper identity`: makes a fresh clone a machine of its own, and proves it.
//!
//! Clones of one template start as the same machine to the last bit. The order here is what makes them differ:
//!
//! 1. the clock is stepped;
//! 2. the kernel's own reseed after the restore (vmgenid) is seen in its log;
//! 3. the host's entropy is added on top and the generator reseeded with it;
//! 4. hostname and machine-id are set;
//! 5. only then is anything drawn from the generator, and everything is *read back*, never echoed.
//!
//! One line of JSON on stdout, whatever happens; after the first failure nothing further is done.

mod names;
mod report;
mod request;
mod reseed;
mod sources;

use std::io::{self, Read as _};

pub(crate) use names::set_hostname;
pub(crate) use request::{Identity, Wrong};
pub(crate) use sources::Sources;

use crate::failure::{Doing, Failure};
use crate::{EXIT_DONE, EXIT_FAILED, json, sys};

/// Far above any real request, so that a wrong caller cannot fill the guest's memory.
const REQUEST_MAX_BYTES: u64 = 64 * 1024;

pub(crate) fn main() -> u8 {
    match from_stdin() {
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

fn from_stdin() -> Result<String, Failure> {
    let mut text = String::new();
    io::stdin()
        .take(REQUEST_MAX_BYTES)
        .read_to_string(&mut text)
        .doing(|| "read the request".to_owned())?;
    let wanted = request::parse(&text)
        .map_err(|wrong| Failure::judged("understand the request", wrong.to_string()))?;
    renew(&wanted, &mut Sources::default())
}

/// Takes on the identity, and says in JSON what the clone is now.
pub(crate) fn renew(wanted: &Identity, sources: &mut Sources) -> Result<String, Failure> {
    if wanted.clock_step_ns != 0 {
        sys::step_clock_realtime(wanted.clock_step_ns)
            .doing(|| format!("step the clock by {} ns", wanted.clock_step_ns))?;
    }
    let reseeded = match wanted.expect_reseed {
        true => sources.log()?.wait_for_reseed(wanted.reseed_wait)?,
        false => sources.log()?.has_reseed()?,
    };
    if !wanted.entropy.is_empty() {
        reseed::add_host_entropy(sources.urandom()?, &wanted.entropy)?;
    }
    if let Some(name) = &wanted.hostname {
        names::set_hostname(name)?;
    }
    if let Some(id) = &wanted.machine_id {
        names::set_machine_id(id)?;
    }
    report::read_back(reseeded, sources)
}

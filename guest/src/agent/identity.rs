//! `identity`: the arguments.

use std::time::Duration;

use super::refusal::Refusal;
use super::request::Request;
use crate::base64;
use crate::identity::{self, Identity, Sources};
use crate::json::{Reader, Wrong};

pub(super) fn renew(request: &Request<'_>, sources: &mut Sources) -> Result<String, Refusal> {
    let mut wanted = Identity::default();
    let mut wrong = Ok(());
    request.arguments(&mut |key, value| {
        let taken = match key {
            "hostname" => wanted.set_hostname(&value.string()?),
            "machine_id" => wanted.set_machine_id(&value.string()?),
            "entropy" => wanted.set_entropy(base64::decode(&value.string()?)),
            _ => return take_plain(&mut wanted, key, value),
        };
        if wrong.is_ok() {
            wrong = taken;
        }
        Ok(())
    })?;
    wrong?;
    Ok(identity::renew(&wanted, sources)?)
}

fn take_plain(wanted: &mut Identity, key: &str, value: &mut Reader<'_>) -> Result<(), Wrong> {
    match key {
        "clock_step_ns" => wanted.clock_step_ns = value.integer()?,
        "expect_reseed" => wanted.expect_reseed = value.boolean()?,
        "reseed_wait_ms" => wanted.reseed_wait = Duration::from_millis(value.unsigned()?),
        _ => return Err(value.unknown(key)),
    }
    Ok(())
}

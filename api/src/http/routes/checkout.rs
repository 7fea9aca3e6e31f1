//! The body of a checkout, and what it comes to.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;
use vmint_cache::{Binding, Caller, CheckoutRequest, OnEmpty, UnknownTemplate};
use vmint_factory::MAX_DEVICES;

use super::binding::{FileBody, Files, check_files, check_hostname};
use super::devices::{DiskBody, NicBody, device_order};
use super::variables::{SandboxEnv, check_sandbox_env};
use crate::http::body::Payload;
use crate::http::bounded::{List, Strings};
use crate::http::limits::{
    CHECKOUT_BODY_MAX_BYTES, METADATA_MAX_BYTES, METADATA_MAX_ENTRIES, TTL_MAX, WAIT_DEFAULT,
    WAIT_MAX,
};
use crate::http::problem::Problem;
use crate::http::service::Service;

/// The template of a checkout that names none.
const DEFAULT_TEMPLATE: &str = "default";

/// A field that is null is as good as one that is not there.
pub(super) fn null_is_absent<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// What is asked for. Every field is optional.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Checkout)]
pub(in crate::http) struct CheckoutBody {
    /// The template; `default` when absent.
    #[schema(example = "default")]
    template: Option<String>,
    /// Virtual CPUs at least: what is above the template's is plugged in, up to its `max_vcpus`. The answer says how
    /// many there are.
    #[schema(example = 1, minimum = 1)]
    vcpus: Option<u32>,
    /// Memory at least, MiB: what is above the template's is plugged in, in steps of 128 MiB, up to its `max_memory`.
    /// The answer says how much there is.
    #[schema(example = 256, minimum = 1)]
    memory_mib: Option<u64>,
    /// The lease, seconds, fractions too; the pool's default when absent; 0 = until released, where the service has no longest lease.
    #[schema(example = 300, minimum = 0)]
    ttl_s: Option<f64>,
    /// How long to wait for a sandbox, milliseconds; 5000 when absent.
    #[schema(example = 5000, minimum = 0)]
    wait_ms: Option<f64>,
    /// What to do when none is ready.
    #[serde(default, deserialize_with = "null_is_absent")]
    #[schema(nullable)]
    on_empty: OnEmptyBody,
    /// A name for the guest: labels of letters, digits and inner dashes, with dots between them, at most 64 bytes.
    #[schema(example = "job-17")]
    hostname: Option<String>,
    /// Kept with the sandbox and shown with it.
    #[serde(default)]
    #[schema(nullable, value_type = BTreeMap<String, String>, example = json!({"k": "v"}))]
    metadata: Strings<METADATA_MAX_ENTRIES>,
    /// The environment of every command, kept in the guest alone: at most 256 variables and 128 KiB.
    #[serde(default)]
    #[schema(nullable, value_type = BTreeMap<String, String>, example = json!({"K": "v"}))]
    env: SandboxEnv,
    /// Small files, written before the answer: at most 64, and 4 MiB in all.
    #[serde(default)]
    #[schema(nullable, value_type = Vec<FileBody>)]
    files: Files,
    /// Network interfaces, each with an address of its own. Over the Unix socket only; with `disks` at most 6.
    #[serde(default)]
    #[schema(nullable, value_type = Vec<NicBody>)]
    nics: List<NicBody, MAX_DEVICES>,
    /// Disks, opened with the caller's rights. Over the Unix socket only; with `nics` at most 6.
    #[serde(default)]
    #[schema(nullable, value_type = Vec<DiskBody>)]
    disks: List<DiskBody, MAX_DEVICES>,
}

/// What a checkout does when no sandbox is ready.
#[derive(Clone, Copy, Default, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = OnEmpty)]
pub(in crate::http) enum OnEmptyBody {
    /// Waits up to `wait_ms`.
    #[default]
    Wait,
    /// Has one made at once where the pool's `max` allows, else waits.
    Clone,
    /// Fails at once.
    Fail,
}

impl Payload for CheckoutBody {
    const MAX_BYTES: usize = CHECKOUT_BODY_MAX_BYTES;
    const EMPTY: Option<fn() -> Self> = Some(Self::default);
}

impl CheckoutBody {
    /// The cache's request, or why there is none. Where `may_be_repeated`, it may have had its answer from a template that
    /// is no more: the cache knows.
    pub(super) fn into_request(
        self,
        service: &Service,
        caller: Option<Caller>,
        may_be_repeated: bool,
    ) -> Result<CheckoutRequest, Problem> {
        let template = self.template.unwrap_or_else(|| DEFAULT_TEMPLATE.to_owned());
        if !may_be_repeated && !service.has_template(&template) {
            return Err(UnknownTemplate { name: template }.into());
        }
        check_size("vcpus", self.vcpus.map(u64::from))?;
        check_size("memory_mib", self.memory_mib)?;
        let metadata = check_metadata(self.metadata)?;
        Ok(CheckoutRequest {
            template,
            on_empty: self.on_empty.into(),
            wait: self.wait_ms.map_or(Ok(WAIT_DEFAULT), parse_wait)?,
            ttl: self.ttl_s.map(parse_ttl).transpose()?,
            vcpus: self.vcpus,
            memory_mib: self.memory_mib,
            binding: Binding {
                hostname: self.hostname.map(check_hostname).transpose()?,
                env: check_sandbox_env(self.env)?,
                files: check_files(self.files)?,
            },
            metadata,
            devices: device_order(self.nics, self.disks, caller, service.has_user_networks())?,
            ..CheckoutRequest::default()
        })
    }
}

impl From<OnEmptyBody> for OnEmpty {
    fn from(on_empty: OnEmptyBody) -> Self {
        match on_empty {
            OnEmptyBody::Wait => Self::Wait,
            OnEmptyBody::Clone => Self::Clone,
            OnEmptyBody::Fail => Self::Fail,
        }
    }
}

/// A lease; `None` lasts until the release.
pub(super) fn parse_ttl(ttl_s: f64) -> Result<Option<Duration>, Problem> {
    let ttl = parse_seconds("ttl_s", ttl_s)?;
    if ttl > TTL_MAX {
        return Err(Problem::not_possible(format!(
            "ttl_s is above the limit of {}",
            TTL_MAX.as_secs()
        )));
    }
    Ok((!ttl.is_zero()).then_some(ttl))
}

fn parse_wait(wait_ms: f64) -> Result<Duration, Problem> {
    let wait = parse_seconds("wait_ms", wait_ms / 1e3)?;
    if wait > WAIT_MAX {
        return Err(Problem::not_possible(format!(
            "wait_ms is above the limit of {}",
            WAIT_MAX.as_millis()
        )));
    }
    Ok(wait)
}

/// Not below zero, and a number; what no clock can hold is longer than every limit.
pub(super) fn parse_seconds(field: &str, seconds: f64) -> Result<Duration, Problem> {
    if !seconds.is_finite() || seconds < 0.0 {
        return Err(Problem::invalid(format!("{field} must be 0 or more")));
    }
    Ok(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
}

/// Less than the template has is possible; nothing at all is a mistake.
fn check_size(field: &str, asked: Option<u64>) -> Result<(), Problem> {
    match asked {
        Some(0) => Err(Problem::invalid(format!("{field} must be 1 or more"))),
        Some(_) | None => Ok(()),
    }
}

fn check_metadata(
    metadata: Strings<METADATA_MAX_ENTRIES>,
) -> Result<BTreeMap<String, String>, Problem> {
    let is_small = |entries: &BTreeMap<String, String>| {
        let bytes: usize = entries
            .iter()
            .map(|(key, value)| key.len() + value.len())
            .sum();
        bytes <= METADATA_MAX_BYTES
    };
    metadata.within().filter(is_small).ok_or_else(|| {
        Problem::not_possible(format!(
            "metadata is above the limit of {METADATA_MAX_ENTRIES} entries and {METADATA_MAX_BYTES} bytes"
        ))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::http::code::Code;

    #[test]
    fn times_are_numbers_from_zero_up_to_a_limit() {
        assert_eq!(
            parse_ttl(1.5).expect("valid"),
            Some(Duration::from_millis(1500))
        );
        assert_eq!(parse_ttl(0.0).expect("valid"), None);
        assert_eq!(
            parse_wait(250.0).expect("valid"),
            Duration::from_millis(250)
        );
        assert_eq!(
            parse_ttl(-1.0).expect_err("negative").code(),
            Code::InvalidRequest
        );
        assert_eq!(
            parse_ttl(f64::NAN).expect_err("no number").code(),
            Code::InvalidRequest
        );
        assert_eq!(
            parse_ttl(1e300).expect_err("too long").code(),
            Code::NotPossible
        );
        assert_eq!(
            parse_wait(1e9).expect_err("too long").code(),
            Code::NotPossible
        );
    }

    #[test]
    fn metadata_has_a_limit() {
        let check = |count: usize, bytes: usize| {
            let entries = (0..count).map(|i| (i.to_string(), Value::from("x".repeat(bytes))));
            let entries: Value = entries.collect();
            check_metadata(Strings::deserialize(entries).expect("an object of strings"))
        };
        assert!(check(64, 100).is_ok());
        assert!(check(65, 1).is_err());
        assert!(check(1, 20_000).is_err());
    }
}

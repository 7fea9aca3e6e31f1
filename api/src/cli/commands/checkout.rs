//! `vmint checkout`

use std::time::Duration;

use http::Method;
use serde_json::{Map, Value, json};

use super::{binding, inspect};
use crate::cli::args::{CheckoutArgs, OnEmptyArg};
use crate::cli::client::{ANSWER_TIMEOUT, Client};
use crate::cli::error::CliError;
use crate::cli::output::{Output, print};
use crate::http::limits::WAIT_DEFAULT;
use crate::http::view::Sandbox;

pub(in crate::cli) async fn run(
    client: &Client,
    output: Output,
    args: CheckoutArgs,
) -> Result<u8, CliError> {
    let quiet = args.quiet && !output.json;
    let deadline = args
        .wait
        .unwrap_or(WAIT_DEFAULT)
        .saturating_add(ANSWER_TIMEOUT);
    let body = body(args)?;
    let answer = client
        .call(Method::POST, "/v1/sandboxes", Some(body), deadline)
        .await?;
    if quiet {
        print(&answer.read::<Sandbox>()?.id)?;
        return Ok(0);
    }
    output.show(&answer, |one| inspect::details(&one))
}

/// Only what was asked for: the service knows the rest.
fn body(args: CheckoutArgs) -> Result<Value, CliError> {
    let on_empty = args.on_empty.map(|what| match what {
        OnEmptyArg::Wait => "wait",
        OnEmptyArg::Clone => "clone",
        OnEmptyArg::Fail => "fail",
    });
    let metadata: Map<String, Value> = args
        .metadata
        .into_iter()
        .map(|(key, value)| (key, value.into()))
        .collect();
    let nics: Vec<Value> = args
        .nic
        .into_iter()
        .map(|nic| match nic.as_str() {
            "user" => json!({ "user": true }),
            tap => json!({ "tap": tap }),
        })
        .collect();
    let disks: Vec<Value> = args
        .disk
        .into_iter()
        .map(
            |disk| json!({ "path": disk.path, "format": disk.format, "read_only": disk.read_only }),
        )
        .collect();
    let fields = [
        ("nics", (!nics.is_empty()).then_some(Value::Array(nics))),
        ("disks", (!disks.is_empty()).then_some(Value::Array(disks))),
        ("template", args.template.map(Value::from)),
        ("vcpus", args.vcpus.map(Value::from)),
        ("memory_mib", args.memory.map(Value::from)),
        ("ttl_s", args.ttl.map(|ttl| json!(ttl.as_secs_f64()))),
        ("wait_ms", args.wait.map(milliseconds)),
        ("on_empty", on_empty.map(Value::from)),
        ("hostname", args.hostname.map(Value::from)),
        (
            "metadata",
            (!metadata.is_empty()).then_some(Value::Object(metadata)),
        ),
        ("env", binding::env(&args.env)?),
        ("files", binding::files(&args.file)?),
    ];
    let asked = fields
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)));
    Ok(Value::Object(asked.collect()))
}

fn milliseconds(duration: Duration) -> Value {
    json!(duration.as_secs_f64() * 1e3)
}

//! `vmint renew` and `vmint release`

use std::time::Duration;

use http::Method;
use serde_json::json;

use super::path_with;
use crate::cli::client::{ANSWER_TIMEOUT, Client};
use crate::cli::error::CliError;
use crate::cli::output::{Output, print};
use crate::cli::table::or_dash;
use crate::http::view::Sandbox;
use crate::plain::plain;

pub(in crate::cli) async fn renew(
    client: &Client,
    output: Output,
    id: &str,
    ttl: Duration,
) -> Result<u8, CliError> {
    let path = path_with("/v1/sandboxes/", id, "/renew");
    let body = json!({ "ttl_s": ttl.as_secs_f64() });
    let answer = client.post(&path, Some(body)).await?;
    output.show(&answer, |one: Sandbox| {
        format!("{id} expires at {}", or_dash(one.expires_at))
    })
}

/// Releases all of them, whatever happens to one; the first error is the command's.
pub(in crate::cli) async fn release(
    client: &Client,
    output: Output,
    ids: &[String],
) -> Result<u8, CliError> {
    let mut first_error = None;
    let (mut released, mut errors) = (Vec::new(), Vec::new());
    for id in ids {
        let path = path_with("/v1/sandboxes/", id, "");
        match client
            .call(Method::DELETE, &path, None, ANSWER_TIMEOUT)
            .await
        {
            Ok(_) if output.json => released.push(id),
            Ok(_) => print(id)?,
            Err(error) => {
                let error = CliError::from(error);
                if output.json {
                    errors.push(json!({ "id": id, "error": error.json() }));
                } else {
                    eprintln!("vmint: {}", plain(&format!("{id}: {error}")));
                }
                first_error.get_or_insert(error);
            }
        }
    }
    if output.json {
        print(&json!({ "released": released, "errors": errors }).to_string())?;
    }
    first_error.map_or(Ok(0), |error| Err(CliError::Told(Box::new(error))))
}

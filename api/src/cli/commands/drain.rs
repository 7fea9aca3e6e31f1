//! `vmint drain`, `vmint resume`

use std::time::Duration;

use serde_json::json;
use tokio::time::sleep;

use crate::cli::args::DrainArgs;
use crate::cli::client::{Client, ClientError};
use crate::cli::error::CliError;
use crate::cli::output::Output;
use crate::cli::progress::Progress;
use crate::cli::table::Table;
use crate::http::view::Drain;

/// How often the drain is looked at: leases end when they end.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// Drains the service. The wait for its end is as long as the longest lease, so that it has no deadline of its own.
pub(in crate::cli) async fn drain(
    client: &Client,
    output: Output,
    args: &DrainArgs,
) -> Result<u8, CliError> {
    let body = json!({"exit": args.exit});
    let mut answer = client.post("/v1/drain", Some(body)).await?;
    if args.wait {
        let progress = Progress::start(output, "draining");
        let mut drain: Drain = answer.read()?;
        // One that is to end tells it by its end.
        while drain.draining && (!drain.drained || args.exit) {
            progress.step(&format!("{} sandboxes are left", drain.leased));
            sleep(POLL_INTERVAL).await;
            match client.get("/v1/drain").await {
                Ok(now) => answer = now,
                // It was drained, and has ended as it was asked to.
                Err(ClientError::Unreachable { .. } | ClientError::Broken { .. }) if args.exit => {
                    answer.body = json!(Drain::done()).to_string().into();
                    break;
                }
                Err(error) => return Err(error.into()),
            }
            drain = answer.read()?;
        }
    }
    output.show(&answer, shown)
}

pub(in crate::cli) async fn resume(client: &Client, output: Output) -> Result<u8, CliError> {
    let answer = client.post("/v1/resume", None).await?;
    output.show(&answer, shown)
}

fn shown(drain: Drain) -> String {
    let state = match (drain.draining, drain.drained) {
        (false, _) => "no",
        (true, false) => "yes",
        (true, true) => "done",
    };
    let mut fields = Table::of_fields();
    fields.field("draining", state);
    fields.field("leased", drain.leased);
    fields.field("ready", drain.ready);
    fields.field("launching", drain.launching);
    fields.field("releasing", drain.releasing);
    fields.field("exit", if drain.exit { "yes" } else { "no" });
    fields.render()
}

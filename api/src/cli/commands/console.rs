//! `vmint console`

use super::{path_with, reserved};
use crate::cli::args::ConsoleArgs;
use crate::cli::client::Client;
use crate::cli::error::CliError;
use crate::cli::output::print_bytes;

pub(in crate::cli) async fn run(client: &Client, args: ConsoleArgs) -> Result<u8, CliError> {
    if args.follow {
        return Err(reserved("console --follow"));
    }
    let answer = client
        .get(&path_with("/v1/sandboxes/", &args.id, "/console"))
        .await?;
    print_bytes(&[&answer.body])?;
    Ok(0)
}

//! `vmint console`

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::json;

use super::path_with;
use crate::cli::args::ConsoleArgs;
use crate::cli::client::Client;
use crate::cli::error::CliError;
use crate::cli::output::{Output, print_bytes};

pub(in crate::cli) async fn run(
    client: &Client,
    output: Output,
    args: ConsoleArgs,
) -> Result<u8, CliError> {
    let path = path_with("/v1/sandboxes/", &args.id, "/console");
    if args.follow {
        let path = path + "?follow=true";
        client.follow(&path, |piece| show(output, piece)).await?;
    } else {
        show(output, &client.get(&path).await?.body)?;
    }
    Ok(0)
}

/// The bytes as they are; in JSON, an object a piece, on a line of its own.
fn show(output: Output, bytes: &[u8]) -> Result<(), CliError> {
    if !output.json {
        return print_bytes(&[bytes]);
    }
    let json = match std::str::from_utf8(bytes) {
        Ok(text) => json!({ "console": text }),
        Err(_) => json!({ "console_b64": BASE64_STANDARD.encode(bytes) }),
    };
    print_bytes(&[json.to_string().as_bytes(), b"\n"])
}

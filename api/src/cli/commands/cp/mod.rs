//! `vmint cp`: files and directories, from and to a sandbox, in streams.
//!
//! Names go as with `cp -r`: into a directory that is there, else under the name that was given. Modes are kept; owners
//! are not: what comes out belongs to who copies, what goes in to the guest's root.

mod beneath;
mod download;
mod meter;
mod pack;
mod place;
mod unpack;
mod upload;

use meter::Meter;
use place::Place;
use serde_json::json;

use crate::cli::args::CpArgs;
use crate::cli::client::Client;
use crate::cli::error::CliError;
use crate::cli::output::{Output, print};

/// The guest kernel's number for a path that is a directory.
const IS_DIRECTORY: i32 = 21;
/// Pieces of a stream between two sides of this program.
const DEPTH: usize = 4;
/// What is read of a file at once.
const PIECE_BYTES: usize = 64 << 10;

pub(in crate::cli) async fn run(
    client: &Client,
    output: Output,
    args: &CpArgs,
) -> Result<u8, CliError> {
    let (source, destination) = (
        Place::parse(&args.source)?,
        Place::parse(&args.destination)?,
    );
    // Then the report cannot be there, too.
    let is_stdout_taken = matches!(destination, Place::Stream);
    let meter = Meter::start(output, &args.source, &args.destination);
    match (source, destination) {
        (Place::Guest { id, path }, Place::Here(to)) => {
            download::to_file(client, &id, &path, &to, &meter).await?;
        }
        (Place::Guest { id, path }, Place::Stream) => {
            download::to_stdout(client, &id, &path, &meter).await?;
        }
        (Place::Here(from), Place::Guest { id, path }) => {
            upload::from_path(client, &from, &id, &path, &meter).await?;
        }
        (Place::Stream, Place::Guest { id, path }) => {
            upload::from_stdin(client, &id, &path, &meter).await?;
        }
        _ => {
            return Err(CliError::Usage(
                "one of SRC and DST must be ID:/path, and the other a path of this host or -"
                    .to_owned(),
            ));
        }
    }
    let done = meter.done();
    if !output.json {
        meter.tell(&done);
        return Ok(0);
    }
    let report = json!({
        "source": args.source, "destination": args.destination,
        "bytes": done.bytes, "elapsed_ms": done.took.as_secs_f64() * 1e3, "left_out": done.left_out,
    });
    if is_stdout_taken {
        eprintln!("{report}");
    } else {
        print(&report.to_string())?;
    }
    Ok(0)
}

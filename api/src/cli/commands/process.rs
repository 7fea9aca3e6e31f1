//! `vmint exec -d`, `vmint processes`, `vmint attach` and `vmint kill`

use serde_json::json;

use super::exec::refused;
use super::live::Live;
use super::{encode, exec_live, path_with};
use crate::cli::args::{AttachArgs, ExecArgs, KillArgs};
use crate::cli::client::Client;
use crate::cli::error::CliError;
use crate::cli::output::{Output, print};
use crate::cli::table::{Table, or_dash, since};
use crate::cli::terminal::{self, Detach, Raw};
use crate::http::view::{Process, ProcessList};

/// Starts a process and prints its id. It exits as `vmint exec` does where the process cannot be started.
pub(super) async fn start(
    client: &Client,
    output: Output,
    args: &ExecArgs,
) -> Result<u8, CliError> {
    let path = path_with("/v1/sandboxes/", &args.id, "/processes");
    let mut body = exec_live::request(args, args.timeout);
    body["keep_output"] = json!(!args.no_keep);
    let answer = client.post(&path, Some(body)).await;
    match answer {
        Ok(answer) => output.show(&answer, |process: Process| process.id),
        Err(error) => refused(output, error),
    }
}

pub(in crate::cli) async fn list(
    client: &Client,
    output: Output,
    id: &str,
) -> Result<u8, CliError> {
    let path = path_with("/v1/sandboxes/", id, "/processes");
    let answer = client.get(&path).await?;
    output.show(&answer, |list: ProcessList| table(&list.processes))
}

fn table(processes: &[Process]) -> String {
    let mut table = Table::new(&[
        "ID", "STATE", "PID", "USER", "ATTACHED", "STARTED", "COMMAND",
    ]);
    for one in processes {
        table.row([
            one.id.clone(),
            state(one),
            or_dash(one.pid),
            one.user.clone(),
            one.attached.to_string(),
            format!("{} ago", since(one.started_at)),
            one.argv.join(" "),
        ]);
    }
    table.render()
}

/// The state, and how it ended.
fn state(process: &Process) -> String {
    let Some(ended_by) = process.ended_by.as_deref() else {
        return process.state.clone();
    };
    match (process.exit_code, process.signal) {
        (Some(code), _) => format!("exited {code}"),
        (None, Some(signal)) if ended_by == "signal" => format!("signal {signal}"),
        (None, _) => ended_by.to_owned(),
    }
}

/// Attaches to a process. Leaving it does not end it.
pub(in crate::cli) async fn attach(
    client: &Client,
    output: Output,
    args: AttachArgs,
) -> Result<u8, CliError> {
    match attached(client, output, &args).await {
        Err(CliError::Client(error)) => refused(output, error),
        result => result,
    }
}

async fn attached(client: &Client, output: Output, args: &AttachArgs) -> Result<u8, CliError> {
    let path = path_of(&args.id, &args.process, "?output=false");
    let process: Process = client.get(&path).await?.read()?;
    let input = !args.no_stdin;
    let sizes = process.tty.then(terminal::size_changes).transpose()?;
    let after = if args.replay {
        "/attach?replay=true"
    } else {
        "/attach"
    };
    let path = path_of(&args.id, &args.process, after);
    let socket = client.websocket(&path).await?;
    let is_raw = process.tty && input && !output.json && terminal::is_input();
    let live = Live {
        output,
        input,
        empty_is_end: terminal::is_input(),
        resize: process.tty,
        sizes,
        raw: is_raw.then(Raw::enter).transpose()?,
        detach: is_raw.then(Detach::default),
    };
    live.run(socket).await
}

/// Sends a signal to a process.
pub(in crate::cli) async fn kill(
    client: &Client,
    output: Output,
    args: &KillArgs,
) -> Result<u8, CliError> {
    let path = path_of(&args.id, &args.process, "/signal");
    let body = json!({ "signal": args.signal });
    client.post(&path, Some(body)).await?;
    if output.json {
        print(&json!({ "process": args.process, "signal": args.signal }).to_string())?;
    }
    Ok(0)
}

fn path_of(id: &str, process: &str, after: &str) -> String {
    let mut path = path_with("/v1/sandboxes/", id, "/processes/");
    encode(&mut path, process.as_bytes());
    path + after
}

//! `vmint exec`: exits as `docker exec` does.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::Method;
use serde::Deserialize as _;
use serde_json::{Value, json};

use super::{exec_live, path_with, process};
use crate::cli::args::ExecArgs;
use crate::cli::client::{ANSWER_TIMEOUT, Client, ClientError};
use crate::cli::error::CliError;
use crate::cli::output::{Output, print_bytes};
use crate::http::limits::{EXEC_BODY_MAX_BYTES, EXEC_MESSAGE_MAX_BYTES, EXEC_TIMEOUT_MAX};
use crate::http::problem::ProblemBody;
use crate::http::view::ExecResult;
use crate::plain::plain;

/// The service said no.
pub(super) const REFUSED: u8 = 125;
/// The program is there and cannot be run.
const NOT_EXECUTABLE: u8 = 126;
/// There is no such program.
const NOT_FOUND: u8 = 127;
/// Added to the number of the signal that ended the command.
pub(super) const SIGNALLED: i32 = 128;
/// The guest kernel's numbers for "no such file" and "a part of the path is no directory".
const NO_SUCH_PROGRAM: [i32; 2] = [2, 20];
/// What fits into the body of an exec, base64 and the other fields included.
const STDIN_MAX_BYTES: usize = (EXEC_BODY_MAX_BYTES - (64 << 10)) / 4 * 3;

pub(in crate::cli) async fn run(
    client: &Client,
    output: Output,
    args: ExecArgs,
) -> Result<u8, CliError> {
    if args.detach {
        return process::start(client, output, &args).await;
    }
    let is_plain = !args.interactive && !args.tty;
    let timeout = args.timeout.unwrap_or(EXEC_TIMEOUT_MAX);
    let request = exec_live::request(&args, Some(timeout)).to_string();
    let is_long = request.len() > EXEC_MESSAGE_MAX_BYTES;
    if output.json && args.tty {
        let why = "a terminal's output is no JSON: leave --tty or --json out";
        return Err(CliError::Usage(why.to_owned()));
    }
    if output.json || (is_long && is_plain) {
        return once(client, output, args, timeout).await;
    }
    if is_long {
        return Err(CliError::Usage(format!(
            "the arguments and variables of a live command may take {EXEC_MESSAGE_MAX_BYTES} bytes"
        )));
    }
    match exec_live::run(client, &args, request).await {
        Err(CliError::Client(error)) => refused(output, error),
        result => result,
    }
}

/// In one request: what the command writes comes when it has ended.
async fn once(
    client: &Client,
    output: Output,
    args: ExecArgs,
    timeout: Duration,
) -> Result<u8, CliError> {
    let stdin = if args.interactive {
        read_stdin()?
    } else {
        Vec::new()
    };
    let deadline = timeout.saturating_add(ANSWER_TIMEOUT);
    let path = path_with("/v1/sandboxes/", &args.id, "/exec");
    let body = json!({
        "argv": args.argv,
        "env": args.env.into_iter().collect::<BTreeMap<_, _>>(),
        "cwd": args.cwd.unwrap_or_default(),
        "user": args.user.unwrap_or_default(),
        "stdin_b64": BASE64_STANDARD.encode(stdin),
        "timeout_ms": timeout.as_secs_f64() * 1e3,
    });
    match client.call(Method::POST, &path, Some(body), deadline).await {
        Ok(answer) => {
            let result: ExecResult = answer.read()?;
            let code = exit_code(&result);
            if output.json {
                print_bytes(&[&answer.body, b"\n"])?
            } else {
                pass_on(result)?
            }
            Ok(code)
        }
        Err(error) => {
            if let ClientError::Refused(refusal) = &error
                && !output.json
            {
                pass_on_so_far(&refusal.problem)?;
            }
            refused(output, error)
        }
    }
}

/// All of standard input: the service takes it in one piece.
fn read_stdin() -> Result<Vec<u8>, CliError> {
    let mut stdin = Vec::new();
    let limit = u64::try_from(STDIN_MAX_BYTES).unwrap_or(u64::MAX);
    io::stdin()
        .lock()
        .take(limit + 1)
        .read_to_end(&mut stdin)
        .map_err(|source| CliError::Stream {
            what: "cannot read standard input",
            source,
        })?;
    if stdin.len() > STDIN_MAX_BYTES {
        return Err(CliError::Usage(format!(
            "standard input is larger than {STDIN_MAX_BYTES} bytes"
        )));
    }
    Ok(stdin)
}

/// Writes what the command wrote.
fn pass_on(result: ExecResult) -> Result<(), CliError> {
    let output = bytes(result.stdout, result.stdout_b64);
    write(&output, &bytes(result.stderr, result.stderr_b64))?;
    if result.truncated {
        eprintln!("vmint: the command wrote more than the service keeps; the rest is lost");
    }
    Ok(())
}

/// Writes what a command had written when its time was over, where the refusal has it.
fn pass_on_so_far(problem: &Value) -> Result<(), CliError> {
    match ProblemBody::deserialize(problem) {
        Ok(problem) if problem.truncated.is_some() => {
            let output = bytes(problem.stdout, problem.stdout_b64);
            write(&output, &bytes(problem.stderr, problem.stderr_b64))
        }
        _ => Ok(()),
    }
}

/// Writes both streams, byte for byte.
fn write(output: &[u8], error: &[u8]) -> Result<(), CliError> {
    print_bytes(&[output])?;
    let wrote = io::stderr().lock().write_all(error);
    wrote.map_err(|source| CliError::Stream {
        what: "cannot write to standard error",
        source,
    })
}

fn bytes(text: Option<String>, base64: Option<String>) -> Vec<u8> {
    let decoded = base64.and_then(|base64| BASE64_STANDARD.decode(base64).ok());
    text.map(String::into_bytes).or(decoded).unwrap_or_default()
}

fn exit_code(result: &ExecResult) -> u8 {
    let code = match (result.exit_code, result.signal) {
        (Some(code), _) => code,
        (None, Some(signal)) => SIGNALLED.saturating_add(signal),
        (None, None) => i32::from(REFUSED),
    };
    u8::try_from(code & 0xff).unwrap_or(REFUSED)
}

/// The exit code where the service says no, which it is told here.
pub(super) fn refused(output: Output, error: ClientError) -> Result<u8, CliError> {
    let ClientError::Refused(refusal) = error else {
        return Err(error.into());
    };
    if output.json {
        eprintln!("{}", refusal.problem);
    } else {
        eprintln!("vmint: {}", plain(&refusal.to_string()));
    }
    Ok(failure_code(&refusal.code, refusal.errno))
}

/// The exit code for a command that did not come to its end.
pub(super) fn failure_code(code: &str, errno: Option<i32>) -> u8 {
    match (code, errno) {
        ("exec_failed", Some(errno)) if NO_SUCH_PROGRAM.contains(&errno) => NOT_FOUND,
        ("exec_failed", _) => NOT_EXECUTABLE,
        _ => REFUSED,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(exit_code: Option<i32>, signal: Option<i32>) -> ExecResult {
        ExecResult {
            exit_code,
            signal,
            stdout: None,
            stdout_b64: None,
            stderr: None,
            stderr_b64: None,
            truncated: false,
            elapsed_ms: 0.0,
        }
    }

    #[test]
    fn exit_codes_are_those_of_docker_exec() {
        assert_eq!(exit_code(&result(Some(0), None)), 0);
        assert_eq!(exit_code(&result(Some(3), None)), 3);
        assert_eq!(exit_code(&result(None, Some(9))), 137);
        assert_eq!(failure_code("exec_failed", Some(2)), 127);
        assert_eq!(failure_code("exec_failed", Some(13)), 126);
        assert_eq!(failure_code("unknown_sandbox", None), 125);
        assert_eq!(failure_code("timeout", None), 125);
    }

    #[test]
    fn bytes_come_out_as_they_went_in() {
        assert_eq!(bytes(Some("hi".to_owned()), None), b"hi");
        assert_eq!(bytes(None, Some("/wA=".to_owned())), [0xff, 0x00]);
        assert_eq!(bytes(None, None), b"");
    }
}

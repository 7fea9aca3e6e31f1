//! The `vmint` program: reads its arguments, runs one command, and exits with its code.

use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;
use tokio::runtime::{Builder, Runtime};
use vmint_api::cli::{Cli, CliError, run};
use vmint_api::plain::plain;
use vmint_api::serve::settle_process;
use vmint_api::telemetry::{flush_logs, log_last_words, log_plain, start_logs};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // Help and version go to standard output, and are no errors.
        Err(error) if !error.use_stderr() || !asks_for_json(std::env::args_os()) => error.exit(),
        Err(error) => return failed(&CliError::usage(&error), true),
    };
    let (logs, is_json) = (cli.logs(), cli.is_json());
    if let Err(error) = start_logs(logs.log_format, &logs.log_level) {
        let text = format!("--log-level {:?}: {error}", logs.log_level);
        return failed(&CliError::Usage(text), is_json);
    }
    if cli.serves() {
        settle_process(cli.is_service());
    }
    let runtime = match runtime(cli.is_service()) {
        Ok(runtime) => runtime,
        Err(source) => {
            let what = "cannot start";
            return failed(&CliError::Stream { what, source }, is_json);
        }
    };
    let (is_service, serves) = (cli.is_service(), cli.serves());
    let result = runtime.block_on(run(cli));
    if !is_service {
        // A read of standard input may never return, and nobody waits for it any more.
        runtime.shutdown_background();
    }
    match result {
        Ok(code) => {
            flush_logs();
            ExitCode::from(code)
        }
        // The reader of a service may be away: its last words have a deadline, as its logs have.
        Err(error) if serves => {
            // With `--json` they are JSON already.
            let log = if is_json { log_plain } else { log_last_words };
            last_words(&error, is_json)
                .iter()
                .for_each(|text| log(text));
            flush_logs();
            ExitCode::from(error.exit_code())
        }
        Err(error) => {
            flush_logs();
            failed(&error, is_json)
        }
    }
}

/// Whether the options of a command line that cannot be parsed have `--json`. What stands behind `--` is a command of
/// the guest.
fn asks_for_json(words: impl Iterator<Item = OsString>) -> bool {
    words
        .take_while(|word| word != "--")
        .any(|word| word == "--json")
}

/// The service works on every core; a client command makes one request after the other.
fn runtime(is_service: bool) -> std::io::Result<Runtime> {
    let mut builder = if is_service {
        Builder::new_multi_thread()
    } else {
        Builder::new_current_thread()
    };
    builder.enable_all().build()
}

/// Says why a command failed, as it was asked to.
fn failed(error: &CliError, is_json: bool) -> ExitCode {
    // A reader that is gone is no reason to panic: the exit code says it, too.
    let _ = last_words(error, is_json)
        .iter()
        .try_for_each(|text| writeln!(std::io::stderr(), "{text}"));
    ExitCode::from(error.exit_code())
}

/// What is to be said of an error; nothing where it was said already.
fn last_words(error: &CliError, is_json: bool) -> Option<String> {
    if error.is_silent() {
        None
    } else if is_json {
        Some(error.json().to_string())
    } else {
        Some(format!("vmint: {}", plain(&error.to_string())))
    }
}

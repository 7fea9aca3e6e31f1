//! The `vmint` program: reads its arguments, runs one command, and exits with its code.

use std::process::ExitCode;

use clap::Parser as _;
use tokio::runtime::{Builder, Runtime};
use vmint_api::cli::{Cli, run};
use vmint_api::telemetry::start_logs;

/// Exit code of a command line that cannot be.
const WRONG_USAGE: u8 = 2;
/// Exit code of a failure that has no code of its own.
const FAILED: u8 = 1;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let (logs, is_json) = (cli.logs(), cli.is_json());
    if let Err(error) = start_logs(logs.log_format, &logs.log_level) {
        return fail(
            &format!("--log-level {:?}: {error}", logs.log_level),
            WRONG_USAGE,
        );
    }
    let runtime = match runtime(cli.is_service()) {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("cannot start: {error}"), FAILED),
    };
    match runtime.block_on(run(cli)) {
        Ok(code) => ExitCode::from(code),
        Err(error) if error.is_silent() => ExitCode::from(error.exit_code()),
        Err(error) if is_json => {
            eprintln!("{}", error.json());
            ExitCode::from(error.exit_code())
        }
        Err(error) => fail(&error.to_string(), error.exit_code()),
    }
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

fn fail(message: &str, code: u8) -> ExitCode {
    eprintln!("vmint: {message}");
    ExitCode::from(code)
}

//! The command line. Its client commands speak HTTP to the service, as anybody could.
//!
//! What always holds: every wait has a deadline; an error goes to standard error in one piece with what mends it, and
//! its exit code is one of the contract's (see [`CliError`]).

mod args;
mod client;
mod commands;
mod disk;
mod endpoint;
mod error;
mod open;
mod output;
mod peer;
mod progress;
mod table;
mod terminal;

pub use args::{Cli, LogArgs};
pub use error::CliError;

use args::{Command, ConfigCommand};
use client::Client;
use commands::{
    checkout, clean, config, console, cp, doctor, drain, exec, guard, inspect, pool, process, ps,
    sandbox, template,
};
use output::Output;

/// Runs a command and gives its exit code.
///
/// # Errors
/// The command failed; [`CliError::exit_code`] says with which code.
pub async fn run(cli: Cli) -> Result<u8, CliError> {
    let Cli { command, options } = cli;
    let output = Output { json: options.json };
    let client = || endpoint::of(&options).map(Client::new);
    match command {
        Command::Serve(args) => commands::serve::run(&options, &args).await,
        Command::Doctor => doctor::run(&options, output).await,
        Command::Clean => clean::run(&options, output).await,
        Command::GuardLeases {
            run_dir,
            hypervisor_uid,
            build_uid,
        } => guard::run(&run_dir, [hypervisor_uid, build_uid]),
        Command::Config(ConfigCommand::Reload) => config::reload(&client()?, output).await,
        Command::Config(ConfigCommand::Check) => config::check(&options, output),
        Command::Config(ConfigCommand::Show) => config::show(&options, output),
        Command::Template(command) => template::run(&client()?, output, command).await,
        Command::Pool(command) => pool::run(&client()?, output, command).await,
        Command::Drain(args) => drain::drain(&client()?, output, &args).await,
        Command::Resume => drain::resume(&client()?, output).await,
        Command::Checkout(args) => checkout::run(&client()?, output, args).await,
        Command::Ps(args) => ps::run(&client()?, output, args).await,
        Command::Inspect { id } => inspect::run(&client()?, output, &id).await,
        Command::Exec(args) => exec::run(&client()?, output, args).await,
        Command::Processes { id } => process::list(&client()?, output, &id).await,
        Command::Attach(args) => process::attach(&client()?, output, args).await,
        Command::Kill(args) => process::kill(&client()?, output, &args).await,
        Command::Console(args) => console::run(&client()?, output, args).await,
        Command::Renew { id, ttl } => sandbox::renew(&client()?, output, &id, ttl).await,
        Command::Release { ids } => sandbox::release(&client()?, output, &ids).await,
        Command::Cp(args) => cp::run(&client()?, output, &args).await,
    }
}

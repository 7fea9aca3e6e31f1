//! `vmint config`

use super::reserved;
use crate::cli::args::{ConfigCommand, Options};
use crate::cli::error::CliError;
use crate::cli::output::print;
use crate::config::{self, DEFAULT_FILE, Places};

pub(in crate::cli) fn run(options: &Options, command: &ConfigCommand) -> Result<u8, CliError> {
    let file = options.config.as_deref();
    match command {
        ConfigCommand::Check => {
            let config = config::load(file, &Places::of_this_host())?;
            config::check_presence(&config, file)?;
            print("ok")?;
        }
        ConfigCommand::Show if file.is_none() => print(DEFAULT_FILE)?,
        ConfigCommand::Show => {
            print(&config::show_effective(&config::examine(
                file,
                &Places::of_this_host(),
            )?))?;
        }
        ConfigCommand::Reload => return Err(reserved("vmint config reload")),
    }
    Ok(0)
}

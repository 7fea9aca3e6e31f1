//! `vmint serve`

use crate::cli::args::{Options, ServeArgs};
use crate::cli::error::CliError;
use crate::config::{self, Places};
use crate::serve::serve;
use vmint_cache::Leased;

pub(in crate::cli) async fn run(options: &Options, args: &ServeArgs) -> Result<u8, CliError> {
    let config = config::load(options.config.as_deref(), &Places::of_this_host())?;
    let leased = if args.drain_on_exit {
        Leased::End
    } else {
        Leased::GoOn
    };
    serve(config, leased)
        .await
        .map_err(|error| CliError::Serve(Box::new(error)))
}

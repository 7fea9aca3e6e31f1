//! `vmint serve`

use crate::cli::args::{Options, ServeArgs};
use crate::cli::error::CliError;
use crate::config::{self, Places};
use crate::serve::serve;
use vmint_cache::Leased;

pub(in crate::cli) async fn run(options: &Options, args: &ServeArgs) -> Result<u8, CliError> {
    let leased = if args.drain_on_exit {
        Leased::End
    } else {
        Leased::GoOn
    };
    let file = options.config.as_deref();
    let examined = config::load_whole(file, &Places::of_this_host())?;
    serve(file, examined, leased)
        .await
        .map_err(|error| CliError::Serve(Box::new(error)))
}

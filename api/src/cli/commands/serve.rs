//! `vmint serve`

use super::reserved;
use crate::cli::args::{Options, ServeArgs};
use crate::cli::error::CliError;
use crate::config::{self, Places};
use crate::serve::serve;

pub(in crate::cli) async fn run(options: &Options, args: &ServeArgs) -> Result<u8, CliError> {
    if args.drain_on_exit {
        return Err(reserved("--drain-on-exit"));
    }
    let file = options.config.as_deref();
    let examined = config::load_whole(file, &Places::of_this_host())?;
    serve(file, examined)
        .await
        .map_err(|error| CliError::Serve(Box::new(error)))
}

//! `vmint clean`

use serde_json::json;

use crate::cli::args::Options;
use crate::cli::error::CliError;
use crate::cli::output::{Output, print};
use crate::config::{self, Places};

pub(in crate::cli) async fn run(options: &Options, output: Output) -> Result<u8, CliError> {
    // What is to be removed is known even where the rest of the file has mistakes.
    let examined = config::examine(options.config.as_deref(), &Places::of_this_host())?;
    let report = vmint_factory::clean(&examined.config.host).await?;
    if output.json {
        return print(&json!({ "removed": report }).to_string()).map(|()| 0);
    }
    print(&if report.is_empty() {
        "nothing was left".to_owned()
    } else {
        report.join("\n")
    })?;
    Ok(0)
}

//! `vmint config`

use serde_json::json;

use crate::cli::args::Options;
use crate::cli::client::Client;
use crate::cli::error::CliError;
use crate::cli::output::{Output, print};
use crate::cli::table::Table;
use crate::config::{self, DEFAULT_FILE, Places};
use crate::http::view::Reloaded;

pub(in crate::cli) fn check(options: &Options, output: Output) -> Result<u8, CliError> {
    let file = options.config.as_deref();
    let examined = config::load_whole(file, &Places::of_this_host())?;
    config::check_presence(&examined.config, file)?;
    if output.json {
        print(&json!({ "configuration": examined.place, "problems": [] }).to_string())?;
    } else {
        print("ok")?;
    }
    Ok(0)
}

pub(in crate::cli) fn show(options: &Options, output: Output) -> Result<u8, CliError> {
    let file = options.config.as_deref();
    if output.json {
        let examined = match file {
            Some(_) => config::examine(file, &Places::of_this_host())?,
            None => config::examine_text("", "the default values", &Places::of_this_host())?,
        };
        let document = match file {
            Some(_) => config::effective(&examined),
            None => examined.document,
        };
        print(&json!(document).to_string())?;
    } else if file.is_none() {
        print(DEFAULT_FILE)?;
    } else {
        let examined = config::examine(file, &Places::of_this_host())?;
        print(&config::show_effective(&examined))?;
    }
    Ok(0)
}

/// The service reads the file that it was started with, whatever this command was told.
pub(in crate::cli) async fn reload(client: &Client, output: Output) -> Result<u8, CliError> {
    let answer = client.post("/v1/config/reload", None).await?;
    output.show(&answer, told)
}

fn told(reloaded: Reloaded) -> String {
    let mut fields = Table::of_fields();
    let lists = [
        ("added", &reloaded.added),
        ("changed", &reloaded.changed),
        ("keys", &reloaded.changed_keys),
        ("removed", &reloaded.removed),
        ("unchanged", &reloaded.unchanged),
        ("needs restart", &reloaded.needs_restart),
    ];
    for (name, list) in lists {
        if !list.is_empty() {
            fields.field(name, list.join(" "));
        }
    }
    fields.render()
}

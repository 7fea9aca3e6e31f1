//! `vmint ps`

use crate::cli::args::PsArgs;
use crate::cli::client::Client;
use crate::cli::commands::path_with;
use crate::cli::error::CliError;
use crate::cli::output::{Output, print};
use crate::cli::table::{Table, or_dash, since, until};
use crate::http::view::{Sandbox, SandboxList};

pub(in crate::cli) async fn run(
    client: &Client,
    output: Output,
    args: PsArgs,
) -> Result<u8, CliError> {
    let template = args.template.map(|name| path_with("template=", &name, ""));
    let metadata = args.metadata.iter().map(|(key, value)| {
        let key = path_with("metadata.", key, "=");
        path_with(&key, value, "")
    });
    let query: Vec<String> = template.into_iter().chain(metadata).collect();
    let path = if query.is_empty() {
        "/v1/sandboxes".to_owned()
    } else {
        format!("/v1/sandboxes?{}", query.join("&"))
    };
    let answer = client.get(&path).await?;
    if args.quiet && !output.json {
        let ids: Vec<String> = answer
            .read::<SandboxList>()?
            .sandboxes
            .into_iter()
            .map(|one| one.id)
            .collect();
        print(&ids.join("\n"))?;
        return Ok(0);
    }
    output.show(&answer, |all: SandboxList| list(&all.sandboxes))
}

fn list(sandboxes: &[Sandbox]) -> String {
    let mut table = Table::new(&[
        "ID", "TEMPLATE", "SOURCE", "HOSTNAME", "PID", "VCPUS", "MEMORY", "LEASED", "EXPIRES",
    ]);
    for one in sandboxes {
        table.row([
            one.id.clone(),
            one.template.clone(),
            one.source.clone(),
            one.hostname.clone(),
            one.pid.to_string(),
            one.vcpus.to_string(),
            format!("{}MiB", one.memory_mib),
            format!("{} ago", since(one.leased_at)),
            or_dash(one.expires_at.map(|then| format!("in {}", until(then)))),
        ]);
    }
    table.render()
}

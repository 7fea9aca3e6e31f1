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
    let query = args
        .template
        .map(|name| path_with("?template=", &name, ""))
        .unwrap_or_default();
    let answer = client.get(&format!("/v1/sandboxes{query}")).await?;
    if args.quiet && !output.json {
        let ids: Vec<String> = answer
            .read::<SandboxList>()?
            .sandboxes
            .into_iter()
            .map(|one| one.id)
            .collect();
        print(&ids.join("\n"))?;
    } else {
        output.show(&answer, || {
            Ok(list(&answer.read::<SandboxList>()?.sandboxes))
        })?;
    }
    Ok(0)
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

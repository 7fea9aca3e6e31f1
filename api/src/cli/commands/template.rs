//! `vmint template`

use std::time::Duration;

use http::Method;
use tokio::time::{Instant, sleep};

use super::{path_with, reserved};
use crate::cli::args::TemplateCommand;
use crate::cli::client::{ANSWER_TIMEOUT, Answer, Client};
use crate::cli::error::CliError;
use crate::cli::output::{Output, print};
use crate::cli::progress::Progress;
use crate::cli::table::{Table, or_dash, since};
use crate::http::view::{Build, Generation, Template, TemplateList};

/// How often a running build is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(200);
/// How long a build may take; the service's own deadlines are far shorter.
const BUILD_TIMEOUT: Duration = Duration::from_secs(4 * 60 * 60);
/// Exit code of a build that failed.
const BUILD_FAILED: u8 = 1;

pub(in crate::cli) async fn run(
    client: &Client,
    output: Output,
    command: TemplateCommand,
) -> Result<u8, CliError> {
    match command {
        TemplateCommand::Ls => {
            let answer = client.get("/v1/templates").await?;
            output.show(&answer, || {
                Ok(list(&answer.read::<TemplateList>()?.templates))
            })?;
            Ok(0)
        }
        TemplateCommand::Show { name } => {
            let answer = client.get(&path_with("/v1/templates/", &name, "")).await?;
            output.show(&answer, || Ok(details(&answer.read()?)))?;
            Ok(0)
        }
        TemplateCommand::Rebuild { name } => rebuild(client, output, &name).await,
        TemplateCommand::Rollback { .. } => Err(reserved("vmint template rollback")),
    }
}

fn list(templates: &[Template]) -> String {
    let mut table = Table::new(&[
        "NAME", "STATE", "CURRENT", "AGE", "ACCEL", "QEMU", "MEMORY", "CLONES", "STALE", "BUILD",
    ]);
    for template in templates {
        let current = template
            .generations
            .iter()
            .find(|one| Some(&one.generation) == template.current.as_ref());
        table.row([
            template.name.clone(),
            template.state.clone(),
            or_dash(template.current.as_ref()),
            or_dash(current.map(|one| since(one.built_at))),
            or_dash(current.map(|one| &one.accel)),
            or_dash(current.map(|one| &one.qemu_version)),
            or_dash(current.map(|one| format!("{} MiB", one.memory_mib))),
            template
                .generations
                .iter()
                .map(|one| one.clones)
                .sum::<usize>()
                .to_string(),
            if template.stale { "yes" } else { "no" }.to_owned(),
            or_dash(template.build.as_ref()),
        ]);
    }
    table.render()
}

fn details(template: &Template) -> String {
    let mut fields = Table::of_fields();
    fields.field("name", &template.name);
    fields.field("state", &template.state);
    fields.field("current", or_dash(template.current.as_ref()));
    fields.field("build", or_dash(template.build.as_ref()));
    for field in &template.stale_fields {
        fields.field(
            "stale",
            format!(
                "{}: built with {}, now {}",
                field.field, field.built_with, field.now
            ),
        );
    }
    if let Some(error) = &template.last_error {
        fields.field("last error", error);
    }
    let mut generations = Table::new(&[
        "GENERATION",
        "BUILT AT",
        "ACCEL",
        "QEMU",
        "MEMORY",
        "CLONES",
        "COLD BOOT",
        "FIRST EXEC",
    ]);
    for one in &template.generations {
        generations.row([
            one.generation.clone(),
            one.built_at.to_string(),
            one.accel.clone(),
            one.qemu_version.clone(),
            format!("{} MiB", one.memory_mib),
            one.clones.to_string(),
            phase(one, "total"),
            phase(one, "first_exec"),
        ]);
    }
    format!("{}\n{}", fields.render(), generations.render())
}

fn phase(generation: &Generation, name: &str) -> String {
    or_dash(
        generation
            .phases_ms
            .get(name)
            .map(|ms| format!("{ms:.0} ms")),
    )
}

/// Starts a build and watches it to its end.
async fn rebuild(client: &Client, output: Output, name: &str) -> Result<u8, CliError> {
    let path = path_with("/v1/templates/", name, "/rebuild");
    let answer = client
        .call(Method::POST, &path, None, ANSWER_TIMEOUT)
        .await?;
    let (answer, build) = watch(client, answer).await?;
    let succeeded = build.state == "succeeded";
    if output.json || succeeded {
        output.show(&answer, || {
            Ok(format!("built {}", or_dash(build.generation.as_ref())))
        })?;
    } else {
        print(&format!(
            "the build failed: {}",
            build.error.as_deref().unwrap_or("no reason was given")
        ))?;
    }
    Ok(if succeeded { 0 } else { BUILD_FAILED })
}

async fn watch(client: &Client, mut answer: Answer) -> Result<(Answer, Build), CliError> {
    let began = Instant::now();
    let mut build: Build = answer.read()?;
    let progress = Progress::start(&format!("building {}", build.template));
    while build.state == "running" {
        if began.elapsed() > BUILD_TIMEOUT {
            return Err(CliError::Usage(format!(
                "build {} still runs; this command waits no longer",
                build.id
            )));
        }
        progress.step(build.step.as_deref().unwrap_or("waiting"));
        sleep(POLL_INTERVAL).await;
        answer = client.get(&path_with("/v1/builds/", &build.id, "")).await?;
        build = answer.read()?;
    }
    Ok((answer, build))
}

//! `vmint template`

use std::time::Duration;

use http::Method;
use tokio::time::{Instant, sleep};

use super::path_with;
use crate::cli::args::TemplateCommand;
use crate::cli::client::{ANSWER_TIMEOUT, Answer, Client};
use crate::cli::error::CliError;
use crate::cli::output::{Output, print};
use crate::cli::progress::Progress;
use crate::cli::table::{Table, or_dash, since};
use crate::http::view::{Build, Generation, Pool, Roll, Template, TemplateList};

/// How often a running build is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(200);
/// How long a build may take; the service's own deadlines are far shorter.
const BUILD_TIMEOUT: Duration = Duration::from_secs(4 * 60 * 60);
/// How long a rollback may take: every byte of a memory is read.
const ROLLBACK_TIMEOUT: Duration = Duration::from_secs(10 * 60);
/// How long a roll may stand still before it is left alone: where `max` is reached it goes on when sandboxes end.
const ROLL_PATIENCE: Duration = Duration::from_secs(30);
/// Exit code of a build that failed, or that was rolled back.
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
        TemplateCommand::Rollback { name } => {
            let path = path_with("/v1/templates/", &name, "/rollback");
            let answer = client
                .call(Method::POST, &path, None, ROLLBACK_TIMEOUT)
                .await?;
            output.show(&answer, || Ok(details(&answer.read()?)))?;
            Ok(0)
        }
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

/// Starts a build and watches it to its end, and the pool until it is over on it.
async fn rebuild(client: &Client, output: Output, name: &str) -> Result<u8, CliError> {
    let path = path_with("/v1/templates/", name, "/rebuild");
    let answer = client
        .call(Method::POST, &path, None, ANSWER_TIMEOUT)
        .await?;
    let (answer, build) = watch(client, output, answer).await?;
    let failure = match build.state.as_str() {
        "succeeded" => rolled(client, output, &build).await?,
        _ => {
            let why = build.error.as_deref().unwrap_or("no reason was given");
            Some(format!("the build failed: {why}"))
        }
    };
    if output.json || failure.is_none() {
        output.show(&answer, || {
            Ok(format!("built {}", or_dash(build.generation.as_ref())))
        })?;
    } else if let Some(failure) = &failure {
        print(failure)?;
    }
    Ok(if failure.is_none() { 0 } else { BUILD_FAILED })
}

/// Watches the pool go over to what was built. Returns why it did not.
async fn rolled(
    client: &Client,
    output: Output,
    build: &Build,
) -> Result<Option<String>, CliError> {
    let progress = Progress::start(output, &format!("rolling {}", build.template));
    let pool_path = path_with("/v1/pools/", &build.template, "");
    let (mut seen, mut seen_at) = (String::new(), Instant::now());
    loop {
        let pool: Pool = client.get(&pool_path).await?.read()?;
        let is_its = |roll: &Roll| Some(&roll.to) == build.generation.as_ref();
        let Some(roll) = pool.roll.filter(is_its) else {
            break;
        };
        let step = format!(
            "{} of {} updated, {} ready",
            roll.updated, roll.target, roll.ready
        );
        progress.step(&step);
        if step != seen {
            (seen, seen_at) = (step, Instant::now());
        } else if roll.deadline_s.is_none() && seen_at.elapsed() > ROLL_PATIENCE {
            progress.step("it goes on when sandboxes end: see `vmint pool ls`");
            return Ok(None);
        }
        sleep(POLL_INTERVAL).await;
    }
    let path = path_with("/v1/templates/", &build.template, "");
    let template: Template = client.get(&path).await?.read()?;
    let given_up = build.generation.as_deref().unwrap_or_default();
    Ok(template
        .last_error
        .filter(|error| template.current != build.generation && error.contains(given_up)))
}

async fn watch(
    client: &Client,
    output: Output,
    mut answer: Answer,
) -> Result<(Answer, Build), CliError> {
    let began = Instant::now();
    let mut build: Build = answer.read()?;
    let progress = Progress::start(output, &format!("building {}", build.template));
    while build.state == "running" {
        if began.elapsed() > BUILD_TIMEOUT {
            return Err(CliError::TimedOut(format!(
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

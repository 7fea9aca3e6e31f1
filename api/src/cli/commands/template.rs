//! `vmint template`

use std::time::Duration;

use http::Method;
use tokio::time::{Instant, sleep};

use super::path_with;
use crate::cli::args::TemplateCommand;
use crate::cli::client::{Answer, Client};
use crate::cli::error::CliError;
use crate::cli::output::{Output, print, print_bytes};
use crate::cli::progress::Progress;
use crate::cli::table::{Table, or_dash, since};
use crate::http::view::{Build, Generation, LastRoll, Pool, Template, TemplateList};

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
/// The outcome of a roll that goes on.
const RUNNING: &str = "running";
/// The outcome of a roll that was given up.
const ROLLED_BACK: &str = "rolled_back";

pub(in crate::cli) async fn run(
    client: &Client,
    output: Output,
    command: TemplateCommand,
) -> Result<u8, CliError> {
    match command {
        TemplateCommand::Ls => {
            let answer = client.get("/v1/templates").await?;
            output.show(&answer, |all: TemplateList| list(&all.templates))
        }
        TemplateCommand::Show { name } => {
            let answer = client.get(&path_with("/v1/templates/", &name, "")).await?;
            output.show(&answer, |one| details(&one))
        }
        TemplateCommand::Rebuild { name } => rebuild(client, output, &name).await,
        TemplateCommand::Rollback { name } => {
            let path = path_with("/v1/templates/", &name, "/rollback");
            let answer = client
                .call(Method::POST, &path, None, ROLLBACK_TIMEOUT)
                .await?;
            output.show(&answer, |one| details(&one))
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
            staleness(template).to_owned(),
            or_dash(template.build.as_ref()),
        ]);
    }
    table.render()
}

/// Whether it is stale, as far as that can be told.
fn staleness(template: &Template) -> &'static str {
    match (template.stale, template.unverified_fields.is_empty()) {
        (true, _) => "yes",
        (false, true) => "no",
        (false, false) => "unknown",
    }
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
    for field in &template.unverified_fields {
        fields.field("unverified", format!("{}: {}", field.field, field.reason));
    }
    if let Some(roll) = &template.last_roll {
        let why = roll.reason.as_ref().map(|reason| format!(": {reason}"));
        fields.field(
            "last roll",
            format!(
                "{} from {} to {}{}",
                roll.outcome.replace('_', " "),
                roll.from,
                roll.to,
                why.unwrap_or_default()
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
    let answer = client.post(&path, None).await?;
    let (answer, build) = watch(client, output, answer).await?;
    let (roll, failure) = match build.state.as_str() {
        "succeeded" => {
            let roll = rolled(client, output, &build).await?;
            let failure = roll.as_ref().and_then(given_up);
            (roll, failure)
        }
        _ => {
            let why = build.error.as_deref().unwrap_or("no reason was given");
            (None, Some(format!("the build failed: {why}")))
        }
    };
    if output.json {
        let answer = with_roll(answer, roll.as_ref())?;
        print_bytes(&[&answer.body, b"\n"])?;
    } else {
        print(&failure.clone().unwrap_or_else(|| told(&build)))?;
    }
    Ok(if failure.is_none() { 0 } else { BUILD_FAILED })
}

/// What a build has made, and what had to go for it.
fn told(build: &Build) -> String {
    let mut text = format!("built {}", or_dash(build.generation.as_ref()));
    for dropped in &build.dropped_generations {
        text.push_str(&format!(
            "\ndropped {} of template {}, which was only kept to go back to: the build needed its memory",
            dropped.generation, dropped.template
        ));
    }
    text
}

/// The build as the service shows it, with the roll to its generation as `last_roll`.
fn with_roll(mut answer: Answer, roll: Option<&LastRoll>) -> Result<Answer, CliError> {
    let mut build: serde_json::Map<String, serde_json::Value> = answer.read()?;
    build.insert("last_roll".to_owned(), serde_json::json!(roll));
    answer.body = serde_json::Value::from(build).to_string().into();
    Ok(answer)
}

/// Why a roll came to nothing, where it did.
fn given_up(roll: &LastRoll) -> Option<String> {
    let LastRoll {
        from, to, reason, ..
    } = roll;
    let reason = reason.as_deref().unwrap_or("no reason was given");
    (roll.outcome == ROLLED_BACK)
        .then(|| format!("generation {to} was given up, and {from} is current again: {reason}"))
}

/// Watches the pool go over to what was built. Returns the roll to it; `None` where there is nothing to roll from.
async fn rolled(
    client: &Client,
    output: Output,
    build: &Build,
) -> Result<Option<LastRoll>, CliError> {
    let progress = Progress::start(output, &format!("rolling {}", build.template));
    let template_path = path_with("/v1/templates/", &build.template, "");
    let pool_path = path_with("/v1/pools/", &build.template, "");
    let (mut seen, mut seen_at) = (String::new(), Instant::now());
    loop {
        let template: Template = client.get(&template_path).await?.read()?;
        let is_its = |roll: &LastRoll| Some(&roll.to) == build.generation.as_ref();
        let last_roll = template.last_roll.filter(is_its);
        if last_roll
            .as_ref()
            .is_none_or(|roll| roll.outcome != RUNNING)
        {
            return Ok(last_roll);
        }
        let pool: Pool = client.get(&pool_path).await?.read()?;
        let step = pool.roll.as_ref().map(|roll| {
            format!(
                "{} of {} updated, {} ready",
                roll.updated, roll.target, roll.ready
            )
        });
        let step = step.unwrap_or_default();
        progress.step(&step);
        let has_deadline = pool.roll.is_some_and(|roll| roll.deadline_s.is_some());
        if step != seen {
            (seen, seen_at) = (step, Instant::now());
        } else if !has_deadline && seen_at.elapsed() > ROLL_PATIENCE {
            progress.step("it goes on when sandboxes end: see `vmint pool ls`");
            return Ok(last_roll);
        }
        sleep(POLL_INTERVAL).await;
    }
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

//! No two clones are alike: two hundred of them, made under load, and the control that the look at them is sharp.

#[path = "../support/mod.rs"]
mod support;

mod by_hand;

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::Context;
use support::{Lab, clock_is_right, guest_spec, output, since_epoch};
use tokio::task::JoinSet;
use vmint_factory::{Generation, Vm};

/// Clones that are compared.
const CLONES: usize = 200;
/// Clones made at once: twice as many as a small machine has processors, so that they get in each other's way.
const AT_ONCE: usize = 4;
/// Clones that stay alive beside those that are made, and go on running.
const ALIVE: usize = 40;
/// What a clone is asked for: 32 bytes of its random numbers, its own ids, its name, its clock.
const QUESTION: &str = "head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \\n'; echo; \
    cat /proc/sys/kernel/random/uuid /etc/machine-id; hostname; date +%s";
/// Clones without an identity of their own that are made until two are alike: an interrupt that comes at another moment
/// now and then stirs the random numbers of one.
const TRIES: usize = 8;
/// The answers that must differ, by their lines.
const DIFFERENT: [&str; 4] = ["random bytes", "uuid", "machine-id", "hostname"];

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_clones_under_load_are_unique() -> anyhow::Result<()> {
    let lab = Arc::new(Lab::open().await?);
    let generation = lab.build(&guest_spec("default")).await?;
    let (mut running, mut answers, mut alive) = (JoinSet::new(), Vec::new(), Vec::new());
    for number in 0..CLONES + AT_ONCE {
        if number >= AT_ONCE {
            let (vm, answer): (Arc<Vm>, String) = running
                .join_next()
                .await
                .context("as many end as begin")???;
            answers.push(answer);
            alive.push(vm);
        }
        if number < CLONES {
            running.spawn(one(Arc::clone(&lab), Arc::clone(&generation), number));
        }
        if alive.len() > ALIVE {
            alive.remove(0).end().await;
        }
    }
    assert_eq!(answers.len(), CLONES);
    assert_eq!(alike(&answers), Vec::<String>::new());
    for vm in alive {
        vm.end().await;
    }
    drop(generation);
    let lab = Arc::into_inner(lab).context("every task has ended")?;
    lab.close().await
}

/// Makes a clone and asks it.
async fn one(
    lab: Arc<Lab>,
    generation: Arc<Generation>,
    number: usize,
) -> anyhow::Result<(Arc<Vm>, String)> {
    let vm = lab.mint(&generation, &format!("job-{number}")).await?;
    let before = since_epoch()?;
    let answer = output(&vm, QUESTION).await?;
    let after = since_epoch()?;
    let clock = answer.lines().last().context("it says its time")?;
    clock_is_right(before, clock, after)?;
    Ok((vm, answer))
}

/// What two of the answers have in common, where they should have nothing.
fn alike(answers: &[String]) -> Vec<String> {
    let mut seen = HashMap::new();
    let mut found = Vec::new();
    for (number, answer) in answers.iter().enumerate() {
        for (what, line) in DIFFERENT.iter().zip(answer.lines()) {
            if let Some(other) = seen.insert((what, line), number) {
                found.push(format!(
                    "clones {other} and {number} have the {what} {line}"
                ));
            }
        }
    }
    found
}

/// The same guest with everything taken out that makes clones differ: no new generation id, no entropy, no names.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_generation_id_and_a_reseed_clones_are_alike() -> anyhow::Result<()> {
    let template = by_hand::Template::boot().await?;
    let mut answers = Vec::new();
    loop {
        answers.push(template.clone_and_ask(QUESTION).await?);
        let found = alike(&answers);
        let is_alike = |what: &&str| found.iter().any(|line| line.contains(*what));
        if DIFFERENT.iter().all(is_alike) {
            return Ok(());
        }
        anyhow::ensure!(
            answers.len() < TRIES,
            "they differed by themselves, so that their difference proves nothing: {answers:?}"
        );
    }
}

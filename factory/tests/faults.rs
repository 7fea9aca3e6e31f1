//! What goes wrong on real hosts, and that nothing is left of it.

mod support;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use support::{Lab, guest_spec, order};
use vmint_factory::{
    BuildError, BuildProgress, CloneFailure, Found, Generation, Phase, RollbackError, RoomError,
    Staleness, TemplateSpec, Validity,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_never_answers_is_given_up_with_its_console() -> anyhow::Result<()> {
    let lab = Lab::open().await?;
    let mut spec = guest_spec("mute");
    spec.kernel_params = "rdinit=/bin/sh".into();
    spec.ready_timeout = Duration::from_secs(15);
    let error = lab
        .factory
        .build(&spec, BuildProgress::default())
        .await
        .expect_err("a shell answers nothing");
    let text = error.to_string();
    assert!(matches!(error, BuildError::NeverReady { .. }), "{text}");
    assert!(
        text.contains("within 15 s") && text.contains("the end of its console:\n"),
        "{text}"
    );
    lab.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_panics_is_noticed_at_once() -> anyhow::Result<()> {
    let lab = Lab::open().await?;
    let mut spec = guest_spec("panic");
    spec.kernel_params = "rdinit=/bin/true".into();
    let begun = Instant::now();
    let error = lab
        .factory
        .build(&spec, BuildProgress::default())
        .await
        .expect_err("init has ended");
    assert!(
        begun.elapsed() < spec.ready_timeout,
        "it did not wait for the deadline"
    );
    assert!(error.to_string().contains("Kernel panic"), "{error}");
    lab.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_that_fail_in_a_build_are_named() -> anyhow::Result<()> {
    let lab = Lab::open().await?;
    let failing = vec![
        "sh".to_owned(),
        "-c".to_owned(),
        "echo 'no such model' >&2; exit 4".to_owned(),
    ];
    let mut spec = guest_spec("warmup");
    spec.warmup = vec![failing.clone()];
    let error = lab
        .factory
        .build(&spec, BuildProgress::default())
        .await
        .expect_err("the warm-up fails");
    assert!(matches!(error, BuildError::Warmup { .. }), "{error}");
    assert!(
        error.to_string().contains("exited with 4") && error.to_string().contains("no such model"),
        "{error}"
    );

    let mut spec = guest_spec("verify");
    spec.verify = vec![failing];
    let error = lab
        .factory
        .build(&spec, BuildProgress::default())
        .await
        .expect_err("the verification fails");
    assert!(matches!(error, BuildError::Verify { .. }), "{error}");
    lab.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_that_does_not_fit_is_refused_before_it_boots() -> anyhow::Result<()> {
    let lab = Lab::open().await?;
    let mut spec = guest_spec("huge");
    spec.memory_mib = 1 << 30;
    let error = lab
        .factory
        .build(&spec, BuildProgress::default())
        .await
        .expect_err("nobody has that much");
    assert!(
        matches!(error, BuildError::Room(RoomError::FileSystem { .. })),
        "{error}"
    );
    let mut spec = guest_spec("nothing");
    spec.kernel = PathBuf::from("/nonexistent/vmlinuz");
    let error = lab
        .factory
        .build(&spec, BuildProgress::default())
        .await
        .expect_err("no kernel");
    assert!(
        error
            .to_string()
            .starts_with("cannot read /nonexistent/vmlinuz"),
        "{error}"
    );
    lab.close().await
}

/// One generation for all of it: what was dropped, or refused, has not harmed it.
#[tokio::test(flavor = "multi_thread")]
async fn what_goes_wrong_with_a_generation_and_its_clones_leaves_nothing() -> anyhow::Result<()> {
    let lab = Lab::open().await?;
    a_build_that_is_dropped_leaves_nothing(&lab).await?;
    let generation = lab.build(&guest_spec("default")).await?;
    a_clone_that_is_dropped_leaves_nothing(&lab, &generation).await?;
    a_damaged_state_is_never_loaded(&lab, &generation).await?;
    drop(generation);
    lab.close().await
}

async fn a_build_that_is_dropped_leaves_nothing(lab: &Lab) -> anyhow::Result<()> {
    let spec = guest_spec("default");
    for after_ms in [5, 120, 900] {
        let build = lab.factory.build(&spec, BuildProgress::default());
        assert!(
            tokio::time::timeout(Duration::from_millis(after_ms), build)
                .await
                .is_err()
        );
        lab.nothing_left().await?;
    }
    Ok(())
}

async fn a_clone_that_is_dropped_leaves_nothing(
    lab: &Lab,
    generation: &Arc<Generation>,
) -> anyhow::Result<()> {
    let whole = lab.mint(generation, "whole").await?;
    let total = whole.phases().total;
    whole.end().await;
    for step in 1..=8 {
        let mint = lab.factory.mint(generation, order("dropped"));
        drop(tokio::time::timeout(total * step / 9, mint).await);
        lab.nothing_left().await?;
    }
    let left: Vec<_> = std::fs::read_dir(lab.settings.template_path.join("default"))?
        .flatten()
        .collect();
    assert_eq!(left.len(), 2, "one generation and the link to it: {left:?}");
    Ok(())
}

async fn a_damaged_state_is_never_loaded(
    lab: &Lab,
    generation: &Arc<Generation>,
) -> anyhow::Result<()> {
    let path = lab.generation_file(generation, "state");
    let aside = path.with_extension("whole");
    std::fs::rename(&path, &aside)?;
    let whole = std::fs::read(&aside)?;
    let mut flipped = whole.clone();
    flipped[whole.len() / 3] ^= 0x04;
    for damaged in [&flipped[..], &whole[..whole.len() - 1000], b""] {
        std::fs::write(&path, damaged)?;
        let error = lab
            .factory
            .mint(generation, order("x"))
            .await
            .expect_err("the state is damaged");
        assert_eq!(error.phase, Phase::Load);
        assert!(
            error.is_generation_damage() && error.to_string().contains("rebuild the template"),
            "{error}"
        );
        std::fs::remove_file(&path)?;
    }
    let error = lab
        .factory
        .mint(generation, order("x"))
        .await
        .expect_err("there is no state");
    assert!(
        matches!(error.failure, CloneFailure::FileUnreadable { .. })
            && error.is_generation_damage()
    );
    Ok(std::fs::rename(&aside, &path)?)
}

#[tokio::test(flavor = "multi_thread")]
async fn generations_live_beside_each_other_and_go_with_their_last_clone() -> anyhow::Result<()> {
    let lab = Lab::open().await?;
    let spec = guest_spec("default");
    let nothing = lab
        .factory
        .rollback(&spec)
        .await
        .expect_err("there is none");
    assert!(matches!(nothing, RollbackError::NoEarlier { .. }));
    let old = lab.build(&spec).await?;
    let path = lab.generation_file(&old, "memory");
    let vm = lab.mint(&old, "old").await?;
    let new = lab.build(&guest_spec("default")).await?;
    old.retire();
    let listed = lab.factory.generations(&spec).await?;
    let facts = |of: &vmint_factory::ListedGeneration| (of.id.clone(), of.is_current);
    assert_eq!(facts(&listed[0]), (new.id().clone(), true));
    assert_eq!(facts(&listed[1]), (old.id().clone(), false));
    assert!(listed.iter().all(|of| of.validity == Validity::Valid));

    rolls_back_only_to_what_is_whole(&lab, &spec, &old).await?;
    notices_what_was_built_with_something_else(&lab, &new, &spec).await?;

    let mut alone = spec.clone();
    alone.keep_generations = 1;
    one_is_given_up(&lab, &alone, &old).await?;

    // A build that keeps only its own lets the others go, with their last clones.
    drop((old, new));
    let last = lab.build(&alone).await?;
    assert!(path.exists(), "a clone still needs it");
    vm.end().await;
    drop(vm);
    support::eventually("the retired generation goes", || Ok(!path.exists())).await?;
    assert_eq!(lab.factory.generations(&spec).await?.len(), 1);
    lab.mint(&last, "last").await?.end().await;
    lab.close().await
}

/// The one that is gone back to was surplus already, and stays; the one that was given up goes with its last holder.
async fn one_is_given_up(lab: &Lab, alone: &TemplateSpec, old: &Generation) -> anyhow::Result<()> {
    let bad = lab.build(alone).await?;
    let path = lab.generation_file(&bad, "manifest.json");
    let factory = &lab.factory;
    factory.give_up(alone, bad.id(), old.id()).await?;
    let listed = factory.generations(alone).await?;
    let current = listed.iter().find(|of| of.is_current);
    assert_eq!(current.map(|of| &of.id), Some(old.id()));
    assert!(path.exists(), "somebody holds it");
    drop(bad);
    assert!(!path.exists() && lab.generation_file(old, "memory").exists());
    let unknown = vmint_factory::GenerationId::new();
    let error = factory.give_up(alone, old.id(), &unknown).await;
    assert!(error.is_err(), "there is nothing to go back to");
    Ok(())
}

async fn rolls_back_only_to_what_is_whole(
    lab: &Lab,
    spec: &TemplateSpec,
    old: &Generation,
) -> anyhow::Result<()> {
    let state = lab.generation_file(old, "state");
    let whole = std::fs::read(&state)?;
    let mut altered = whole.clone();
    altered[whole.len() / 2] ^= 1;
    std::fs::remove_file(&state)?;
    std::fs::write(&state, &altered)?;
    let refusal = lab.factory.rollback(spec).await.expect_err("it is damaged");
    assert!(
        refusal.to_string().contains("state: its digest is"),
        "{refusal}"
    );
    let listed = lab.factory.generations(spec).await?;
    assert!(matches!(&listed[1].validity, Validity::Damaged(why) if why.contains("state")));
    assert!(listed[0].is_current, "nothing has changed");

    std::fs::write(&state, &whole)?;
    let back = lab.factory.rollback(spec).await?;
    assert_eq!(back.id(), old.id());
    lab.mint(&back, "back").await?.end().await;
    let Found::Current(found) = lab.factory.find(spec).await? else {
        anyhow::bail!("it is not current");
    };
    assert_eq!(found.id(), old.id());
    Ok(())
}

async fn notices_what_was_built_with_something_else(
    lab: &Lab,
    generation: &Arc<Generation>,
    spec: &TemplateSpec,
) -> anyhow::Result<()> {
    let fresh = lab.factory.staleness(generation, spec).await;
    assert_eq!(fresh, Staleness::default());
    let mut other = spec.clone();
    other.initrd = lab.settings.run_dir.join("initrd");
    std::fs::write(&other.initrd, "another")?;
    other.vcpus = 2;
    let fields = |fields: Vec<vmint_factory::StaleField>| -> Vec<_> {
        fields.into_iter().map(|field| field.field).collect()
    };
    let stale = lab.factory.staleness(generation, &other).await.differing;
    assert_eq!(fields(stale), ["vcpus", "initrd"]);
    std::fs::remove_file(&other.initrd)?;
    // What cannot be read is not what differs.
    let unknown = lab.factory.staleness(generation, &other).await;
    assert_eq!(fields(unknown.differing), ["vcpus"]);
    let [initrd] = &unknown.unverified[..] else {
        anyhow::bail!("{:?}", unknown.unverified);
    };
    assert_eq!(initrd.field, "initrd");
    assert!(initrd.reason.contains("cannot be read"), "{initrd:?}");
    Ok(())
}

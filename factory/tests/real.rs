//! The whole flow with a real QEMU and a real guest.

mod support;

use std::collections::HashSet;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use support::{LONG, Lab, clock_is_right, guest_spec, order, output, since_epoch};
use vmint_factory::{Found, Guest, Phase, TemplateSpec};

#[tokio::test(flavor = "multi_thread")]
async fn clones_have_answered_and_are_unique() -> anyhow::Result<()> {
    let lab = Lab::open().await?;
    let generation = lab.build(&guest_spec("default")).await?;
    let report = &generation.manifest().report;
    assert_eq!(report.canaries.len(), 2);
    assert!(report.canaries.iter().all(|canary| canary.reseeded));

    let mut seen = HashSet::new();
    for number in 0..3 {
        let hostname = format!("job-{number}");
        let vm = lab.mint(&generation, &hostname).await?;
        for phase in Phase::ALL.iter().filter(|phase| **phase != Phase::Warmup) {
            assert!(!vm.phases().get(*phase).is_zero(), "{phase:?} took no time");
        }
        let ids = output(
            &vm,
            "cat /proc/sys/kernel/random/uuid /etc/machine-id; hostname",
        )
        .await?;
        assert!(ids.lines().any(|line| line == hostname), "{ids}");
        assert!(ids.contains(&vm.identity().machine_id), "{ids}");
        for id in ids.lines() {
            assert!(seen.insert(id.to_owned()), "two clones have {id}");
        }
        let before = since_epoch()?;
        let clock = output(&vm, "date +%s").await?;
        clock_is_right(before, &clock, since_epoch()?)?;
        vm.end().await;
    }
    lab.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clone_is_confined_and_its_template_cannot_be_written() -> anyhow::Result<()> {
    let lab = Lab::open().await?;
    let generation = lab.build(&guest_spec("default")).await?;
    let vm = lab.mint(&generation, "confined").await?;

    let memory = std::fs::metadata(lab.generation_file(&generation, "memory"))?;
    assert_eq!(memory.permissions().mode() & 0o777, 0o440);
    let status = std::fs::read_to_string(format!("/proc/{}/status", vm.pid()))?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_default().trim().to_owned()
    };
    assert_eq!(field("Seccomp:"), "2");
    assert_eq!(field("NoNewPrivs:"), "1");
    assert_eq!(
        field("CapEff:").trim_start_matches('0'),
        "",
        "QEMU has no capability"
    );
    if nix::unistd::Uid::effective().is_root() {
        assert_eq!(memory.uid(), 0, "the memory belongs to root");
        assert_ne!(
            field("Uid:").split_whitespace().next(),
            Some("0"),
            "QEMU does not run as root"
        );
    }
    let proc = |name: &str| std::fs::read_to_string(format!("/proc/{}/{name}", vm.pid()));
    let environment = proc("environ")?;
    let names: Vec<_> = environment.split_terminator('\0').collect();
    assert!(
        names.iter().all(|line| line.starts_with("PATH=")),
        "{names:?}"
    );
    assert_eq!(proc("oom_score_adj")?.trim(), "500");
    // A guest that writes everywhere changes nothing for the next one.
    output(&vm, "head -c 100000000 /dev/urandom > /tmp/x; sync").await?;
    vm.end().await;
    let next = lab.mint(&generation, "next").await?;
    assert_eq!(output(&next, "ls /tmp").await?, "");
    next.end().await;
    let found = lab.factory.find(&guest_spec("default")).await?;
    assert!(
        matches!(found, Found::Current(_)),
        "the memory's digest is what it was: {found:?}"
    );
    lab.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_generation_is_taken_up_again_only_when_it_is_whole_and_wanted() -> anyhow::Result<()> {
    let lab = Lab::open().await?;
    let spec = guest_spec("default");
    assert!(matches!(lab.factory.find(&spec).await?, Found::None));
    let generation = lab.build(&spec).await?;
    let Found::Current(again) = lab.factory.find(&spec).await? else {
        anyhow::bail!("a generation that was just built is not found");
    };
    assert_eq!(again.id(), generation.id());
    lab.mint(&again, "again").await?.end().await;

    let mut changed = spec.clone();
    changed.kernel_params = "loglevel=3".into();
    changed.warmup = vec![vec!["true".into()]];
    let Found::Stale { fields, .. } = lab.factory.find(&changed).await? else {
        anyhow::bail!("another configuration is not noticed");
    };
    let names: Vec<_> = fields.iter().map(|field| field.field.as_str()).collect();
    assert_eq!(names, ["kernel_params", "warmup"]);

    for name in ["state", "memory", "kernel-stub", "manifest.json"] {
        let path = lab.generation_file(&generation, name);
        let whole = std::fs::read(&path)?;
        let mut altered = whole.clone();
        altered[whole.len() / 2] ^= 1;
        for damaged in [&altered[..], &whole[..whole.len() - 1]] {
            overwrite(&path, damaged)?;
            let found = lab.factory.find(&spec).await?;
            // A manifest that still parses may say something else of the files, or that something else is wanted.
            assert!(
                matches!(found, Found::Damaged { .. } | Found::Stale { .. }),
                "{name}: {found:?}"
            );
        }
        std::fs::remove_file(&path)?;
        assert!(
            matches!(lab.factory.find(&spec).await?, Found::Damaged { .. }),
            "without {name}"
        );
        std::fs::write(&path, &whole)?;
    }
    the_link_to_it_is_not_what_it_was(&lab, &spec).await?;
    assert!(
        matches!(lab.factory.find(&spec).await?, Found::Current(_)),
        "whole again"
    );
    lab.close().await
}

/// Without its link, or with one that leads nowhere or is none, nothing is current, and a rollback finds it.
async fn the_link_to_it_is_not_what_it_was(lab: &Lab, spec: &TemplateSpec) -> anyhow::Result<()> {
    let link = lab.settings.template_path.join("default/current");
    let whole = std::fs::read_link(&link)?;
    for target in [None, Some("20010101-000000-bcdf"), Some("../.."), Some("")] {
        std::fs::remove_file(&link)?;
        match target {
            Some("") => std::fs::write(&link, "")?,
            Some(target) => std::os::unix::fs::symlink(target, &link)?,
            None => {}
        }
        let found = lab.factory.find(spec).await?;
        assert!(
            matches!(found, Found::None | Found::Damaged { .. }),
            "{target:?}: {found:?}"
        );
        let back = lab.factory.rollback(spec).await?;
        assert_eq!(whole.to_str(), Some(back.id().as_str()), "{target:?}");
    }
    Ok(())
}

/// Replaces a file's content, whatever its mode.
fn overwrite(path: &std::path::Path, bytes: &[u8]) -> std::io::Result<()> {
    std::fs::remove_file(path)?;
    std::fs::write(path, bytes)
}

#[tokio::test(flavor = "multi_thread")]
async fn warm_up_is_in_every_clone_and_on_clone_in_each() -> anyhow::Result<()> {
    let lab = Lab::open().await?;
    let mut spec = guest_spec("default");
    spec.warmup = vec![vec![
        "sh".into(),
        "-c".into(),
        "echo warm > /run/warmed".into(),
    ]];
    spec.verify = vec![vec!["test".into(), "-s".into(), "/run/warmed".into()]];
    let generation = lab.build(&spec).await?;
    let mut order = order("each");
    order.on_clone = vec![vec![
        "sh".into(),
        "-c".into(),
        "hostname > /run/mine".into(),
    ]];
    let vm = lab.factory.mint(&generation, order).await?;
    assert_eq!(
        output(&vm, "cat /run/warmed /run/mine").await?,
        "warm\neach"
    );
    vm.end().await;
    lab.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_clone_wakes_up_with_the_right_time() -> anyhow::Result<()> {
    let lab = Lab::open().await?;
    let generation = lab.build(&guest_spec("default")).await?;
    let mut order = order("sleeper");
    order.paused = true;
    let vm = lab.factory.mint(&generation, order).await?;
    vm.ping(LONG).await?;
    // Another clone is made meanwhile: time passes.
    lab.mint(&generation, "meanwhile").await?.end().await;
    vm.resume().await?;
    let before = since_epoch()?;
    let clock = output(&vm, "date +%s").await?;
    clock_is_right(before, &clock, since_epoch()?)?;
    vm.bind(&vmint_factory::Binding {
        hostname: Some("awake".to_owned()),
        ..Default::default()
    })
    .await?;
    assert_eq!(output(&vm, "hostname").await?, "awake");
    assert_eq!(vm.identity().hostname, "awake");
    vm.end().await;
    lab.close().await
}

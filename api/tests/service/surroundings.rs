//! What the service is started in: a umask, a standard error, a place before the OOM killer.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use http::Method;
use nix::unistd::Uid;

use crate::service::{Place, Service, id};

/// Files that are the service's alone.
const OWN: [&str; 6] = [
    "vm.json",
    "manifest.json",
    "lock",
    "guard",
    "guard.log",
    "console.log",
];

#[tokio::test(flavor = "multi_thread")]
async fn neither_its_umask_nor_its_standard_error_matters() -> anyhow::Result<()> {
    let place = Place::new()?;
    place.configure("", "", "target = 1\nmax = 4")?;
    for what in ["umask 077", "umask 000 && exec 2>/dev/full"] {
        let mut service = place.start_after(what)?;
        service.ready().await?;
        let sandbox = service.sandbox().await?;
        let (status, end) = service.exec(&id(&sandbox), "true").await?;
        anyhow::ensure!(status == 200 && end["exit_code"] == 0, "{what}: {end}");
        let pid = sandbox["pid"].as_i64().context("a pid")?;
        rights(&place).with_context(|| what.to_owned())?;
        if Uid::effective().is_root() {
            scores(&place, pid)?;
        }
        let lost = lost_lines(&service).await?;
        anyhow::ensure!((lost > 0) == what.contains("full"), "{what}: {lost} lines");
        anyhow::ensure!(service.release(&id(&sandbox)).await? == 204);
        service.stop().await?;
        // The next one makes every file and folder again.
        let cleaned = place.run_configured(&["clean"]).await?;
        anyhow::ensure!(cleaned.status.success(), "{cleaned:?}");
    }
    place.close().await
}

async fn lost_lines(service: &Service<'_>) -> anyhow::Result<u64> {
    let (_, metrics) = service.call(Method::GET, "/metrics", None).await?;
    let name = "vmint_log_lines_dropped_total ";
    let lines = metrics.as_str().context("text")?.lines();
    let count = lines.into_iter().find_map(|line| line.strip_prefix(name));
    Ok(count.context(name)?.parse()?)
}

fn rights(place: &Place) -> anyhow::Result<()> {
    let mut seen = Vec::new();
    for top in [place.run_dir(), place.template_path()] {
        look(&top, &mut seen)?;
    }
    for name in OWN {
        anyhow::ensure!(
            seen.iter().any(|path| path.ends_with(name)),
            "there is no {name} in {seen:?}"
        );
    }
    if Uid::effective().is_root() {
        // Others pass through these, to sockets that are theirs.
        for (path, mode) in [
            (place.run_dir(), 0o755),
            (place.run_dir().join("vm"), 0o711),
            (place.template_path(), 0o711),
            (place.template_path().join("default"), 0o711),
        ] {
            let has = fs::metadata(&path)?.mode() & 0o7777;
            anyhow::ensure!(has == mode, "{} has {has:o}", path.display());
        }
    }
    Ok(())
}

/// Looks at everything below a directory: nothing is writable for others, and little is readable.
fn look(path: &Path, seen: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    // What goes while we look is no concern.
    let Ok(about) = fs::symlink_metadata(path) else {
        return Ok(());
    };
    let (mode, kind) = (about.mode() & 0o7777, about.file_type());
    if kind.is_symlink() {
        return Ok(());
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let allowed = match &*name {
        _ if kind.is_dir() => 0o755,
        _ if kind.is_socket() => 0o600,
        own if OWN.contains(&own) => 0o600,
        "memory" | "state" | "kernel-stub" => 0o440,
        _ => 0o640,
    };
    anyhow::ensure!(
        mode & !allowed == 0,
        "{} has {mode:o}, more than {allowed:o}",
        path.display()
    );
    seen.push(path.to_owned());
    if kind.is_dir() {
        for entry in fs::read_dir(path)? {
            look(&entry?.path(), seen)?;
        }
    }
    Ok(())
}

/// Sandboxes go before the service when memory is out; the guardian stays as long as it can.
fn scores(place: &Place, machine: i64) -> anyhow::Result<()> {
    let first = |file: &str| -> anyhow::Result<i64> {
        let text = fs::read_to_string(place.run_dir().join(file))?;
        Ok(text
            .split_ascii_whitespace()
            .next()
            .context("a pid")?
            .parse()?)
    };
    let score = |pid: i64| -> anyhow::Result<i32> {
        let text = fs::read_to_string(format!("/proc/{pid}/oom_score_adj"))?;
        Ok(text.trim().parse()?)
    };
    let ours = score(std::process::id().into())?;
    let expected = if may_lower_scores()? {
        ours.min(-500)
    } else {
        ours
    };
    assert_eq!(score(first("lock")?)?, expected, "the service");
    assert_eq!(score(first("guard")?)?, expected, "the guardian");
    assert_eq!(score(machine)?, 500, "the hypervisor");
    Ok(())
}

/// Whether this process has CAP_SYS_RESOURCE: root in a container may lack it.
fn may_lower_scores() -> anyhow::Result<bool> {
    const CAP_SYS_RESOURCE: u32 = 24;
    let effective = procfs::process::Process::myself()?.status()?.capeff;
    Ok(effective & (1 << CAP_SYS_RESOURCE) != 0)
}

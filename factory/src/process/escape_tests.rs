//! A hypervisor that a guest broke out of, played by a shell that was started as one: same user, same launch, a domain.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt, fchown};
use std::path::PathBuf;

use nix::unistd::{Gid, Uid};

use super::{Child, Domain, Landlock, LaunchPlan, mapped_files};
use crate::sys::Credentials;
use crate::waiting::until;

/// A user that nothing else runs as.
const UID: u32 = 54_321;

/// As root, one user for all of the test's processes.
fn user() -> Option<Credentials> {
    Uid::effective().is_root().then(|| Credentials {
        uid: Uid::from_raw(UID),
        gid: Gid::from_raw(UID),
        groups: Vec::new(),
    })
}

/// What a shell needs, and `/proc`: what is in it is then up to the kernel's rule on processes, not to that on files.
fn domain() -> anyhow::Result<Domain> {
    let libraries = mapped_files(std::process::id())?;
    let folders = libraries
        .iter()
        .filter(|file| file.to_string_lossy().contains(".so"))
        .filter_map(|file| file.parent().map(PathBuf::from));
    let mut programs: Vec<PathBuf> = folders.collect();
    programs.extend(["/bin/sh", "/bin/sleep"].map(PathBuf::from));
    Ok(Domain {
        programs,
        read: vec!["/proc".into()],
        write: vec!["/dev/null".into()],
        ..Domain::default()
    })
}

fn shell(script: &str, domain: Option<Domain>) -> std::io::Result<Child> {
    Child::spawn(LaunchPlan {
        program: "/bin/sh".into(),
        args: vec!["-c".into(), script.into()],
        user: user(),
        domain,
        ..LaunchPlan::default()
    })
}

/// What a process of the same user gets at: it reads and writes the other's memory, reads its environment, signals it,
/// and writes to a file that its user may write to.
async fn reached(victim: u32, file: &str, domain: Option<Domain>) -> anyhow::Result<Vec<String>> {
    let script = format!(
        "( : < /proc/{victim}/environ ) 2>/dev/null && echo environ >&2
         ( : <> /proc/{victim}/mem ) 2>/dev/null && echo memory >&2
         kill -0 {victim} 2>/dev/null && echo signal >&2
         ( : >> {file} ) 2>/dev/null && echo file >&2
         ( : < /proc/self/status ) && echo itself >&2"
    );
    let mut child = shell(&script, domain)?;
    child.wait().await;
    Ok(child.stderr().text().lines().map(str::to_owned).collect())
}

#[tokio::test]
async fn a_process_in_a_domain_reaches_no_other_of_the_same_user() -> anyhow::Result<()> {
    let version = match Landlock::of_this_host() {
        Landlock::Abi(version) => *version,
        Landlock::Missing { reason } => anyhow::bail!("NOT TRIED: {reason}"),
    };
    let folder = tempfile::tempdir()?;
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755))?;
    let path = folder.path().join("memory");
    let file = File::create(&path)?;
    if user().is_some() {
        fchown(&file, Some(UID), Some(UID))?;
    }
    let path = path.to_string_lossy();
    let victim = shell("echo ready >&2; exec sleep 600", Some(domain()?))?;
    let is_ready = || victim.stderr().text().contains("ready");
    until("it is ready", is_ready).await;
    let pid = victim.stamp().pid;

    let without = reached(pid, &path, None).await?;
    for what in ["environ", "signal", "file", "itself"] {
        assert!(without.iter().any(|line| line == what), "{without:?}");
    }
    let mut within = reached(pid, &path, Some(domain()?)).await?;
    if version < 6 {
        within.retain(|line| line != "signal");
    }
    assert_eq!(within, ["itself"], "it is a shell that works, and no more");
    Ok(())
}

#[tokio::test]
async fn a_process_has_nothing_of_our_environment_and_goes_first() -> anyhow::Result<()> {
    assert!(std::env::vars_os().count() > 1, "nothing would be shown");
    let script = "tr '\\0' '\\n' < /proc/self/environ >&2; cat /proc/self/oom_score_adj >&2";
    let mut child = shell(script, None)?;
    child.wait().await;
    let said = child.stderr().text();
    let (score, environment) = said.rsplit_once('\n').map_or(("", ""), |(a, b)| (b, a));
    assert_eq!(score, "500");
    // What a shell sets by itself stands in it, too.
    let is_known = |line: &str| {
        ["PATH=", "PWD=", "OLDPWD="]
            .iter()
            .any(|name| line.starts_with(name))
    };
    assert!(environment.lines().all(is_known), "{environment}");
    Ok(())
}

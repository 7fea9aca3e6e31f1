//! A QEMU that a guest broke out of, played by a process that is started in its place: same user, same Landlock domain,
//! same descriptors, and without QEMU's seccomp sandbox. And what a build leaves open.

mod support;

use std::fs::{self, File, Permissions};
use std::io::Read;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::unistd::{Uid, User};
use support::{Lab, eventually, guest_spec, new_folder};
use vmint_factory::{BuildProgress, BuildStep, Found, Vm};

/// A QEMU that has a process beside it, which tries what one that was broken out of would try, and says on the console
/// what worked. Numbers of processes are tried one after the other: it can look into no folder.
const ESCAPED: &str = r#"#!/bin/bash
case "$*" in
*"-name vmint-"*) ;;
*) exec qemu-system-x86_64 "$@" ;;
esac
for word; do
  case $word in
  fd=*,set=8) log=${word#fd=} log=${log%,set=8} ;;
  memory-backend-file,*) memory=${word##*mem-path=} ;;
  esac
done
try() { "$@" 2>/dev/null && reached+=" $1"; }
reads_its_memory() { ( : <"$memory" ); }
writes_its_memory() { ( : >>"$memory" ); }
reads_its_manifest() { ( : <"${memory%/*}/manifest.json" ); }
reads_another_template() { ( : <"${memory%/*/*/*}/another" ); }
reads_the_hosts_files() { ( : </etc/passwd ); }
writes_where_all_may() { ( : >>/dev/shm/vmint-test-escaped ); }
looks_into_proc() { ( : <"/proc/$$/status" ); }
connects_over_tcp() { ( : <>"/dev/tcp/127.0.0.1/PORT" ); }
signals_another() {
  local pid
  for ((pid = $$ > 20000 ? $$ - 20000 : 2; pid < $$; pid++)); do
    kill -0 "$pid" && return
  done
  return 1
}
{
  reached=
  for attack in reads_its_memory writes_its_memory reads_its_manifest reads_another_template reads_the_hosts_files \
    writes_where_all_may looks_into_proc connects_over_tcp signals_another; do
    try "$attack"
  done
  echo "escaped:$reached." >&"$log"
} &
exec qemu-system-x86_64 "$@"
"#;

/// What the process beside a machine has reached.
async fn reached(vm: &Vm) -> anyhow::Result<String> {
    let mut reached = String::new();
    eventually("it says what it has reached", || {
        let console = String::from_utf8_lossy(&vm.console()?).into_owned();
        let said = console.split_once("escaped:");
        let whole = said.and_then(|(_, said)| said.split_once('.'));
        whole.map_or(Ok(false), |(said, _)| {
            said.trim().clone_into(&mut reached);
            Ok(true)
        })
    })
    .await?;
    Ok(reached)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_qemu_that_was_broken_out_of_reaches_its_own_generation_alone() -> anyhow::Result<()> {
    let folder = new_folder()?;
    let qemu = folder.join("qemu-escaped");
    // Whoever listens on the host's loopback, the service's API included.
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port().to_string();
    fs::write(&qemu, ESCAPED.replace("PORT", &port))?;
    fs::set_permissions(&qemu, Permissions::from_mode(0o755))?;
    let lab = Lab::open_with(folder.clone(), |settings| {
        settings.qemu = qemu;
        settings.user_networks = false;
    })
    .await?;
    let generation = lab.build(&guest_spec("default")).await?;
    let another = lab.settings.template_path.join("another");
    fs::write(&another, "another template's")?;
    fs::set_permissions(&another, Permissions::from_mode(0o644))?;

    let victim = lab.mint(&generation, "victim").await?;
    let escaped = lab.mint(&generation, "escaped").await?;
    let facts = escaped.facts();
    let landlock = facts.confinement.iter().find(|c| c.name == "landlock");
    let landlock = landlock.ok_or_else(|| anyhow::anyhow!("nothing is said of Landlock"))?;
    anyhow::ensure!(landlock.on, "NOT TRIED: {}", landlock.reason);
    let distance = i64::from(escaped.pid()) - i64::from(victim.pid());
    assert!((1..20_000).contains(&distance), "another one is in reach");
    let owner = |vm: &Vm| fs::metadata(format!("/proc/{}", vm.pid())).map(|file| file.uid());
    assert_eq!(owner(&victim)?, owner(&escaped)?, "one user for both");
    if Uid::effective().is_root() {
        assert_eq!(owner(&victim)?, user("vmint")?.uid.as_raw());
    }
    // Kernels before 6.12 keep nobody from a signal, and then that is said.
    let lacks_signals = landlock
        .reason
        .contains("signals and abstract sockets from Linux");
    let expected = if lacks_signals {
        "reads_its_memory signals_another"
    } else {
        "reads_its_memory"
    };
    assert_eq!(reached(&escaped).await?, expected);

    victim.end().await;
    escaped.end().await;
    fs::remove_file(&another)?;
    lab.close().await
}

/// The memory file of a build, opened for writing while it boots, and what was found of it.
struct Stolen {
    file: File,
    path: PathBuf,
    inode: u64,
}

fn user(name: &str) -> anyhow::Result<User> {
    User::from_name(name)?.ok_or_else(|| anyhow::anyhow!("no user {name}"))
}

/// As whom the processes run that have this template's folder on their command line.
fn hypervisors(template: &Path) -> anyhow::Result<Vec<u32>> {
    let folder = template.to_string_lossy();
    let mut users = Vec::new();
    for process in procfs::process::all_processes()?.flatten() {
        let is_its = |words: Vec<String>| words.iter().any(|word| word.contains(&*folder));
        if process.cmdline().is_ok_and(is_its) {
            users.push(process.uid()?);
        }
    }
    Ok(users)
}

/// Opens the memory of the only generation there is, as root can, and looks who else could.
fn steal(template: &Path) -> anyhow::Result<Stolen> {
    let generation = fs::read_dir(template)?.next();
    let generation = generation.ok_or_else(|| anyhow::anyhow!("nothing is built"))??;
    let path = generation.path().join("memory");
    let file = File::options().read(true).write(true).open(&path)?;
    let found = file.metadata()?;
    assert_eq!(found.mode() & 0o777, 0o600);
    if Uid::effective().is_root() {
        let (clones, builds) = (user("vmint")?, user("vmint-build")?);
        assert_eq!(found.uid(), builds.uid.as_raw());
        assert_eq!(
            hypervisors(template)?,
            [builds.uid.as_raw()],
            "a build has a user of its own"
        );
        // Whoever runs clones, even without a domain.
        let opens = Command::new("sh")
            .args(["-c", ": <\"$0\""])
            .arg(&path)
            .uid(clones.uid.as_raw())
            .gid(clones.gid.as_raw())
            .stderr(Stdio::null())
            .status()?;
        assert!(!opens.success(), "clones' user opens what is being built");
    }
    Ok(Stolen {
        inode: found.ino(),
        file,
        path,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_opened_during_a_build_does_not_write_to_what_is_published() -> anyhow::Result<()>
{
    let lab = Lab::open().await?;
    let spec = guest_spec("default");
    let (tell, told) = std::sync::mpsc::channel();
    let template = lab.settings.template_path.join("default");
    let progress = BuildProgress::new(move |step| {
        if step == BuildStep::Ready {
            // The test that would be told is over where this fails.
            drop(tell.send(steal(&template)));
        }
    });
    lab.factory.build(&spec, progress).await?;
    let stolen = told.try_recv()??;

    let published = fs::metadata(&stolen.path)?;
    assert_ne!(published.ino(), stolen.inode, "it is the file of the build");
    assert_eq!(published.mode() & 0o777, 0o440);
    let length = published.len();
    assert!(
        published.blocks() * 512 >= length,
        "a clone that reads needs no room"
    );
    let contents = || {
        let mut bytes = Vec::new();
        File::open(&stolen.path)?.read_to_end(&mut bytes)?;
        std::io::Result::Ok(bytes)
    };
    let before = contents()?;
    stolen.file.write_all_at(&[0xA5; 4096], length / 2)?;
    assert!(contents()? == before, "it was written to");
    let found = lab.factory.find(&spec).await?;
    assert!(matches!(found, Found::Current(_)), "{found:?}");
    drop(found);
    lab.close().await
}

//! The guardian, with processes that play machines and services.

use std::os::unix::fs::MetadataExt as _;
use std::process::{Child, ChildStdin, Command, Stdio};

use jiff::Timestamp;
use nix::unistd::Uid;

use super::*;
use crate::VmId;
use crate::process::{boot_id, program_of};
use crate::vm::record_tests::{lease, record};
use crate::waiting::wait_until;

/// A process that does nothing until it is ended. (Waiting for a child closes its standard input, which would end it:
/// so that is held apart.)
struct Player(Child, #[allow(dead_code)] Option<ChildStdin>);

impl Player {
    fn start(name: &str) -> anyhow::Result<Self> {
        let mut child = Command::new("/bin/sh")
            .args(["-c", "read line", "-name", name])
            .stdin(Stdio::piped())
            .spawn()?;
        let stdin = child.stdin.take();
        let player = Self(child, stdin);
        let cmdline = format!("/proc/{}/cmdline", player.0.id());
        wait_until("it has its name", || {
            fs::read_to_string(&cmdline).is_ok_and(|line| line.contains(name))
        });
        Ok(player)
    }

    fn stamp(&self) -> anyhow::Result<ProcessStamp> {
        Ok(ProcessStamp::of(self.0.id())?)
    }

    fn is_alive(&mut self) -> anyhow::Result<bool> {
        Ok(self.0.try_wait()?.is_none())
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A run directory whose lock this service held last.
fn run_dir(service: &Player) -> anyhow::Result<tempfile::TempDir> {
    let folder = tempfile::tempdir()?;
    fs::write(folder.path().join("lock"), service.stamp()?.to_string())?;
    Ok(folder)
}

/// A clone whose lease ends after so many milliseconds; none has no end.
fn machine(run_dir: &Path, state: RecordedState, lease_ms: Option<i64>) -> anyhow::Result<Player> {
    let mut about = record();
    let player = Player::start(&format!("vmint-{}", about.id))?;
    about.process = player.stamp()?;
    about.program = program_of(about.process.pid)?;
    about.boot_id = boot_id().to_owned();
    about.state = state;
    if state == RecordedState::Leased {
        let mut lease = lease(String::new());
        let end = |ms| Timestamp::now().checked_add(jiff::SignedDuration::from_millis(ms));
        lease.expires_at = lease_ms.map(end).transpose()?;
        about.lease = Some(lease);
    }
    let path = run_dir.join("vm").join(about.id.as_str());
    fs::create_dir_all(&path)?;
    RecordFile::create(&path, about)?;
    Ok(player)
}

/// The console's log of a machine, with two megabytes in it.
fn console_of(run_dir: &Path, player: &Player) -> anyhow::Result<PathBuf> {
    for path in machines(run_dir)? {
        if RecordFile::read(&path)?.process == player.stamp()? {
            let log = path.join("console.log");
            fs::write(&log, vec![b'x'; 2 << 20])?;
            return Ok(log);
        }
    }
    anyhow::bail!("it has no directory")
}

fn rounds(run_dir: &Path) -> Rounds {
    Rounds::new(run_dir, Owner::Uids([Uid::effective().as_raw(); 2]))
}

fn guard(run_dir: &Path) -> std::thread::JoinHandle<Result<(), GuardError>> {
    let run_dir = run_dir.to_owned();
    std::thread::spawn(move || guard_leases(&run_dir, [Uid::effective().as_raw(); 2]))
}

#[test]
fn leases_end_on_time_when_the_service_is_gone() -> anyhow::Result<()> {
    let mut service = Player::start("service")?;
    let folder = run_dir(&service)?;
    let mut overdue = machine(folder.path(), RecordedState::Leased, Some(-5000))?;
    let made = std::time::Instant::now();
    let mut soon = machine(folder.path(), RecordedState::Leased, Some(1500))?;
    let mut endless = machine(folder.path(), RecordedState::Leased, None)?;
    let mut ready = machine(folder.path(), RecordedState::Ready, None)?;
    let mut releasing = machine(folder.path(), RecordedState::Releasing, None)?;
    let guard = guard(folder.path());
    let is_announced = || announced(folder.path()).is_some();
    wait_until("the guardian is there", is_announced);
    assert!(
        overdue.is_alive()? && releasing.is_alive()?,
        "the service lives"
    );
    let begun = std::time::Instant::now();
    service.0.kill()?;
    service.0.wait()?;
    overdue.0.wait()?;
    releasing.0.wait()?;
    assert!(begun.elapsed() < Duration::from_secs(5), "at once");
    soon.0.wait()?;
    assert!(
        made.elapsed() >= Duration::from_millis(1500),
        "not before its end"
    );
    // One that has no end is not ended, but its console does not grow.
    let log = console_of(folder.path(), &endless)?;
    wait_until("its console is cut", || {
        fs::metadata(&log).is_ok_and(|log| log.blocks() * 512 <= 1 << 20)
    });
    assert!(endless.is_alive()? && ready.is_alive()? && !guard.is_finished());
    endless.0.kill()?;
    endless.0.wait()?;
    guard.join().map_err(|_| anyhow::anyhow!("it panicked"))??;
    assert_eq!(fs::read_dir(folder.path().join("vm"))?.count(), 5);
    Ok(())
}

#[test]
fn it_leaves_to_another_guardian_and_not_before() -> anyhow::Result<()> {
    let mut service = Player::start("service")?;
    let folder = run_dir(&service)?;
    let mut leased = machine(folder.path(), RecordedState::Leased, Some(600_000))?;
    let guard = guard(folder.path());
    let is_announced = || announced(folder.path()).is_some();
    wait_until("the guardian is there", is_announced);
    // Another service takes the lock as the first one goes; its guardian comes later.
    let successor = Player::start("successor")?;
    fs::write(folder.path().join("lock"), successor.stamp()?.to_string())?;
    service.0.kill()?;
    service.0.wait()?;
    assert!(
        !guard.is_finished(),
        "a service without a guardian is not enough"
    );
    let other = Player::start("guardian")?;
    fs::write(folder.path().join(FILE), other.stamp()?.to_string())?;
    guard.join().map_err(|_| anyhow::anyhow!("it panicked"))??;
    assert!(leased.is_alive()?);
    Ok(())
}

#[test]
fn a_renewed_lease_and_a_foreign_process_are_left_alone() -> anyhow::Result<()> {
    let mut service = Player::start("service")?;
    let folder = run_dir(&service)?;
    let mut renewed = machine(folder.path(), RecordedState::Leased, Some(-1000))?;
    let mut foreign = machine(folder.path(), RecordedState::Leased, Some(-1000))?;
    for (player, change) in [(&renewed, 0), (&foreign, 1)] {
        for path in machines(folder.path())? {
            let mut file = RecordFile::open(&path)?;
            if file.record().process != player.stamp()? {
                continue;
            }
            file.update(|record| match (change, &mut record.lease) {
                (0, Some(lease)) => lease.expires_at = Some(Timestamp::MAX),
                // Its number was given to somebody else since.
                _ => record.id = VmId::random(),
            })?;
        }
    }
    service.0.kill()?;
    service.0.wait()?;
    assert_eq!(rounds(folder.path()).round(Duration::ZERO)?, 1);
    assert!(renewed.is_alive()? && foreign.is_alive()?);
    Ok(())
}

#[test]
fn a_service_that_lives_is_first_to_end_a_lease() -> anyhow::Result<()> {
    let service = Player::start("service")?;
    let folder = run_dir(&service)?;
    let mut late = machine(folder.path(), RecordedState::Leased, Some(-200))?;
    let for_long = Duration::from_secs(60);
    assert_eq!(rounds(folder.path()).round(for_long)?, 1);
    assert!(late.is_alive()?);
    assert_eq!(rounds(folder.path()).round(Duration::ZERO)?, 0);
    late.0.wait()?;
    Ok(())
}

#[test]
fn a_record_that_cannot_be_read_does_not_outlive_its_lease() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut unreadable = machine(folder.path(), RecordedState::Leased, Some(600_000))?;
    let path = machines(folder.path())?.remove(0);
    fs::write(path.join("vm.json"), vec![b' '; 5 << 20])?;
    let mut rounds = rounds(folder.path());
    let (no_service, a_service) = (Duration::ZERO, Duration::from_secs(60));
    assert_eq!(rounds.round(no_service)?, 1, "it may be written just now");
    let long_ago = Instant::now().checked_sub(UNREADABLE_GRACE);
    let long_ago = long_ago.ok_or_else(|| anyhow::anyhow!("the host was started just now"))?;
    rounds.unreadable.insert(path.clone(), long_ago);
    assert_eq!(rounds.round(a_service)?, 0, "the service sees to it");
    assert!(unreadable.is_alive()?);
    rounds.unreadable.insert(path, long_ago);
    assert_eq!(rounds.round(no_service)?, 0);
    unreadable.0.wait()?;
    Ok(())
}

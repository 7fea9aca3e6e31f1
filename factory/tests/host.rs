//! Hosts that lack something, and hosts that another service has.

mod support;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use support::{Lab, expected_accel, guest_spec, new_folder, settings};
use vmint_factory::{BuildProgress, Factory, LockError, OpenError, PlaceError, clean};

/// As root, on a real file system that is too small: refused before anything boots, with the numbers and the mend.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_template_path_is_refused_with_its_mend() -> anyhow::Result<()> {
    let folder = new_folder()?;
    let small = settings(&folder);
    std::fs::create_dir(&small.template_path)?;
    let is_root = nix::unistd::Uid::effective().is_root();
    if is_root {
        let flags = nix::mount::MsFlags::empty();
        nix::mount::mount(
            Some("small"),
            &small.template_path,
            Some("tmpfs"),
            flags,
            Some("size=64m,mode=0711"),
        )?;
    } else {
        // A plain user cannot mount: the file system is filled instead, as far as it goes.
        eprintln!("not root: a template that is too large stands in for a small file system");
    }
    let factory = Factory::open(small.clone(), &guest_spec("probe")).await?;
    let mut spec = guest_spec("default");
    if !is_root {
        spec.memory_mib = 1 << 30;
    }
    let error = factory
        .build(&spec, BuildProgress::default())
        .await
        .expect_err("there is no room");
    let text = error.to_string();
    assert!(
        text.contains("free and the template needs") && text.contains("enlarge it"),
        "{text}"
    );
    assert!(
        std::fs::read_dir(small.run_dir.join("vm")).map_or(true, |mut left| left.next().is_none())
    );
    drop(factory);
    if is_root {
        nix::mount::umount(&small.template_path)?;
    }
    std::fs::remove_dir_all(folder)?;
    Ok(())
}

/// Somebody else fills the file system after the build has begun, before its state is saved: the build fails with the
/// reason and leaves nothing, and with room again the next one succeeds.
#[tokio::test(flavor = "multi_thread")]
async fn a_template_path_that_gets_full_fails_the_build_alone() -> anyhow::Result<()> {
    if !support::needs_root::is_root("a plain user cannot mount a small file system")? {
        return Ok(());
    }
    let folder = new_folder()?;
    let small = settings(&folder);
    std::fs::create_dir(&small.template_path)?;
    let flags = nix::mount::MsFlags::empty();
    let size = Some("size=244m,mode=0711");
    nix::mount::mount(
        Some("small"),
        &small.template_path,
        Some("tmpfs"),
        flags,
        size,
    )?;
    let factory = Factory::open(small.clone(), &guest_spec("probe")).await?;
    let mut spec = guest_spec("default");
    spec.memory_mib = 128;
    let filler = small.template_path.join("filler");
    for (full_at, says) in [
        (vmint_factory::BuildStep::Saving, "/template is full"),
        (
            vmint_factory::BuildStep::Publishing,
            "No space left on device",
        ),
    ] {
        let file = filler.clone();
        let progress = BuildProgress::new(move |step| {
            if step == full_at {
                fill(&file);
            }
        });
        let error = factory
            .build(&spec, progress)
            .await
            .expect_err("it is full");
        let text = error.to_string();
        assert!(text.contains(says), "{full_at:?}: {text}");
        std::fs::remove_file(&filler)?;
        let left: Vec<_> = std::fs::read_dir(&small.template_path)?
            .map(|entry| Ok(entry?.file_name()))
            .collect::<std::io::Result<_>>()?;
        assert_eq!(left, ["lock"], "{full_at:?}");
        // Its machine ends beside the answer.
        support::eventually("no machine is left", || {
            Ok(std::fs::read_dir(small.run_dir.join("vm"))?.count() == 0)
        })
        .await?;
        support::eventually("its memory is free again", || {
            let stat = nix::sys::statvfs::statvfs(&small.template_path)?;
            Ok((stat.blocks() - stat.blocks_available()) * stat.fragment_size() < 1 << 20)
        })
        .await?;
    }
    drop(factory.build(&spec, BuildProgress::default()).await?);
    drop(factory);
    clean(&small).await?;
    nix::mount::umount(&small.template_path)?;
    std::fs::remove_dir_all(folder)?;
    Ok(())
}

/// Writes to a file until no byte more goes in.
fn fill(path: &std::path::Path) {
    use std::io::Write;
    let mut file = std::fs::File::create(path).expect("a file can be made");
    for piece in [1 << 20, 4096, 1] {
        while file.write_all(&vec![0; piece]).is_ok() {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_service_is_refused_and_cleaning_too() -> anyhow::Result<()> {
    let lab = Lab::open().await?;
    let second = Factory::open(lab.settings.clone(), &guest_spec("probe")).await;
    let Err(OpenError::Place(PlaceError::Lock(LockError::Held { holder, .. }))) = second else {
        anyhow::bail!("two services on one run directory: {second:?}");
    };
    assert_eq!(holder, std::process::id().to_string());
    // The same template path with another run directory is no better.
    let mut other = lab.settings.clone();
    other.run_dir = other.run_dir.with_file_name("other");
    let third = Factory::open(other, &guest_spec("probe")).await;
    assert!(
        matches!(
            third,
            Err(OpenError::Place(PlaceError::Lock(LockError::Held { .. })))
        ),
        "{third:?}"
    );
    assert!(
        clean(&lab.settings).await.is_err(),
        "cleaning under a running service"
    );

    lab.build(&guest_spec("default")).await?;
    let settings = lab.settings.clone();
    drop(lab.factory);
    let report = clean(&settings).await?;
    assert!(
        report.iter().any(|line| line == "removed template default"),
        "{report:?}"
    );
    assert!(!settings.run_dir.exists() && !settings.template_path.exists());
    assert!(
        clean(&settings).await?.is_empty(),
        "cleaning twice finds nothing"
    );
    // What is left is the other run directory, with the lock of a service that was refused.
    let folder = settings.run_dir.parent();
    Ok(std::fs::remove_dir_all(
        folder.unwrap_or(&settings.run_dir),
    )?)
}

/// Our own tmpfs is unmounted, an administrator's is emptied and stays. A plain user mounts nothing, and is told so.
#[tokio::test(flavor = "multi_thread")]
async fn cleaning_unmounts_our_tmpfs_and_no_other() -> anyhow::Result<()> {
    // Cargo's folder is on a disk, so that a tmpfs has to be mounted.
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let ours = settings(folder.path());
    let opened = Factory::open(ours.clone(), &guest_spec("probe")).await;
    if !nix::unistd::Uid::effective().is_root() {
        let error = opened.expect_err("a plain user cannot mount").to_string();
        assert!(error.contains("tmpfs"), "{error}");
        return Ok(());
    }
    drop(opened?);
    assert!(is_mounted(&ours.template_path)?);
    let report = clean(&ours).await?;
    assert!(!is_mounted(&ours.template_path)?, "{report:?}");
    assert!(
        report
            .iter()
            .any(|line| line.starts_with("unmounted the tmpfs at ")),
        "{report:?}"
    );
    assert!(!ours.template_path.exists());

    std::fs::create_dir(&ours.template_path)?;
    let flags = nix::mount::MsFlags::empty();
    nix::mount::mount(
        Some("theirs"),
        &ours.template_path,
        Some("tmpfs"),
        flags,
        Some("size=1m,mode=0711"),
    )?;
    drop(Factory::open(ours.clone(), &guest_spec("probe")).await?);
    let report = clean(&ours).await?;
    assert!(is_mounted(&ours.template_path)?, "{report:?}");
    assert!(
        report
            .iter()
            .any(|line| line.ends_with("somebody else mounted it")),
        "{report:?}"
    );
    assert_eq!(
        std::fs::read_dir(&ours.template_path)?.count(),
        0,
        "its files are gone"
    );
    nix::mount::umount(&ours.template_path)?;
    Ok(())
}

/// A tmpfs that an administrator unmounts under the service is mounted again, and is empty and locked.
#[tokio::test(flavor = "multi_thread")]
async fn a_tmpfs_that_is_unmounted_is_mounted_again() -> anyhow::Result<()> {
    if !support::needs_root::is_root("a plain user mounts nothing")? {
        return Ok(());
    }
    // Cargo's folder is on a disk, so that a tmpfs has to be mounted.
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let ours = settings(folder.path());
    let factory = Factory::open(ours.clone(), &guest_spec("probe")).await?;
    std::fs::write(ours.template_path.join("old"), "")?;
    nix::mount::umount2(&ours.template_path, nix::mount::MntFlags::MNT_DETACH)?;
    assert!(!is_mounted(&ours.template_path)?);
    factory.keep_places().await?;
    assert!(is_mounted(&ours.template_path)?);
    assert!(!ours.template_path.join("old").exists());
    let second = Factory::open(ours.clone(), &guest_spec("probe")).await;
    assert!(
        matches!(
            second,
            Err(OpenError::Place(PlaceError::Lock(LockError::Held { .. })))
        ),
        "{second:?}"
    );
    drop(factory);
    clean(&ours).await?;
    assert!(!is_mounted(&ours.template_path)?);
    Ok(())
}

fn is_mounted(path: &std::path::Path) -> anyhow::Result<bool> {
    let mounts = procfs::process::Process::myself()?.mountinfo()?;
    Ok(mounts.into_iter().any(|mount| mount.mount_point == path))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_cannot_work_says_what_it_needs() -> anyhow::Result<()> {
    let folder = new_folder()?;
    let mut missing = settings(&folder);
    missing.qemu = PathBuf::from("/nonexistent/qemu");
    let error = Factory::open(missing, &guest_spec("probe"))
        .await
        .expect_err("there is no QEMU");
    assert!(
        error
            .to_string()
            .contains("no QEMU at /nonexistent/qemu: scripts/quickstart installs one"),
        "{error}"
    );

    let mut old = settings(&folder);
    old.qemu = fake_qemu(&folder, "7.2")?;
    let error = Factory::open(old, &guest_spec("probe"))
        .await
        .expect_err("it is too old");
    assert!(
        error
            .to_string()
            .contains("is QEMU 7.2.0, and 8.2.0 is the oldest that works"),
        "{error}"
    );

    let mut broken = settings(&folder);
    broken.qemu = script(
        &folder,
        "broken",
        "#!/bin/sh\necho 'libfoo.so: not found' >&2\nexit 127\n",
    )?;
    let error = Factory::open(broken, &guest_spec("probe"))
        .await
        .expect_err("it does not start");
    assert!(
        error
            .to_string()
            .contains("exited with 127; it said: libfoo.so: not found"),
        "{error}"
    );

    if nix::unistd::Uid::effective().is_root() {
        for (user, says) in [
            ("no-such-user", "there is no user"),
            ("root", "never runs as root"),
        ] {
            let mut wrong = settings(&folder);
            wrong.qemu_user = Some(user.to_owned());
            let error = Factory::open(wrong, &guest_spec("probe"))
                .await
                .expect_err("a wrong user");
            assert!(error.to_string().contains(says), "{error}");
        }
    }
    std::fs::remove_dir_all(folder)?;
    Ok(())
}

/// `auto` believes in KVM only after a guest has booted under it, and remembers what it found.
#[tokio::test(flavor = "multi_thread")]
async fn kvm_is_proved_or_declined_with_a_reason() -> anyhow::Result<()> {
    let folder = new_folder()?;
    let mut auto = settings(&folder);
    auto.accel = vmint_factory::AccelChoice::Auto;
    // Everybody may open the device while this test runs, so that a guest is really tried where there is one.
    let device = OpenDevice::new()?;
    let factory = Factory::open(auto.clone(), &guest_spec("probe")).await?;
    let first = factory.host().clone();
    let expected = expected_accel(&factory);
    drop(factory);
    let says = match (device.is_there(), first.accel) {
        (true, vmint_factory::Accel::Kvm) => "a guest booted under KVM in ",
        (true, vmint_factory::Accel::Tcg) => "KVM does not run a guest here: ",
        (false, _) => "/dev/kvm cannot be used: ",
    };
    assert!(
        first.accel_reason.starts_with(says),
        "{}",
        first.accel_reason
    );
    assert!(
        !first.accel_reason.contains('\n'),
        "one line: {}",
        first.accel_reason
    );
    let begun = Instant::now();
    let factory = Factory::open(auto.clone(), &guest_spec("probe")).await?;
    assert_eq!(
        factory.host().accel_reason,
        first.accel_reason,
        "the verdict is remembered"
    );
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert_eq!(auto.run_dir.join("accel.json").exists(), device.is_there());
    drop(factory);
    std::fs::remove_dir_all(folder)?;
    // Last: `scripts/kvm-lab` asks by this whether KVM works here, and a no must leave nothing either.
    expected
}

/// Opens `/dev/kvm` to everybody, and gives its mode back.
struct OpenDevice(Option<std::fs::Permissions>);

impl OpenDevice {
    const PATH: &str = "/dev/kvm";

    fn new() -> anyhow::Result<Self> {
        use std::os::unix::fs::PermissionsExt;
        if !nix::unistd::Uid::effective().is_root() || !std::path::Path::new(Self::PATH).exists() {
            return Ok(Self(None));
        }
        let before = std::fs::metadata(Self::PATH)?.permissions();
        std::fs::set_permissions(Self::PATH, std::fs::Permissions::from_mode(0o666))?;
        Ok(Self(Some(before)))
    }

    fn is_there(&self) -> bool {
        std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(Self::PATH)
            .is_ok()
    }
}

impl Drop for OpenDevice {
    fn drop(&mut self) {
        if let Some(before) = self.0.take() {
            drop(std::fs::set_permissions(Self::PATH, before));
        }
    }
}

/// A QEMU that only answers its monitor: it plays one of another version. Perl is on every Debian.
fn fake_qemu(folder: &std::path::Path, version: &str) -> anyhow::Result<PathBuf> {
    let (major, minor) = version.split_once('.').unwrap_or((version, "0"));
    let text = format!(
        r#"#!/usr/bin/perl
use strict; use warnings; use IO::Handle;
my ($fd) = map {{ /fd=(\d+)/ ? $1 : () }} @ARGV;
open(my $qmp, '+<&=', $fd) or die "no monitor: $!";
$qmp->autoflush(1);
print $qmp qq({{"QMP": {{"version": {{}}, "capabilities": []}}}}\n);
my $version = '{{"package": "", "qemu": {{"major": {major}, "minor": {minor}, "micro": 0}}}}';
while (my $line = <$qmp>) {{
    my ($name) = $line =~ /"execute":"([^"]+)"/;
    my ($id) = $line =~ /"id":(\d+)/;
    my $answer = $name eq 'query-version' ? $version : $name =~ /^query-|^device-/ ? '[]' : '{{}}';
    print $qmp qq({{"return": $answer, "id": $id}}\n);
}}
"#
    );
    script(folder, "qemu-fake", &text)
}

fn script(folder: &std::path::Path, name: &str, text: &str) -> anyhow::Result<PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    let path = folder.join(name);
    std::fs::write(&path, text)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

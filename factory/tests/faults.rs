//! What goes wrong on real hosts, and that nothing is left of it.

mod support;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use support::{Lab, guest_spec, new_folder, order, settings};
use vmint_factory::{
    BuildError, BuildProgress, CloneFailure, Factory, LockError, OpenError, Phase, RoomError, clean,
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
            Some("size=64m"),
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

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_state_is_never_loaded() -> anyhow::Result<()> {
    let lab = Lab::open().await?;
    let generation = lab.build(&guest_spec("default")).await?;
    let path = lab.generation_file(&generation, "state");
    let whole = std::fs::read(&path)?;
    let mut flipped = whole.clone();
    flipped[whole.len() / 3] ^= 0x04;
    for damaged in [&flipped[..], &whole[..whole.len() - 1000], b""] {
        std::fs::remove_file(&path)?;
        std::fs::write(&path, damaged)?;
        let error = lab
            .factory
            .mint(&generation, order("x"))
            .await
            .expect_err("the state is damaged");
        assert_eq!(error.phase, Phase::Load);
        assert!(
            error.is_generation_damage() && error.to_string().contains("rebuild the template"),
            "{error}"
        );
    }
    std::fs::remove_file(&path)?;
    let error = lab
        .factory
        .mint(&generation, order("x"))
        .await
        .expect_err("there is no state");
    assert!(
        matches!(error.failure, CloneFailure::StateUnreadable { .. })
            && error.is_generation_damage()
    );
    lab.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_or_clone_that_is_dropped_leaves_nothing() -> anyhow::Result<()> {
    let lab = Lab::open().await?;
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
    let generation = lab.build(&spec).await?;
    let whole = lab.mint(&generation, "whole").await?;
    let total = whole.phases().total;
    whole.end().await;
    for step in 1..=8 {
        let mint = lab.factory.mint(&generation, order("dropped"));
        drop(tokio::time::timeout(total * step / 9, mint).await);
        lab.nothing_left().await?;
    }
    let left: Vec<_> = std::fs::read_dir(lab.settings.template_path.join("default"))?
        .flatten()
        .collect();
    assert_eq!(left.len(), 2, "one generation and the link to it: {left:?}");
    lab.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retired_generation_goes_with_its_last_clone() -> anyhow::Result<()> {
    let lab = Lab::open().await?;
    let spec = guest_spec("default");
    let old = lab.build(&spec).await?;
    let path = lab.generation_file(&old, "memory");
    let vm = lab.mint(&old, "old").await?;
    let new = lab.build(&spec).await?;
    old.retire();
    drop(old);
    assert!(path.exists(), "a clone still needs it");
    vm.end().await;
    drop(vm);
    let deadline = Instant::now() + support::LONG;
    while path.exists() {
        anyhow::ensure!(Instant::now() < deadline, "the retired generation stays");
        tokio::task::yield_now().await;
    }
    lab.mint(&new, "new").await?.end().await;
    lab.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_service_is_refused_and_cleaning_too() -> anyhow::Result<()> {
    let lab = Lab::open().await?;
    let second = Factory::open(lab.settings.clone(), &guest_spec("probe")).await;
    let Err(OpenError::Lock(LockError::Held { holder, .. })) = second else {
        anyhow::bail!("two services on one run directory: {second:?}");
    };
    assert_eq!(holder, std::process::id().to_string());
    // The same template path with another run directory is no better.
    let mut other = lab.settings.clone();
    other.run_dir = other.run_dir.with_file_name("other");
    let third = Factory::open(other, &guest_spec("probe")).await;
    assert!(
        matches!(third, Err(OpenError::Lock(LockError::Held { .. }))),
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
    Ok(())
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
    Ok(())
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

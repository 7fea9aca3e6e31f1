//! A host to test on: its own run directory and template path, the real QEMU, the real guest.
//!
//! The real tests need what `scripts/test` prepares: QEMU, the guest in `target/guest`, and as root the user `vmint`.
#![allow(dead_code, unreachable_pub, clippy::expect_used)]

mod host;
#[path = "../../src/needs_root.rs"]
pub mod needs_root;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use vmint_factory::{
    Accel, BuildProgress, CloneOrder, ExecRequest, Factory, Generation, Guest, HostSettings,
    OpenError, PlaceError, TemplateSpec, Vm, VmId,
};

pub use host::{LONG, guest_spec, new_folder, settings};

/// The time between two looks at what is waited for: a look may walk /proc, and the machines need the cores.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// Waits until `is_so`, at most [`LONG`].
pub async fn eventually(
    what: &str,
    mut is_so: impl FnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let deadline = tokio::time::Instant::now() + LONG;
    let mut looks = tokio::time::interval(LOOK_INTERVAL);
    loop {
        looks.tick().await;
        if is_so()? {
            return Ok(());
        }
        anyhow::ensure!(
            tokio::time::Instant::now() < deadline,
            "not within {LONG:?}: {what}"
        );
    }
}

/// How much a guest's clock may be off: what a clone is checked for before it is handed out.
const CLOCK_OFF: Duration = Duration::from_millis(50);

/// The host's clock.
pub fn since_epoch() -> anyhow::Result<Duration> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?)
}

/// Whether a guest that was asked between these two moments has said the right second. It may be a little off, so a
/// second that begins here may not have begun there.
pub fn clock_is_right(before: Duration, guest: &str, after: Duration) -> anyhow::Result<()> {
    let (least, most) = (before.saturating_sub(CLOCK_OFF), after + CLOCK_OFF);
    anyhow::ensure!(
        (least.as_secs()..=most.as_secs()).contains(&guest.parse()?),
        "the guest says {guest} s, the host {before:?} to {after:?}"
    );
    Ok(())
}

/// A factory of its own, and the folders that it works in. A test that fails before [`Lab::close`] leaves them.
pub struct Lab {
    pub factory: Factory,
    pub settings: HostSettings,
    folder: PathBuf,
}

impl Lab {
    pub async fn open() -> anyhow::Result<Self> {
        Self::open_with(new_folder()?, |_| {}).await
    }

    /// A lab in this folder, with other settings than the usual ones.
    pub async fn open_with(
        folder: PathBuf,
        change: impl FnOnce(&mut HostSettings),
    ) -> anyhow::Result<Self> {
        let mut settings = settings(&folder);
        change(&mut settings);
        let factory = Factory::open(settings.clone(), &guest_spec("probe")).await?;
        expected_accel(&factory)?;
        Ok(Self {
            factory,
            settings,
            folder,
        })
    }

    pub async fn build(&self, spec: &TemplateSpec) -> anyhow::Result<Arc<Generation>> {
        Ok(self.factory.build(spec, BuildProgress::default()).await?)
    }

    pub async fn mint(
        &self,
        generation: &Arc<Generation>,
        hostname: &str,
    ) -> anyhow::Result<Arc<Vm>> {
        Ok(self.factory.mint(generation, order(hostname)).await?)
    }

    pub fn generation_file(&self, generation: &Generation, name: &str) -> PathBuf {
        let template = self.settings.template_path.join(generation.template());
        template.join(generation.id().as_str()).join(name)
    }

    /// The names of the machines that have a directory.
    pub fn machines(&self) -> anyhow::Result<Vec<String>> {
        let folder = self.settings.run_dir.join("vm");
        if !folder.exists() {
            return Ok(Vec::new());
        }
        let entries = std::fs::read_dir(folder)?;
        entries
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect()
    }

    /// Waits until no machine is left: no directory, and no process of this lab.
    pub async fn nothing_left(&self) -> anyhow::Result<()> {
        let mut left = (Vec::new(), Vec::new());
        let waited = eventually("no machine is left", || {
            left = (self.machines()?, self.processes()?);
            Ok(left.0.is_empty() && left.1.is_empty())
        });
        waited
            .await
            .with_context(|| format!("directories {:?}, processes {:?}", left.0, left.1))
    }

    /// Hypervisors whose memory is in this lab's folder.
    pub fn processes(&self) -> anyhow::Result<Vec<i32>> {
        let folder = self.folder.to_string_lossy().into_owned();
        let mut found = Vec::new();
        for process in procfs::process::all_processes()?.flatten() {
            let is_ours = process
                .cmdline()
                .is_ok_and(|words| words.iter().any(|word| word.contains(&folder)));
            if is_ours {
                found.push(process.pid());
            }
        }
        Ok(found)
    }

    /// Another factory in the same folders: the service that comes after this one.
    pub async fn reopened(self) -> anyhow::Result<Self> {
        let Self {
            factory,
            settings,
            folder,
        } = self;
        drop(factory);
        // The directory is its until the last of its tasks has ended, a moment later; a process that ends takes all with it.
        let deadline = tokio::time::Instant::now() + LONG;
        let factory = loop {
            match Factory::open(settings.clone(), &guest_spec("probe")).await {
                Err(OpenError::Place(PlaceError::Lock(_)))
                    if tokio::time::Instant::now() < deadline =>
                {
                    tokio::time::sleep(LOOK_INTERVAL).await;
                }
                opened => break opened?,
            }
        };
        Ok(Self {
            factory,
            settings,
            folder,
        })
    }

    /// Looks that nothing is left, and removes the folders.
    pub async fn close(self) -> anyhow::Result<()> {
        self.nothing_left().await?;
        drop(self.factory);
        std::fs::remove_dir_all(&self.folder)?;
        Ok(())
    }
}

/// Looks that the host has the accelerator that `VMINT_TEST_EXPECT_ACCEL` says, where it is set: a test that fell
/// back to emulation would prove nothing of KVM.
pub fn expected_accel(factory: &Factory) -> anyhow::Result<()> {
    let Some(expected) = std::env::var_os("VMINT_TEST_EXPECT_ACCEL") else {
        return Ok(());
    };
    let host = factory.host();
    let found = match host.accel {
        Accel::Kvm => "kvm",
        Accel::Tcg => "tcg",
    };
    anyhow::ensure!(
        expected == found,
        "the accelerator is {found}: {}",
        host.accel_reason
    );
    Ok(())
}

pub fn order(hostname: &str) -> CloneOrder {
    CloneOrder {
        id: VmId::random(),
        hostname: hostname.to_owned(),
        on_clone: Vec::new(),
        warm: false,
        paused: false,
    }
}

/// A shell command for the guest.
pub fn sh(script: &str) -> ExecRequest {
    ExecRequest::new(vec!["sh".into(), "-c".into(), script.into()], LONG)
}

/// What a shell command writes, without the last end of line.
pub async fn output(vm: &Vm, script: &str) -> anyhow::Result<String> {
    let end = vm.exec(sh(script)).await?;
    anyhow::ensure!(end.exit_code == Some(0), "{script}: {end:?}");
    Ok(String::from_utf8(end.stdout)?.trim_end().to_owned())
}

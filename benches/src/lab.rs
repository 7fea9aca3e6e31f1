//! A factory of its own to measure.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use vmint_factory::{
    AccelChoice, BuildProgress, CloneOrder, ExecRequest, Factory, Generation, HostSettings,
    TemplateSpec, Vm, VmId,
};

/// The guest's memory in all measurements, MiB.
pub(crate) const MEMORY_MIB: u64 = 256;
/// How long anything may take.
pub(crate) const DEADLINE: Duration = Duration::from_secs(300);

/// A factory in a folder that goes with it.
pub(crate) struct Lab {
    pub(crate) factory: Factory,
    pub(crate) folder: tempfile::TempDir,
}

impl Lab {
    pub(crate) async fn open() -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("vmint-bench-")
            .tempdir_in("/dev/shm")?;
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o711))?;
        let settings = HostSettings {
            run_dir: folder.path().join("run"),
            template_path: folder.path().join("template"),
            qemu: PathBuf::from("qemu-system-x86_64"),
            qemu_user: Some("vmint".to_owned()),
            build_user: Some("vmint-build".to_owned()),
            accel: AccelChoice::Auto,
            user_networks: true,
        };
        let factory = Factory::open(settings, &spec()?).await?;
        let host = factory.host();
        println!(
            "QEMU {}, accelerator {} ({})",
            host.qemu_version,
            host.accel.as_str(),
            host.accel_reason
        );
        Ok(Self { factory, folder })
    }

    /// Boots, saves and verifies a template: its manifest has the cold boot's figures.
    pub(crate) async fn build(&self) -> anyhow::Result<Arc<Generation>> {
        Ok(self
            .factory
            .build(&spec()?, BuildProgress::default())
            .await?)
    }

    pub(crate) async fn mint(&self, generation: &Arc<Generation>) -> anyhow::Result<Arc<Vm>> {
        let order = CloneOrder {
            id: VmId::random(),
            hostname: "bench".to_owned(),
            on_clone: Vec::new(),
            // What is measured is a clone in which nothing was run yet.
            warm: false,
            paused: false,
        };
        Ok(self.factory.mint(generation, order).await?)
    }

    /// Where the files of a generation are.
    pub(crate) fn files(&self, generation: &Generation) -> PathBuf {
        self.folder
            .path()
            .join("template")
            .join(generation.template())
            .join(generation.id().as_str())
    }
}

/// The command whose answer stops the clock.
pub(crate) fn first_command() -> ExecRequest {
    ExecRequest::new(vec!["/bin/echo".to_owned(), "hello".to_owned()], DEADLINE)
}

fn spec() -> anyhow::Result<TemplateSpec> {
    let guest = guest_folder()?;
    Ok(TemplateSpec {
        memory_mib: MEMORY_MIB,
        max_memory_mib: MEMORY_MIB,
        vsock: false,
        ready_timeout: DEADLINE,
        ..TemplateSpec::new("bench", guest.join("vmlinuz"), guest.join("initrd.img"))
    })
}

/// The folder that `scripts/guest` builds into.
pub(crate) fn guest_folder() -> anyhow::Result<PathBuf> {
    let folder = match std::env::var_os("VMINT_GUEST_DIR") {
        Some(folder) => PathBuf::from(folder),
        None => target_folder()?.join("guest"),
    };
    anyhow::ensure!(
        folder.join("vmlinuz").exists(),
        "no guest in {}: run scripts/guest",
        folder.display()
    );
    Ok(folder)
}

/// Cargo's target folder: two above this program.
pub(crate) fn target_folder() -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe()?;
    let target = program.parent().and_then(Path::parent);
    target
        .map(Path::to_owned)
        .ok_or_else(|| anyhow::anyhow!("{} is in no target folder", program.display()))
}

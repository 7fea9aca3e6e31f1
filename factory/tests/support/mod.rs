//! A host to test on: its own run directory and template path, the real QEMU, the real guest.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use vmint_factory::{
    AccelChoice, BuildProgress, CloneOrder, ExecRequest, Factory, Generation, HostSettings,
    MachineType, TemplateSpec, Vm, VmId,
};

/// A factory of its own, and the folders that it works in.
pub struct Lab {
    pub factory: Factory,
    pub settings: HostSettings,
    pub folder: tempfile::TempDir,
}

impl Lab {
    pub async fn open() -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("vmint-test-")
            .tempdir_in("/dev/shm")?;
        // QEMU's user must be able to pass through to the generations.
        std::fs::set_permissions(
            folder.path(),
            std::os::unix::fs::PermissionsExt::from_mode(0o711),
        )?;
        let settings = settings(folder.path());
        let factory = Factory::open(settings.clone(), &guest_spec("probe")).await?;
        Ok(Self {
            factory,
            settings,
            folder,
        })
    }

    pub fn spec(&self, name: &str) -> TemplateSpec {
        guest_spec(name)
    }

    pub async fn build(&self, spec: &TemplateSpec) -> anyhow::Result<Arc<Generation>> {
        Ok(self.factory.build(spec, BuildProgress::default()).await?)
    }

    pub async fn mint(
        &self,
        generation: &Arc<Generation>,
        hostname: &str,
    ) -> anyhow::Result<Arc<Vm>> {
        let order = CloneOrder {
            id: VmId::random(),
            hostname: hostname.to_owned(),
            on_clone: Vec::new(),
            paused: false,
        };
        Ok(self.factory.mint(generation, order).await?)
    }

    /// Looks that nothing is left.
    pub async fn close(self) -> anyhow::Result<()> {
        let left: Vec<_> = std::fs::read_dir(self.settings.run_dir.join("vm"))?.collect();
        anyhow::ensure!(
            left.is_empty(),
            "directories of machines are left: {left:?}"
        );
        Ok(())
    }
}

pub fn settings(folder: &Path) -> HostSettings {
    HostSettings {
        run_dir: folder.join("run"),
        template_path: folder.join("template"),
        qemu: PathBuf::from("qemu-system-x86_64"),
        qemu_user: Some("vmint".to_owned()),
        accel: AccelChoice::Tcg,
    }
}

pub fn guest_spec(name: &str) -> TemplateSpec {
    let guest = guest_folder();
    TemplateSpec {
        name: name.to_owned(),
        kernel: guest.join("vmlinuz"),
        initrd: guest.join("initrd.img"),
        kernel_params: String::new(),
        machine: MachineType::Q35,
        cpu: None,
        vcpus: 1,
        max_vcpus: 1,
        memory_mib: 256,
        max_memory_mib: 256,
        ready_timeout: Duration::from_secs(120),
        console_max_bytes: 1024 * 1024,
        warmup: Vec::new(),
        verify: Vec::new(),
    }
}

fn guest_folder() -> PathBuf {
    match std::env::var_os("VMINT_GUEST_DIR") {
        Some(folder) => folder.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/guest"),
    }
}

/// A shell command for the guest.
pub fn sh(script: &str) -> ExecRequest {
    ExecRequest::new(
        vec!["sh".into(), "-c".into(), script.into()],
        Duration::from_secs(60),
    )
}

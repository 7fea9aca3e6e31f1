//! A published generation.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use super::manifest::Manifest;
use super::store;
use crate::guest::AgentKind;
use crate::{GenerationId, MachineType, Size, SizeRange, TemplateSpec};

/// One immutable build of a template. Every clone holds it, so its files stay until the last one has ended.
#[derive(Debug)]
pub struct Generation {
    path: PathBuf,
    manifest: Manifest,
    spec: TemplateSpec,
    is_retired: AtomicBool,
}

impl Generation {
    pub(super) fn new(path: PathBuf, manifest: Manifest, spec: TemplateSpec) -> Self {
        Self {
            path,
            manifest,
            spec,
            is_retired: AtomicBool::new(false),
        }
    }

    /// Its name.
    #[must_use]
    pub fn id(&self) -> &GenerationId {
        &self.manifest.generation
    }

    /// Its template's name.
    #[must_use]
    pub fn template(&self) -> &str {
        &self.manifest.template
    }

    /// The description that it fulfils.
    #[must_use]
    pub fn spec(&self) -> &TemplateSpec {
        &self.spec
    }

    /// What it says of itself.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The sizes that its clones can have.
    #[must_use]
    pub fn sizes(&self) -> SizeRange {
        let recipe = &self.manifest.recipe;
        let fixed = match (recipe.machine, self.manifest.agent) {
            (MachineType::Microvm, _) => Some("machine type microvm has no hotplug"),
            (MachineType::Q35, AgentKind::QemuGa) => Some(
                "the guest's agent is the stock qemu-ga, which vmint cannot have bring anything online: use vmint-agent",
            ),
            (MachineType::Q35, AgentKind::VmintAgent) => None,
        };
        SizeRange {
            least: Size {
                vcpus: recipe.vcpus,
                memory_mib: recipe.memory_mib,
            },
            most: Size {
                vcpus: recipe.max_vcpus,
                memory_mib: recipe.max_memory_mib,
            },
            fixed,
        }
    }

    /// What the memory file takes of the host's memory, bytes: once, however many clones map it.
    ///
    /// # Errors
    /// When the file is gone.
    pub fn memory_bytes_on_disk(&self) -> io::Result<u64> {
        const STAT_BLOCK_BYTES: u64 = 512;
        Ok(fs::metadata(self.memory())?.blocks() * STAT_BLOCK_BYTES)
    }

    /// Says that it is not needed any more: its files go with the last holder.
    pub fn retire(&self) {
        self.is_retired.store(true, Ordering::Release);
    }

    pub(crate) fn memory(&self) -> PathBuf {
        store::memory_path(&self.path)
    }

    pub(crate) fn state(&self) -> PathBuf {
        store::state_path(&self.path)
    }

    pub(crate) fn kernel_stub(&self) -> PathBuf {
        store::kernel_stub_path(&self.path)
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        if !self.is_retired.load(Ordering::Acquire) {
            return;
        }
        let (path, id) = (
            std::mem::take(&mut self.path),
            self.manifest.generation.clone(),
        );
        // Giving a few hundred MiB back takes tens of milliseconds: not on a thread that answers requests.
        std::thread::spawn(move || remove(&path, &id));
    }
}

fn remove(path: &Path, id: &GenerationId) {
    match fs::remove_dir_all(path) {
        Ok(()) => {
            tracing::info!(generation = %id, "the retired generation is removed: its last clone has ended")
        }
        Err(error) => {
            tracing::warn!(generation = %id, %error, "a retired generation cannot be removed")
        }
    }
}

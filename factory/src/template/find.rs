//! Takes up the generation that is on disk.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::build::file_seal;
use super::generation::Generation;
use super::manifest::{FileSeal, Manifest};
use super::stale::StaleField;
use super::store;
use crate::host::Host;
use crate::memory;
use crate::{GenerationId, TemplateSpec};

/// What there is of a template on disk.
#[derive(Clone, Debug)]
pub enum Found {
    /// A generation that is whole and is what is wanted.
    Current(Arc<Generation>),
    /// A generation that is whole, and is not what is wanted any more.
    Stale {
        /// Which.
        generation: GenerationId,
        /// In what it differs.
        fields: Vec<StaleField>,
    },
    /// A generation that is not whole.
    Damaged {
        /// Which.
        generation: GenerationId,
        /// What is wrong with it.
        reason: String,
    },
    /// Nothing.
    None,
}

/// Why it cannot be told what there is.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FindError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", .path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// What an earlier service left cannot be removed.
    #[error("cannot remove the old generations of template {template}: {source}")]
    Remove {
        /// The template.
        template: String,
        /// Why not.
        source: io::Error,
    },
}

/// Looks for a generation of a template, checks every byte of it, and removes every other one. It blocks, for as
/// long as the digest of the memory takes.
pub(crate) fn find(host: &Host, spec: &TemplateSpec) -> Result<Found, FindError> {
    let store = host.store(&spec.name);
    let unreadable = |path: &Path| {
        let path = path.to_owned();
        move |source| FindError::Read { path, source }
    };
    let current = store.current().map_err(unreadable(&host.template_path))?;
    let removed = store.remove_others(current.as_ref());
    let removed = removed.map_err(|source| FindError::Remove {
        template: spec.name.clone(),
        source,
    })?;
    if !removed.is_empty() {
        tracing::info!(
            template = spec.name,
            generations = removed.join(" "),
            "removed generations that are not current"
        );
    }
    let Some(id) = current else {
        return Ok(Found::None);
    };
    let path = store.generation_path(&id);
    let manifest = match Manifest::read(&path).and_then(|manifest| check_files(&path, manifest)) {
        Ok(manifest) => manifest,
        Err(error) => {
            return Ok(Found::Damaged {
                generation: id,
                reason: error.to_string(),
            });
        }
    };
    let kernel = fs::read(&spec.kernel).map_err(unreadable(&spec.kernel))?;
    let initrd = fs::read(&spec.initrd).map_err(unreadable(&spec.initrd))?;
    let wanted = host.recipe_of(
        spec,
        memory::bytes_digest(&kernel),
        memory::bytes_digest(&initrd),
    );
    let fields = manifest.recipe.differences(&wanted);
    if fields.is_empty() {
        Ok(Found::Current(Arc::new(Generation::new(
            path,
            manifest,
            spec.clone(),
        ))))
    } else {
        Ok(Found::Stale {
            generation: id,
            fields,
        })
    }
}

fn check_files(path: &Path, manifest: Manifest) -> io::Result<Manifest> {
    let files = &manifest.files;
    check_file(&store::state_path(path), &files.state)?;
    check_file(&store::kernel_stub_path(path), &files.kernel_stub)?;
    check_file(&store::memory_path(path), &files.memory)?;
    Ok(manifest)
}

fn check_file(path: &Path, wanted: &FileSeal) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let wrong = |why: String| io::Error::new(io::ErrorKind::InvalidData, format!("{name}: {why}"));
    let length = fs::metadata(path).map_err(|e| wrong(e.to_string()))?.len();
    if length != wanted.bytes {
        return Err(wrong(format!(
            "it has {length} bytes and the manifest says {}",
            wanted.bytes
        )));
    }
    let found = file_seal(path).map_err(|e| wrong(e.to_string()))?;
    if found.digest != wanted.digest {
        return Err(wrong(format!(
            "its digest is {} and the manifest says {}",
            found.digest, wanted.digest
        )));
    }
    Ok(())
}

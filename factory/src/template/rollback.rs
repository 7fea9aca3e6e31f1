//! Back to an earlier generation.

use std::io;
use std::path::{Path, PathBuf};

use super::check::{Look, check};
use super::generation::Generation;
use super::keep;
use super::manifest::{Manifest, Recipe};
use crate::host::Host;
use crate::{GenerationId, TemplateSpec};

/// Why a template was not rolled back. Its current generation is what it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RollbackError {
    /// There is nothing to go back to.
    #[error(
        "template {template} has no earlier generation on disk: keep_generations says how many are kept"
    )]
    NoEarlier {
        /// The template.
        template: String,
    },
    /// There are earlier ones, and none of them can be used.
    #[error("no earlier generation of template {template} can be used: {}", .refused.join("; "))]
    NoneUsable {
        /// The template.
        template: String,
        /// Each with the reason.
        refused: Vec<String>,
    },
    /// Files cannot be read or the link not be changed.
    #[error("cannot roll template {template} back in {}: {source}", .path.display())]
    File {
        /// The template.
        template: String,
        /// The template's directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl RollbackError {
    /// Whether it is for want of a generation to go back to.
    #[must_use]
    pub fn is_impossible(&self) -> bool {
        matches!(self, Self::NoEarlier { .. } | Self::NoneUsable { .. })
    }
}

/// Gives a generation up of which clones cannot be made: makes `back_to` the current one, which is in use and on disk,
/// and lets the other one's files go with its last clone.
pub(crate) fn give_up(
    host: &Host,
    spec: &TemplateSpec,
    given_up: &GenerationId,
    back_to: &GenerationId,
) -> io::Result<()> {
    let _turn = host.registry.publishing();
    let store = host.store(&spec.name);
    let path = store.generation_path(back_to);
    Manifest::read(&path)?;
    store.publish(back_to)?;
    host.registry.hold(&path).set_surplus(false);
    let no_good = host.registry.hold(&store.generation_path(given_up));
    no_good.found_damaged();
    no_good.set_surplus(true);
    tracing::info!(template = spec.name, %given_up, %back_to, "rolled back");
    Ok(())
}

/// Makes the newest earlier generation that is whole and can be restored here the current one. It blocks, for as
/// long as the digest of a memory takes.
pub(crate) fn rollback(host: &Host, spec: &TemplateSpec) -> Result<Generation, RollbackError> {
    let _turn = host.registry.publishing();
    let store = host.store(&spec.name);
    let failed = |source| RollbackError::File {
        template: spec.name.clone(),
        path: store.path().to_owned(),
        source,
    };
    let current = store.current().map_err(failed)?;
    let all = keep::generations(store.path()).map_err(failed)?;
    // Those behind the current one are older; where there is no current one, all are.
    let is_current = |path: &PathBuf| {
        current
            .as_ref()
            .is_some_and(|id| *path == store.generation_path(id))
    };
    let after = all.iter().position(is_current).map_or(0, |at| at + 1);
    let earlier = &all[after..];
    if earlier.is_empty() {
        let template = spec.name.clone();
        return Err(RollbackError::NoEarlier { template });
    }
    let mut refused = Vec::new();
    for path in earlier {
        match usable(host, path) {
            Ok(manifest) => {
                let id = manifest.generation.clone();
                let generation = Generation::new(&host.registry, path, manifest, spec.clone());
                store.publish(&id).map_err(failed)?;
                generation.is_needed();
                tracing::info!(template = spec.name, generation = %id, before = ?current, "rolled back");
                return Ok(generation);
            }
            Err(why) => refused.push(format!("{}: {why}", name_of(path))),
        }
    }
    Err(RollbackError::NoneUsable {
        template: spec.name.clone(),
        refused,
    })
}

fn name_of(path: &Path) -> String {
    let id = path
        .file_name()
        .and_then(|name| name.to_str())
        .and_then(GenerationId::parse);
    id.map_or_else(|| path.display().to_string(), |id| id.to_string())
}

/// The manifest of a generation that is whole, byte for byte, and that this host can restore; else why not.
fn usable(host: &Host, path: &Path) -> Result<Manifest, String> {
    if host
        .registry
        .held(path)
        .is_some_and(|files| files.is_damaged())
    {
        return Err("it was found damaged before".to_owned());
    }
    let manifest = check(path, &host.digests, Look::EveryByte).map_err(|e| e.to_string())?;
    refuse_foreign(&manifest.recipe, &host.platform())?;
    Ok(manifest)
}

/// What of a host a saved state depends on.
#[derive(Clone, Debug)]
pub(crate) struct Platform {
    pub(crate) qemu_version: String,
    pub(crate) qemu_digest: String,
    pub(crate) accel: crate::Accel,
    pub(crate) cpu: crate::HostCpu,
}

/// Refuses what another QEMU build, another accelerator or another processor has saved: it may load, and be wrong.
pub(crate) fn refuse_foreign(recipe: &Recipe, here: &Platform) -> Result<(), String> {
    let now = Recipe {
        qemu_version: here.qemu_version.clone(),
        qemu_digest: here.qemu_digest.clone(),
        accel: here.accel,
        host_cpu: here.cpu.clone(),
        ..recipe.clone()
    };
    let differences = recipe.differences(&now);
    if differences.is_empty() {
        return Ok(());
    }
    let words: Vec<_> = differences
        .iter()
        .map(|field| {
            format!(
                "{} was {} and is {}",
                field.field, field.built_with, field.now
            )
        })
        .collect();
    Err(words.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Accel;
    use crate::template::stale::tests::recipe;

    #[test]
    fn what_another_host_has_saved_is_refused_with_the_field() {
        let recipe = recipe();
        let here = || Platform {
            qemu_version: recipe.qemu_version.clone(),
            qemu_digest: recipe.qemu_digest.clone(),
            accel: recipe.accel,
            cpu: recipe.host_cpu.clone(),
        };
        assert_eq!(refuse_foreign(&recipe, &here()), Ok(()));
        let mut rebuilt = here();
        rebuilt.qemu_digest = "blake3:ff".into();
        let mut other_cpu = here();
        other_cpu.cpu.stepping = "9".into();
        other_cpu.cpu.flags = "blake3:ee".into();
        let mut renamed = here();
        renamed.cpu.name = "the same with another sticker".into();
        let mut accelerated = here();
        accelerated.accel = Accel::Kvm;
        let words = |here| refuse_foreign(&recipe, &here).err().unwrap_or_default();
        assert_eq!(words(rebuilt), "qemu_digest was blake3:aa and is blake3:ff");
        assert!(words(other_cpu).starts_with("host_cpu.stepping was  and is 9, host_cpu.flags"));
        assert_eq!(words(accelerated), "accel was tcg and is kvm");
        assert_eq!(words(renamed), "");
    }
}

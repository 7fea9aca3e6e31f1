//! Back to an earlier generation.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::check::{Look, judge};
use super::generation::{Generation, GenerationFiles, Registry};
use super::keep;
use super::manifest::{Manifest, Recipe};
use super::store::Store;
use crate::host::Host;
use crate::memory::Digests;
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
    /// Another generation has become the current one while an earlier one was checked.
    #[error(
        "template {template} was not rolled back: its current generation is {current} since a moment ago; \
         roll it back again where that is still wanted"
    )]
    Overtaken {
        /// The template.
        template: String,
        /// Its current generation.
        current: String,
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
    /// Whether it is for want of a generation to go back to from the one that is current.
    #[must_use]
    pub fn is_impossible(&self) -> bool {
        match self {
            Self::NoEarlier { .. } | Self::NoneUsable { .. } | Self::Overtaken { .. } => true,
            Self::File { .. } => false,
        }
    }
}

/// Gives a generation up of which clones cannot be made: makes `back_to` the current one, which is in use and on disk,
/// and lets the other one's files go with its last clone. It blocks.
pub(crate) fn give_up(
    host: &Host,
    spec: &TemplateSpec,
    given_up: &GenerationId,
    back_to: &GenerationId,
) -> io::Result<()> {
    let (store, registry) = (host.store(&spec.name), &host.registry);
    registry.publishing(store.path(), || {
        registry.renew_place()?;
        let path = store.generation_path(back_to);
        // Held first: what is current must not go because its last clone has just ended.
        let files = registry.hold(&path);
        files.set_surplus(false);
        Manifest::read(&path)?;
        store.publish(back_to)?;
        let no_good = registry.hold(&store.generation_path(given_up));
        no_good.found_damaged();
        no_good.set_surplus(true);
        tracing::info!(template = spec.name, %given_up, %back_to, "rolled back");
        Ok(())
    })
}

/// Makes the newest earlier generation that is whole and can be restored here the current one. It blocks, for as
/// long as the digest of a memory takes.
pub(crate) fn rollback(host: &Host, spec: &TemplateSpec) -> Result<Generation, RollbackError> {
    let way = WayBack {
        store: host.store(&spec.name),
        registry: &host.registry,
        digests: &host.digests,
        platform: host.platform(),
        spec,
    };
    way.take()
}

/// What a rollback needs.
struct WayBack<'a> {
    store: Store,
    registry: &'a Arc<Registry>,
    digests: &'a Digests,
    platform: Platform,
    spec: &'a TemplateSpec,
}

impl WayBack<'_> {
    fn take(&self) -> Result<Generation, RollbackError> {
        let failed = |source| self.failed(source);
        let template = || self.spec.name.clone();
        self.registry.renew_place().map_err(failed)?;
        let current = self.store.current().map_err(failed)?;
        let all = keep::generations(self.store.path()).map_err(failed)?;
        // Those behind the current one are older; where there is no current one, all are.
        let is_current = |path: &PathBuf| {
            current
                .as_ref()
                .is_some_and(|id| *path == self.store.generation_path(id))
        };
        let after = all.iter().position(is_current).map_or(0, |at| at + 1);
        let earlier = &all[after..];
        if earlier.is_empty() {
            let template = template();
            return Err(RollbackError::NoEarlier { template });
        }
        let mut refused = Vec::new();
        for path in earlier {
            // Held before it is looked at: nobody removes it meanwhile, and no other template waits for its bytes.
            let files = self.registry.hold(path);
            match self.usable(path, &files) {
                Ok(Ok(manifest)) => return self.switch(path, manifest, current.as_ref()),
                Ok(Err(why)) => refused.push(format!("{}: {why}", name_of(path))),
                Err(source) => return Err(self.failed(source)),
            }
        }
        let template = template();
        Err(RollbackError::NoneUsable { template, refused })
    }

    /// Makes a generation that is held and whole the current one, unless `before` no longer is.
    fn switch(
        &self,
        path: &Path,
        manifest: Manifest,
        before: Option<&GenerationId>,
    ) -> Result<Generation, RollbackError> {
        let (id, template) = (manifest.generation.clone(), &self.spec.name);
        let generation = Generation::new(self.registry, path, manifest, self.spec.clone());
        self.registry.publishing(self.store.path(), || {
            let current = self.store.current().map_err(|e| self.failed(e))?;
            if current.as_ref() != before {
                return Err(RollbackError::Overtaken {
                    template: template.clone(),
                    current: current.map_or_else(|| "none".to_owned(), |id| id.to_string()),
                });
            }
            generation.is_needed();
            self.store.publish(&id).map_err(|e| self.failed(e))
        })?;
        tracing::info!(template, generation = %id, ?before, "rolled back");
        Ok(generation)
    }

    /// The manifest of a generation that is whole, byte for byte, and that this host can restore; else why not.
    ///
    /// # Errors
    /// When that cannot be told at present.
    fn usable(&self, path: &Path, files: &GenerationFiles) -> io::Result<Result<Manifest, String>> {
        if files.is_damaged() {
            return Ok(Err("it was found damaged before".to_owned()));
        }
        let judged = judge(path, self.digests, Look::EveryByte)?;
        Ok(judged.and_then(|manifest| {
            let fits = refuse_foreign(&manifest.recipe, &self.platform);
            fits.map(|()| manifest).map_err(|e| e.to_string())
        }))
    }

    fn failed(&self, source: io::Error) -> RollbackError {
        RollbackError::File {
            template: self.spec.name.clone(),
            path: self.store.path().to_owned(),
            source,
        }
    }
}

fn name_of(path: &Path) -> String {
    let id = path
        .file_name()
        .and_then(|name| name.to_str())
        .and_then(GenerationId::parse);
    id.map_or_else(|| path.display().to_string(), |id| id.to_string())
}

/// What of a host a saved state depends on.
#[derive(Clone, Debug)]
pub(crate) struct Platform {
    pub(crate) qemu_version: String,
    /// Else, in words, why the program cannot be read.
    pub(crate) qemu_digest: Result<String, String>,
    pub(crate) accel: crate::Accel,
    pub(crate) cpu: crate::HostCpu,
    /// The devices of a machine of this version of vmint.
    pub(crate) devices: u32,
}

/// Why a generation is not restored on a host.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Misfit {
    /// Another QEMU build, accelerator, processor or version of vmint's machines has saved it.
    #[error("{0}")]
    Foreign(String),
    /// It cannot be told at present whether another QEMU build has saved it.
    #[error("it cannot be told whether this QEMU has saved it: {0}")]
    Unverified(String),
}

/// Refuses what another QEMU build, another accelerator or another processor has saved, which may load and be wrong, and
/// what a version of vmint has saved whose machines have other devices, which does not load.
pub(crate) fn refuse_foreign(recipe: &Recipe, here: &Platform) -> Result<(), Misfit> {
    let qemu_digest = here.qemu_digest.as_ref().unwrap_or(&recipe.qemu_digest);
    let now = Recipe {
        qemu_version: here.qemu_version.clone(),
        qemu_digest: qemu_digest.clone(),
        accel: here.accel,
        host_cpu: here.cpu.clone(),
        devices: here.devices,
        ..recipe.clone()
    };
    let differences = recipe.differences(&now);
    if differences.is_empty() {
        let unreadable = here.qemu_digest.as_ref().err();
        return unreadable.map_or(Ok(()), |why| Err(Misfit::Unverified(why.clone())));
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
    Err(Misfit::Foreign(words.join(", ")))
}

#[cfg(test)]
#[path = "rollback_tests.rs"]
mod way_back_tests;

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
            qemu_digest: Ok(recipe.qemu_digest.clone()),
            accel: recipe.accel,
            cpu: recipe.host_cpu.clone(),
            devices: recipe.devices,
        };
        assert_eq!(refuse_foreign(&recipe, &here()), Ok(()));
        let mut rebuilt = here();
        rebuilt.qemu_digest = Ok("blake3:ff".into());
        let mut other_cpu = here();
        other_cpu.cpu.stepping = "9".into();
        other_cpu.cpu.flags = "blake3:ee".into();
        let mut renamed = here();
        renamed.cpu.name = "the same with another sticker".into();
        let mut accelerated = here();
        accelerated.accel = Accel::Kvm;
        let mut upgraded = here();
        upgraded.devices += 1;
        let words = |here| match refuse_foreign(&recipe, &here) {
            Err(Misfit::Foreign(words)) => words,
            other => format!("{other:?}"),
        };
        assert_eq!(words(rebuilt), "qemu_digest was blake3:aa and is blake3:ff");
        assert!(words(other_cpu).starts_with("host_cpu.stepping was  and is 9, host_cpu.flags"));
        assert_eq!(words(accelerated), "accel was tcg and is kvm");
        assert!(words(upgraded).starts_with("devices was "));
        assert_eq!(words(renamed), "Ok(())");
    }

    #[test]
    fn a_hypervisor_that_cannot_be_read_is_not_another_one() {
        let recipe = recipe();
        let gone = || "/usr/bin/qemu cannot be read: gone".to_owned();
        let mut here = Platform {
            qemu_version: recipe.qemu_version.clone(),
            qemu_digest: Err(gone()),
            accel: recipe.accel,
            cpu: recipe.host_cpu.clone(),
            devices: recipe.devices,
        };
        let misfit = refuse_foreign(&recipe, &here);
        assert_eq!(misfit, Err(Misfit::Unverified(gone())));
        // What is known to differ needs no digest.
        here.accel = Accel::Kvm;
        let misfit = refuse_foreign(&recipe, &here);
        assert_eq!(
            misfit,
            Err(Misfit::Foreign("accel was tcg and is kvm".into()))
        );
    }
}

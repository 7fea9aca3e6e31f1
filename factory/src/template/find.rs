//! Takes up the generation that is on disk.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::check::{Look, check, judge, read_manifest, read_manifest_of};
use super::generation::Generation;
use super::keep;
use super::rollback::{Misfit, refuse_foreign};
use super::stale::{StaleField, Staleness, UnverifiedField};
use crate::host::Host;
use crate::shortage::is_shortage;
use crate::{GenerationId, TemplateSpec};

/// What there is of a template on disk, where a generation is a `G`.
#[derive(Clone, Debug)]
pub enum Found<G = Arc<Generation>> {
    /// A generation that is whole and is what is wanted.
    Current(G),
    /// A generation that is whole and not known to differ from what is wanted: some of it cannot be compared at present.
    Unverified {
        /// The generation.
        generation: G,
        /// What cannot be compared.
        fields: Vec<UnverifiedField>,
    },
    /// A generation that is whole, and is not what is wanted any more.
    Stale {
        /// Which.
        generation: GenerationId,
        /// In what it differs.
        fields: Vec<StaleField>,
        /// The generation, where clones of it can still be made: not when another QEMU build, accelerator,
        /// processor or version of vmint's machines has made it.
        restorable: Option<G>,
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

impl<G> Found<G> {
    /// The same, with something else for the generation.
    pub fn map<H>(self, of: impl FnOnce(G) -> H) -> Found<H> {
        match self {
            Self::Current(generation) => Found::Current(of(generation)),
            Self::Unverified { generation, fields } => Found::Unverified {
                generation: of(generation),
                fields,
            },
            Self::Stale {
                generation,
                fields,
                restorable,
            } => Found::Stale {
                generation,
                fields,
                restorable: restorable.map(of),
            },
            Self::Damaged { generation, reason } => Found::Damaged { generation, reason },
            Self::None => Found::None,
        }
    }
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

impl FindError {
    /// Whether the service lacks the descriptors or the memory to look at it: that says nothing about what is there.
    #[must_use]
    pub fn is_shortage(&self) -> bool {
        match self {
            Self::Read { source, .. } | Self::Remove { source, .. } => is_shortage(source),
        }
    }
}

/// Looks for a generation of a template, checks every byte of it, and lets go of those that are more than are kept. It
/// blocks, for as long as the digest of the memory takes.
pub(crate) fn find(host: &Host, spec: &TemplateSpec) -> Result<Found, FindError> {
    let store = host.store(&spec.name);
    let unreadable = |path: &Path| {
        let path = path.to_owned();
        move |source| FindError::Read { path, source }
    };
    let place = host.registry.renew_place();
    place.map_err(unreadable(&host.template_path))?;
    prune(host, spec).map_err(|source| FindError::Remove {
        template: spec.name.clone(),
        source,
    })?;
    let current = store.current().map_err(unreadable(&host.template_path))?;
    let Some(id) = current else {
        return Ok(Found::None);
    };
    let path = store.generation_path(&id);
    let judged = judge(&path, &host.digests, Look::EveryByte).map_err(unreadable(&path))?;
    let manifest = match judged {
        Ok(manifest) => manifest,
        Err(reason) => {
            let generation = id;
            return Ok(Found::Damaged { generation, reason });
        }
    };
    let Staleness {
        differing: fields,
        unverified,
    } = host.recipe_now(spec).compare(&manifest.recipe);
    let misfit = refuse_foreign(&manifest.recipe, &host.platform());
    let is_foreign = matches!(misfit, Err(Misfit::Foreign(_)));
    let generation = Arc::new(Generation::new(
        &host.registry,
        &path,
        manifest,
        spec.clone(),
    ));
    Ok(if fields.is_empty() && unverified.is_empty() {
        Found::Current(generation)
    } else if fields.is_empty() {
        let fields = unverified;
        Found::Unverified { generation, fields }
    } else {
        Found::Stale {
            generation: id,
            fields,
            restorable: (!is_foreign).then_some(generation),
        }
    })
}

/// A generation that clones of an earlier service were made from.
#[derive(Debug)]
pub(crate) enum TakenUp {
    /// It is whole, byte for byte.
    Whole(Arc<Generation>),
    /// It is known what it was, and a file of it is not what it was, for this reason: no clone is made of it any more.
    Damaged(Arc<Generation>, String),
}

/// Takes up one generation, current or not; `machines` are the directories of clones of it, which have a copy of its
/// manifest. It blocks.
///
/// # Errors
/// When nothing says what it was.
pub(crate) fn take_up(
    host: &Host,
    spec: &TemplateSpec,
    id: &GenerationId,
    machines: &[PathBuf],
) -> io::Result<TakenUp> {
    let path = host.store(&spec.name).generation_path(id);
    let of = |manifest| {
        let registry = &host.registry;
        Arc::new(Generation::new(registry, &path, manifest, spec.clone()))
    };
    let damage = match check(&path, &host.digests, Look::EveryByte) {
        Ok(manifest) => return Ok(TakenUp::Whole(of(manifest))),
        Err(damage) => damage,
    };
    if !is_shortage(&damage) {
        let files = host.registry.hold(&path);
        files.found_damaged();
        files.go_if_lost();
    }
    let mut copies = machines.iter();
    let manifest = read_manifest(&path).or_else(|unreadable| {
        let copy = copies.find_map(|machine| read_manifest_of(id.as_str(), machine).ok());
        copy.ok_or(unreadable)
    })?;
    Ok(TakenUp::Damaged(of(manifest), damage.to_string()))
}

/// Lets go of the generations that are more than are kept.
fn prune(host: &Host, spec: &TemplateSpec) -> io::Result<()> {
    let (store, registry) = (host.store(&spec.name), &host.registry);
    let removed = registry.publishing(store.path(), || {
        let surplus = keep::surplus(store.path(), spec.keep_generations, None, registry)?;
        keep::let_go(surplus, registry)
    })?;
    if !removed.is_empty() {
        tracing::info!(
            template = spec.name,
            generations = removed.join(" "),
            "removed generations that are not kept"
        );
    }
    Ok(())
}

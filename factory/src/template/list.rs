//! The generations of a template that are on disk.

use std::io;

use super::check::{Look, judge};
use super::keep;
use super::manifest::Manifest;
use super::rollback::{Misfit, refuse_foreign};
use super::stale::{StaleField, UnverifiedField};
use crate::host::Host;
use crate::{GenerationId, TemplateSpec};

/// One generation on disk.
#[derive(Clone, Debug)]
pub struct ListedGeneration {
    /// Which.
    pub id: GenerationId,
    /// Whether new clones are made from it.
    pub is_current: bool,
    /// Whether clones of it live, or it is held for some to come.
    pub is_in_use: bool,
    /// What it is worth.
    pub validity: Validity,
    /// What it says of itself; none when it is damaged.
    pub manifest: Option<Manifest>,
}

/// What a generation on disk is worth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Validity {
    /// It is whole and is what is wanted.
    Valid,
    /// It is whole and not known to differ from what is wanted: some of it cannot be compared at present.
    Unverified(Vec<UnverifiedField>),
    /// It is whole, could be rolled back to, and is not what is wanted now.
    Stale(Vec<StaleField>),
    /// It is whole, and this host cannot restore it: another QEMU build, accelerator or processor has made it.
    Foreign(String),
    /// A file of it is missing, cut short or altered.
    Damaged(String),
}

/// Looks at all of them, the newest first. A file is read only when it has changed since it was read last; the first
/// time blocks for as long as the digests of all memories take.
///
/// # Errors
/// When one cannot be looked at: then nothing is known of any of them.
pub(crate) fn list(host: &Host, spec: &TemplateSpec) -> io::Result<Vec<ListedGeneration>> {
    let store = host.store(&spec.name);
    let current = store.current()?;
    let wanted = host.recipe_now(spec);
    let platform = host.platform();
    let mut listed = Vec::new();
    for path in keep::generations(store.path())? {
        let name = path.file_name().and_then(|name| name.to_str());
        let Some(id) = name.and_then(GenerationId::parse) else {
            continue;
        };
        let held = host.registry.held(&path);
        let is_damaged = held.as_ref().is_some_and(|files| files.is_damaged());
        let (validity, manifest) = match judge(&path, &host.digests, Look::Changes)? {
            Err(damage) => (Validity::Damaged(damage), None),
            Ok(_) if is_damaged => {
                let why = "it was found damaged before".to_owned();
                (Validity::Damaged(why), None)
            }
            Ok(manifest) => {
                let staleness = wanted.compare(&manifest.recipe);
                let validity = match refuse_foreign(&manifest.recipe, &platform) {
                    Err(Misfit::Foreign(why)) => Validity::Foreign(why),
                    _ if !staleness.differing.is_empty() => Validity::Stale(staleness.differing),
                    _ if !staleness.unverified.is_empty() => {
                        Validity::Unverified(staleness.unverified)
                    }
                    _ => Validity::Valid,
                };
                (validity, Some(manifest))
            }
        };
        listed.push(ListedGeneration {
            is_current: current.as_ref() == Some(&id),
            is_in_use: held.is_some(),
            id,
            validity,
            manifest,
        });
    }
    Ok(listed)
}

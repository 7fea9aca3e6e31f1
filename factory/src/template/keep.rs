//! Which generations of a template stay on disk.
//!
//! The current one, then the one before it, then the newest of the others, as many as [`crate::TemplateSpec`] says. The
//! rest is surplus: removed at once, or with the last clone of it. What is not whole counts for nothing and is surplus.
//!
//! A directory without a manifest is none of this module's business: it may be a build that goes on. What a crash has
//! left of builds is removed when the factory opens ([`sweep_half_built`]), before anything can be built.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::check::{Look, judge};
use super::generation::{Registry, remove, remove_aside};
use super::manifest;
use super::store::{Store, current_of};
use crate::GenerationId;
use crate::memory::Digests;

/// One generation on disk.
#[derive(Clone, Debug)]
struct Candidate {
    path: PathBuf,
    id: GenerationId,
    is_whole: bool,
}

/// The generations of a template that have a manifest, by their paths, the newest first.
pub(super) fn generations(store: &Path) -> io::Result<Vec<PathBuf>> {
    let found = candidates(store, &Registry::default())?;
    Ok(found.into_iter().map(|candidate| candidate.path).collect())
}

fn candidates(store: &Path, registry: &Registry) -> io::Result<Vec<Candidate>> {
    let entries = match fs::read_dir(store) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        let Some(id) = entry.file_name().to_str().and_then(GenerationId::parse) else {
            continue;
        };
        let path = entry.path();
        if !entry.file_type()?.is_dir() || !manifest::is_there(&path) {
            continue;
        }
        let is_damaged = registry.held(&path).is_some_and(|files| files.is_damaged());
        let looks_whole = judge(&path, &Digests::default(), Look::Length)?.is_ok();
        let is_whole = looks_whole && !is_damaged;
        found.push(Candidate { path, id, is_whole });
    }
    // Their names sort by age.
    found.sort_by(|a, b| b.id.cmp(&a.id));
    Ok(found)
}

/// The generations beyond the `keep` that stay; `before` is the one that was current before the current one.
pub(super) fn surplus(
    store: &Path,
    keep: u32,
    before: Option<&GenerationId>,
    registry: &Registry,
) -> io::Result<Vec<PathBuf>> {
    let current = current_of(store)?;
    let mut found = candidates(store, registry)?;
    let rank = |candidate: &Candidate| match &candidate.id {
        id if Some(id) == current.as_ref() => 0,
        _ if !candidate.is_whole => 3,
        id if Some(id) == before => 1,
        _ => 2,
    };
    // Stable: within a rank the newest stay first.
    found.sort_by_key(rank);
    let keep = usize::try_from(keep.max(1)).unwrap_or(usize::MAX);
    let kept = found.iter().take(keep).take_while(|c| rank(c) < 3).count();
    let surplus = found.split_off(kept);
    for candidate in found {
        if let Some(files) = registry.held(&candidate.path) {
            files.set_surplus(false);
        }
    }
    Ok(surplus
        .into_iter()
        .map(|candidate| candidate.path)
        .collect())
}

/// Lets go of generations: those that somebody holds go with their last holder, the others now. Answers the names of
/// the latter.
pub(super) fn let_go(surplus: Vec<PathBuf>, registry: &Registry) -> io::Result<Vec<String>> {
    let mut removed = Vec::new();
    for path in surplus {
        // Without its manifest it is none any more, however long the rest takes to be removed.
        if let Some(files) = registry.end_unheld(&path)? {
            files.set_surplus(true);
            continue;
        }
        removed.push(
            path.file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
        );
        remove_aside(path);
    }
    Ok(removed)
}

/// Removes a generation that is only kept to go back to. Returns whether it is gone: not where it is the current one, or where
/// somebody holds it, because clones of it live or a pool would roll back to it. It blocks until its memory is free.
///
/// # Errors
/// When it cannot be removed: part of it may be there, and has its memory. The same call tries it again.
pub(crate) fn drop_kept(store: &Store, id: &GenerationId, registry: &Registry) -> io::Result<bool> {
    let path = store.generation_path(id);
    registry.publishing(store.path(), || {
        if store.current()?.as_ref() == Some(id) || registry.end_unheld(&path)?.is_some() {
            return Ok(false);
        }
        remove(&path)?;
        Ok(true)
    })
}

/// Removes what builds have left that were cut off: generations without a manifest that nobody holds, half links. The
/// caller has just taken the lock, so nothing is being built. Answers what was removed, one line each.
pub(crate) fn sweep_half_built(
    template_path: &Path,
    registry: &Registry,
) -> io::Result<Vec<String>> {
    let mut done = Vec::new();
    for entry in fs::read_dir(template_path)? {
        let template = entry?;
        if !template.file_type()?.is_dir() {
            continue;
        }
        for entry in fs::read_dir(template.path())? {
            let entry = entry?;
            let (path, name) = (entry.path(), entry.file_name());
            let is_dir = entry.file_type()?.is_dir();
            let is_half_built = is_dir && !manifest::is_there(&path);
            if is_half_built && registry.held(&path).is_none() {
                fs::remove_dir_all(&path)?;
                let template = template.file_name();
                done.push(format!(
                    "removed generation {} of template {}, whose build was cut off",
                    name.to_string_lossy(),
                    template.to_string_lossy()
                ));
            } else if !is_dir && name == super::store::CURRENT_NEW {
                fs::remove_file(&path)?;
            }
        }
    }
    Ok(done)
}

#[cfg(test)]
#[path = "keep_tests.rs"]
pub(super) mod tests;

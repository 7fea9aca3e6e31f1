//! Nothing of a template stays on disk.

use std::fs;
use std::io;
use std::path::Path;

use super::generation::Registry;
use super::keep;
use super::store::{Store, current_of};
use crate::TemplateSpec;
use crate::host::Host;

/// Why not all of a template was removed.
#[derive(Debug, thiserror::Error)]
#[error("cannot remove the generations of template {template}: {source}")]
pub struct ForgetError {
    template: String,
    source: io::Error,
}

/// Removes a template: the link to its current generation first, then every generation. Those that somebody holds go
/// with their last holder. It blocks.
pub(crate) fn forget(
    store: &Store,
    template: &str,
    registry: &Registry,
) -> Result<(), ForgetError> {
    let removed = registry.publishing(store.path(), || {
        registry
            .renew_place()
            .and_then(|()| remove(store, registry))
    });
    removed.map_err(|source| ForgetError {
        template: template.to_owned(),
        source,
    })
}

/// Removes what an earlier service has left of templates that are none any more: nobody would find it again, and it
/// takes memory. What cannot be removed is told in the log. It blocks.
pub(crate) fn forget_others(host: &Host, specs: &[TemplateSpec]) {
    let names: Vec<_> = specs.iter().map(|spec| spec.name.as_str()).collect();
    let left = match others(&host.template_path, &names) {
        Ok(left) => left,
        Err(error) => {
            let path = host.template_path.display();
            tracing::warn!(%path, %error, "it cannot be told what is left of other templates");
            return;
        }
    };
    for template in left {
        match forget(&host.store(&template), &template, &host.registry) {
            Ok(()) => tracing::info!(
                template,
                "removed a template that is not configured any more"
            ),
            Err(error) => {
                tracing::warn!(%error, "a template that is not configured any more stays on disk")
            }
        }
    }
}

/// The templates other than these that have a generation on disk. Whatever else lies there is not ours.
fn others(template_path: &Path, names: &[&str]) -> io::Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(template_path)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        let path = entry.path();
        let is_other = entry.file_type()?.is_dir() && !names.contains(&name.as_str());
        if is_other && (current_of(&path)?.is_some() || !keep::generations(&path)?.is_empty()) {
            found.push(name);
        }
    }
    Ok(found)
}

fn remove(store: &Store, registry: &Registry) -> io::Result<()> {
    store.unpublish()?;
    keep::let_go(keep::generations(store.path())?, registry)?;
    match fs::remove_dir(store.path()) {
        // What is removed beside this, and what is in use, needs its folder yet, and takes it with it.
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::GenerationId;
    use crate::waiting::wait_until;

    #[test]
    fn what_is_in_use_stays_and_is_current_no_more() -> Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        let (store, registry) = (
            Store::new(folder.path(), "default", None),
            Registry::default(),
        );
        forget(&store, "default", &registry)?;
        let (old, used) = (GenerationId::new(), GenerationId::new());
        for id in [&old, &used] {
            let path = store.create(id)?.keep();
            fs::write(path.join("manifest.json"), "{}")?;
        }
        store.publish(&used)?;
        let held = registry.hold(&store.generation_path(&used));
        forget(&store, "default", &registry)?;
        assert_eq!(store.current()?, None);
        assert!(store.generation_path(&used).join("manifest.json").exists());
        assert!(!store.generation_path(&old).join("manifest.json").exists());
        drop(held);
        wait_until("it is removed", || !store.path().exists());
        Ok(())
    }

    #[test]
    fn others_are_those_with_a_generation_or_a_link_to_a_lost_one() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        for template in ["default", "other", "empty", "lost"] {
            let store = Store::new(folder.path(), template, None);
            let id = GenerationId::new();
            let path = store.create(&id)?.keep();
            match template {
                "empty" => {}
                "lost" => store.publish(&id)?,
                _ => fs::write(path.join("manifest.json"), "{}")?,
            }
        }
        fs::write(folder.path().join("lock"), "")?;
        fs::create_dir_all(folder.path().join("mine/of-somebody"))?;
        let mut found = others(folder.path(), &["default", "new"])?;
        found.sort();
        assert_eq!(found, ["lost", "other"]);
        Ok(())
    }
}

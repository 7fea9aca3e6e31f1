//! Nothing of a template stays on disk.

use std::fs;
use std::io;

use super::generation::Registry;
use super::keep;
use super::store::Store;

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
    let _turn = registry.publishing();
    remove(store, registry).map_err(|source| ForgetError {
        template: template.to_owned(),
        source,
    })
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
        while store.path().exists() {
            std::thread::yield_now();
        }
        Ok(())
    }
}

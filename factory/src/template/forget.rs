//! Nothing of a template stays on disk.

use std::fs;
use std::io;

use super::store::Store;
use crate::GenerationId;

/// Why not all of a template was removed.
#[derive(Debug, thiserror::Error)]
#[error("cannot remove the generations of template {template}: {source}")]
pub struct ForgetError {
    template: String,
    source: io::Error,
}

/// Removes a template: the link to its current generation first, then every generation that is not in use. It blocks.
pub(crate) fn forget(
    store: &Store,
    template: &str,
    in_use: &[GenerationId],
) -> Result<(), ForgetError> {
    remove(store, in_use).map_err(|source| ForgetError {
        template: template.to_owned(),
        source,
    })
}

fn remove(store: &Store, in_use: &[GenerationId]) -> io::Result<()> {
    store.unpublish()?;
    let entries = match fs::read_dir(store.path()) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let mut is_empty = true;
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        if in_use.iter().any(|id| name == id.as_str()) {
            is_empty = false;
        } else if entry.file_type()?.is_dir() {
            unless_missing(fs::remove_dir_all(entry.path()))?;
        } else {
            unless_missing(fs::remove_file(entry.path()))?;
        }
    }
    if is_empty {
        unless_missing(fs::remove_dir(store.path()))?;
    }
    Ok(())
}

/// An older generation may go with its last clone at the same time.
fn unless_missing(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_use_stays_and_is_current_no_more() -> Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        let store = Store::new(folder.path(), "default", None);
        forget(&store, "default", &[])?;
        let (old, used) = (GenerationId::new(), GenerationId::new());
        store.create(&old)?.keep();
        store.create(&used)?.keep();
        store.publish(&used)?;
        forget(&store, "default", std::slice::from_ref(&used))?;
        assert_eq!(store.current()?, None);
        assert!(store.generation_path(&used).exists());
        assert!(!store.generation_path(&old).exists());
        forget(&store, "default", &[])?;
        assert!(!store.path().exists());
        Ok(())
    }
}

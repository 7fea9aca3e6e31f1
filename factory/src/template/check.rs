//! Whether a generation on disk is what was published.

use std::fs;
use std::io;
use std::path::Path;

use super::manifest::{FileSeal, Manifest};
use super::store;
use crate::memory::Digests;
use crate::shortage::{in_words, is_shortage};

/// How closely a file is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// Its length.
    Length,
    /// Its digest, as it was when the file last changed.
    Changes,
    /// Every byte of it.
    EveryByte,
}

/// Reads a generation's manifest and looks at its files. It blocks, for every byte as long as a digest of the memory
/// takes.
///
/// # Errors
/// In words, when the manifest or a file is missing, cut short or altered, as far as that was looked at.
pub(super) fn check(path: &Path, digests: &Digests, look: Look) -> io::Result<Manifest> {
    let manifest = read_manifest(path)?;
    let files = &manifest.files;
    check_file(&store::state_path(path), &files.state, digests, look)?;
    check_file(
        &store::kernel_stub_path(path),
        &files.kernel_stub,
        digests,
        look,
    )?;
    check_file(&store::memory_path(path), &files.memory, digests, look)?;
    Ok(manifest)
}

/// The same, apart from what cannot be looked at just now: the manifest, or in words what is wrong with the files.
///
/// # Errors
/// When the service lacks what it takes to look: that is no damage.
pub(super) fn judge(
    path: &Path,
    digests: &Digests,
    look: Look,
) -> io::Result<Result<Manifest, String>> {
    match check(path, digests, look) {
        Ok(manifest) => Ok(Ok(manifest)),
        Err(error) if is_shortage(&error) => Err(error),
        Err(damage) => Ok(Err(damage.to_string())),
    }
}

/// Reads what a generation says of itself.
///
/// # Errors
/// In words, when that is missing, altered or of another generation.
pub(super) fn read_manifest(path: &Path) -> io::Result<Manifest> {
    let name = path.file_name().and_then(|name| name.to_str());
    read_manifest_of(name.unwrap_or_default(), path)
}

/// Reads what a generation of this name says of itself, in its own directory or in that of a machine which was left a copy.
///
/// # Errors
/// As [`read_manifest`].
pub(super) fn read_manifest_of(generation: &str, dir: &Path) -> io::Result<Manifest> {
    let manifest = Manifest::read(dir)?;
    if manifest.generation.as_str() != generation {
        let why = format!("manifest.json: it is that of {}", manifest.generation);
        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
    }
    Ok(manifest)
}

fn check_file(path: &Path, wanted: &FileSeal, digests: &Digests, look: Look) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let wrong = |why: String| io::Error::new(io::ErrorKind::InvalidData, format!("{name}: {why}"));
    let unreadable = |e: io::Error| in_words(format!("{name}: {e}"), e);
    let length = fs::metadata(path).map_err(unreadable)?.len();
    if length != wanted.bytes {
        return Err(wrong(format!(
            "it has {length} bytes and the manifest says {}",
            wanted.bytes
        )));
    }
    let digest = match look {
        Look::Length => return Ok(()),
        Look::Changes => digests.of(path),
        Look::EveryByte => digests.read(path),
    };
    let found = digest.map_err(unreadable)?;
    if found != wanted.digest {
        return Err(wrong(format!(
            "its digest is {found} and the manifest says {}",
            wanted.digest
        )));
    }
    Ok(())
}

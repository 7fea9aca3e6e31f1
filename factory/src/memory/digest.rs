//! Digests of files and bytes.

use std::io::{self, Read};
use std::path::Path;

use crate::aside::blocks;

fn named(hash: blake3::Hash) -> String {
    format!("blake3:{}", hash.to_hex())
}

/// The digest of a file's bytes. It blocks: 256 MiB take about a tenth of a second.
///
/// # Errors
/// When the file cannot be read.
pub(crate) fn file_digest(path: &Path) -> io::Result<String> {
    blocks("reading a file for its digest");
    let mut hasher = blake3::Hasher::new();
    hasher.update_mmap(path)?;
    Ok(named(hasher.finalize()))
}

/// The digest of what is read to the end, 64 KiB at a time.
///
/// # Errors
/// When it cannot be read.
pub(crate) fn reader_digest(reader: impl Read) -> io::Result<String> {
    blocks("reading a file for its digest");
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(reader)?;
    Ok(named(hasher.finalize()))
}

/// The digest of bytes.
pub(crate) fn bytes_digest(bytes: &[u8]) -> String {
    named(blake3::hash(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_bit_makes_another_digest() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("f");
        let mut bytes = vec![0_u8; 100_000];
        std::fs::write(&path, &bytes)?;
        assert_eq!(file_digest(&path)?, bytes_digest(&bytes));
        assert_eq!(reader_digest(&bytes[..])?, bytes_digest(&bytes));
        bytes[77_777] ^= 0x10;
        assert_ne!(file_digest(&path)?, bytes_digest(&bytes));
        Ok(())
    }
}

//! A tar stream of a sandbox, unpacked on this host.
//!
//! Nobody trusts a guest: nothing is written outside the directory, whatever names and links the stream has; only files,
//! directories and links are made; no file gets set-user-id bits.

use std::fs;
use std::io::{self, Read};
use std::path::Path;

use bytes::Bytes;
use tar::{Archive, EntryType};
use tokio::sync::mpsc;

/// Unpacks into a directory, which is made where it is missing. `note` is told what is left out. It blocks.
pub(super) fn unpack(stream: impl Read, directory: &Path, note: impl Fn(&str)) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let directory = directory.canonicalize()?;
    let mut archive = Archive::new(stream);
    archive.set_preserve_permissions(false);
    archive.set_unpack_xattrs(false);
    // A directory that may not be written to gets that mode when everything is in it.
    let mut directories = Vec::new();
    for entry in archive.entries()? {
        let mut entry = entry?;
        let name = entry.path()?.display().to_string();
        match entry.header().entry_type() {
            EntryType::Directory => directories.push(entry),
            EntryType::Regular
            | EntryType::Continuous
            | EntryType::GNUSparse
            | EntryType::Symlink
            | EntryType::Link => {
                if !entry.unpack_in(&directory)? {
                    note(&format!(
                        "{name:?} is left out: it leads out of the directory"
                    ));
                }
            }
            _ => note(&format!(
                "{name:?} is left out: it is no file, directory or link"
            )),
        }
    }
    directories.sort_by(|a, b| b.path_bytes().cmp(&a.path_bytes()));
    for mut entry in directories {
        entry.unpack_in(&directory)?;
    }
    Ok(())
}

/// Reads what somebody else receives.
pub(super) struct Receiver {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    piece: Bytes,
}

impl Receiver {
    pub(super) fn new(pieces: mpsc::Receiver<io::Result<Bytes>>) -> Self {
        Self {
            pieces,
            piece: Bytes::new(),
        }
    }
}

impl Read for Receiver {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.pieces.blocking_recv() {
                None => return Ok(0),
                Some(piece) => self.piece = piece?,
            }
        }
        let length = self.piece.len().min(buffer.len());
        buffer[..length].copy_from_slice(&self.piece.split_to(length));
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use tar::{Builder, Header};

    use super::*;

    /// A stream with names that a well-behaved program would not write.
    fn stream(entries: &[(EntryType, &str, &str, u32)]) -> Vec<u8> {
        let mut builder = Builder::new(Vec::new());
        for (kind, name, content, mode) in entries {
            let mut header = Header::new_gnu();
            header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
            header.set_entry_type(*kind);
            header.set_mode(*mode);
            let is_link = matches!(kind, EntryType::Symlink | EntryType::Link);
            if is_link {
                header.as_mut_bytes()[157..157 + content.len()].copy_from_slice(content.as_bytes());
            }
            let bytes = if is_link { b"" } else { content.as_bytes() };
            header.set_size(u64::try_from(bytes.len()).expect("small"));
            header.set_cksum();
            builder.append(&header, bytes).expect("append");
        }
        builder.into_inner().expect("a stream")
    }

    fn unpacked(directory: &Path, entries: &[(EntryType, &str, &str, u32)]) -> io::Result<()> {
        unpack(stream(entries).as_slice(), directory, |_| {})
    }

    #[test]
    fn what_is_in_a_stream_comes_out_with_its_mode() {
        let dir = tempfile::tempdir().expect("a directory");
        let to = dir.path().join("to");
        unpacked(
            &to,
            &[
                (EntryType::Directory, "./", "", 0o755),
                (EntryType::Directory, "./closed/", "", 0o500),
                (EntryType::Regular, "./closed/x", "hello", 0o4751),
                (EntryType::Symlink, "./link", "closed/x", 0o777),
                (EntryType::Char, "./device", "", 0o666),
            ],
        )
        .expect("unpacked");
        let mode = |name: &str| {
            let facts = fs::symlink_metadata(to.join(name)).expect(name);
            facts.permissions().mode() & 0o7777
        };
        assert_eq!(fs::read_to_string(to.join("link")).expect("x"), "hello");
        assert_eq!((mode("closed"), mode("closed/x")), (0o500, 0o751));
        assert!(!to.join("device").exists());
        let open = fs::Permissions::from_mode(0o700);
        fs::set_permissions(to.join("closed"), open).expect("mode");
    }

    #[test]
    fn nothing_is_written_outside() {
        let dir = tempfile::tempdir().expect("a directory");
        let outside = dir.path().join("outside");
        fs::create_dir(&outside).expect("made");
        let out = outside.to_str().expect("text");
        for entries in [
            vec![(EntryType::Regular, "../outside/x", "bad", 0o644)],
            vec![(EntryType::Regular, "a/../../outside/x", "bad", 0o644)],
            vec![
                (EntryType::Symlink, "door", out, 0o777),
                (EntryType::Regular, "door/x", "bad", 0o644),
            ],
            vec![
                (EntryType::Symlink, "door", "../outside", 0o777),
                (EntryType::Directory, "door/y", "", 0o755),
            ],
            vec![(EntryType::Directory, "../outside/y", "", 0o755)],
            vec![
                (EntryType::Symlink, "x", out, 0o777),
                (EntryType::Directory, "x", "", 0o700),
            ],
        ] {
            let to = dir.path().join("to");
            // Refused or left out: both are well.
            let _ = unpacked(&to, &entries);
            assert!(
                fs::read_dir(&outside).expect("read").next().is_none(),
                "{entries:?}"
            );
            let mode = fs::metadata(&outside).expect("facts").permissions().mode();
            assert_eq!(mode & 0o777, 0o755 & mode, "{entries:?}");
            fs::remove_dir_all(&to).expect("removed");
        }
        // An absolute name means a place inside.
        let to = dir.path().join("to");
        let absolute = format!("{out}/x");
        unpacked(&to, &[(EntryType::Regular, &absolute, "good", 0o644)]).expect("unpacked");
        assert!(!outside.join("x").exists());
    }

    #[test]
    fn a_link_to_a_file_outside_gives_nothing_away() {
        let dir = tempfile::tempdir().expect("a directory");
        let secret = dir.path().join("secret");
        fs::write(&secret, "secret").expect("written");
        let to = dir.path().join("to");
        let name = secret.to_str().expect("text");
        assert!(unpacked(&to, &[(EntryType::Link, "hard", name, 0o644)]).is_err());
        // A file replaces a link of the same name; it is not written through it.
        fs::create_dir_all(&to).expect("made");
        symlink(&secret, to.join("x")).expect("linked");
        unpacked(&to, &[(EntryType::Regular, "x", "new", 0o644)]).expect("unpacked");
        assert_eq!(fs::read_to_string(&secret).expect("secret"), "secret");
        assert_eq!(fs::read_to_string(to.join("x")).expect("x"), "new");
    }

    #[test]
    fn a_stream_that_breaks_off_is_an_error() {
        let dir = tempfile::tempdir().expect("a directory");
        let whole = stream(&[(EntryType::Regular, "x", &"y".repeat(5000), 0o644)]);
        let cut = &whole[..2000];
        assert!(unpack(cut, dir.path(), |_| {}).is_err());
    }
}

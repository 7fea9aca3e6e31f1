//! The content of a file that a build has written, moved to a file that it has never had.
//!
//! Piece by piece: each piece is given room in the new file, copied, and given back by the old one. So both together take
//! little more than one of them, and the new file has all of its blocks, as the old one had: a clone that reads a page
//! which nobody wrote finds room for it, however full the file system is by then.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::unistd::{Whence, lseek};

/// What is there twice at most.
const PIECE_BYTES: u64 = 8 << 20;
/// What is read at once: it stays in the processor's cache.
const BUFFER_BYTES: usize = 256 << 10;

/// Moves the content. It blocks: 256 MiB take some 100 ms.
///
/// # Errors
/// When either cannot be read or written; the content is in pieces then.
pub(super) fn move_content(from: &File, to: &File) -> io::Result<()> {
    let length = from.metadata()?.len();
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut at = 0;
    while at < length {
        let piece = at..length.min(at + PIECE_BYTES);
        allocate(to, FallocateFlags::empty(), &piece)?;
        copy_data(from, to, &piece, &mut buffer)?;
        let give_back = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        match allocate(from, give_back, &piece) {
            // Not every file system can: then both are there as a whole for a moment.
            Err(Errno::EOPNOTSUPP) | Ok(()) => {}
            Err(error) => return Err(error.into()),
        }
        at = piece.end;
    }
    Ok(())
}

/// Copies what was written of a piece, and passes over the holes.
fn copy_data(from: &File, to: &File, piece: &Range<u64>, buffer: &mut [u8]) -> io::Result<()> {
    let mut at = piece.start;
    while let Some(start) = seek(from, at, Whence::SeekData)?.filter(|&start| start < piece.end) {
        let end = seek(from, start, Whence::SeekHole)?.unwrap_or(piece.end);
        at = start;
        let end = end.min(piece.end);
        while at < end {
            let left = usize::try_from(end - at).unwrap_or(BUFFER_BYTES);
            let part = &mut buffer[..left.min(BUFFER_BYTES)];
            from.read_exact_at(part, at)?;
            to.write_all_at(part, at)?;
            at += part.len() as u64;
        }
    }
    Ok(())
}

/// Where data or a hole begins from an offset on; none where there is no more.
fn seek(file: &File, from: u64, whence: Whence) -> io::Result<Option<u64>> {
    let offset = i64::try_from(from).map_err(io::Error::other)?;
    match lseek(file, offset, whence) {
        Ok(found) => u64::try_from(found).map(Some).map_err(io::Error::other),
        Err(Errno::ENXIO) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn allocate(file: &File, flags: FallocateFlags, piece: &Range<u64>) -> nix::Result<()> {
    let number = |value: u64| i64::try_from(value).map_err(|_| Errno::EFBIG);
    fallocate(
        file,
        flags,
        number(piece.start)?,
        number(piece.end - piece.start)?,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    const MIB: u64 = 1 << 20;

    #[test]
    fn all_of_it_is_moved_and_the_old_file_takes_no_room() -> io::Result<()> {
        let folder = tempfile::tempdir_in("/dev/shm")?;
        let file = |name: &str| {
            let mut options = File::options();
            let options = options.read(true).write(true).create_new(true);
            options.open(folder.path().join(name))
        };
        let (from, to) = (file("from")?, file("to")?);
        let length = 20 * MIB + 4096 + 17;
        fallocate(&from, FallocateFlags::empty(), 0, length.cast_signed())?;
        // At the edges of the file and of the pieces, and across one.
        let marks = [0, PIECE_BYTES - 5, 2 * PIECE_BYTES, length - 11];
        for at in marks {
            from.write_all_at(b"0123456789\n", at)?;
        }
        let mut before = vec![0; length as usize];
        from.read_exact_at(&mut before, 0)?;
        move_content(&from, &to)?;
        let mut after = vec![1; length as usize];
        to.read_exact_at(&mut after, 0)?;
        assert!(before == after, "the content is another one");
        assert_eq!(to.metadata()?.len(), length);
        assert!(to.metadata()?.blocks() * 512 >= length, "it has holes");
        // Of its last page a part is no page to give back.
        assert!(
            from.metadata()?.blocks() * 512 <= 4096,
            "the old one keeps blocks"
        );
        Ok(())
    }
}

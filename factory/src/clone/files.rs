//! A generation's files, looked at right before a clone is made of them.
//!
//! A hypervisor loads a damaged state, and runs on an altered memory, without a complaint nearly always: so no clone is
//! made unless each file is what was published. The state, which is short, is read each time, through the descriptor that
//! the hypervisor then gets. Memory and stub are read only when they have changed since they were read last: a clone
//! costs two `stat`s. What a writer through a shared mapping does stays unseen here, and is found at the next start.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::CloneFailure;
use crate::aside::aside;
use crate::host::Host;
use crate::memory::{Digests, reader_digest};
use crate::template::{FileSeal, Generation, Misfit, refuse_foreign};

/// Checks the hypervisor's program and all files, and opens the state, on a thread that may block: after an upgrade the
/// program is read.
pub(super) async fn checked_state(
    host: &Arc<Host>,
    generation: &Arc<Generation>,
) -> Result<File, CloneFailure> {
    let (generation, host) = (Arc::clone(generation), Arc::clone(host));
    aside(move || {
        let recipe = &generation.manifest().recipe;
        refuse_foreign(recipe, &host.platform()).map_err(|misfit| match misfit {
            Misfit::Foreign(reason) => CloneFailure::Foreign { reason },
            Misfit::Unverified(reason) => CloneFailure::Unverified { reason },
        })?;
        let checked = check(&generation, &host.digests);
        checked.inspect_err(|failure| {
            if failure.is_file_damage() {
                generation.found_damaged();
            }
        })
    })
    .await
}

fn check(generation: &Generation, digests: &Digests) -> Result<File, CloneFailure> {
    let files = &generation.manifest().files;
    let others = [
        (generation.memory(), &files.memory),
        (generation.kernel_stub(), &files.kernel_stub),
    ];
    for (path, seal) in others {
        match digests.of(&path) {
            Ok(found) => compare(path, found, seal)?,
            Err(source) => return Err(CloneFailure::FileUnreadable { path, source }),
        }
    }
    let path = generation.state();
    match opened(&path) {
        Ok((file, found)) => compare(path, found, &files.state).map(|()| file),
        Err(source) => Err(CloneFailure::FileUnreadable { path, source }),
    }
}

fn compare(path: PathBuf, found: String, wanted: &FileSeal) -> Result<(), CloneFailure> {
    if found == wanted.digest {
        return Ok(());
    }
    Err(CloneFailure::FileDamaged {
        path,
        found,
        wanted: wanted.digest.clone(),
    })
}

/// Opens a file, and digests what that very descriptor reads. Reading at offsets leaves it at its beginning; reading in
/// pieces keeps a thread that may never do it again from holding on to as much memory as the file is long.
fn opened(path: &Path) -> io::Result<(File, String)> {
    let file = File::open(path)?;
    let digest = reader_digest(OffsetReader { file: &file, at: 0 })?;
    Ok((file, digest))
}

/// Reads a file without moving its descriptor.
struct OffsetReader<'a> {
    file: &'a File,
    at: u64,
}

impl Read for OffsetReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

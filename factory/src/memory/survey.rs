//! What a memory file is made of.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;

use serde::{Deserialize, Serialize};

use crate::sys;

/// The unit in which clones share memory.
const PAGE_BYTES: usize = 4096;
/// The unit of `st_blocks`, whatever the file system's own is.
const STAT_BLOCK_BYTES: u64 = 512;

/// What is in a generation's memory file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemorySurvey {
    /// The guest's memory.
    pub bytes: u64,
    /// What the file takes of the host's memory.
    pub allocated_bytes: u64,
    /// Pages that the template never wrote, or wrote zeroes to.
    pub zero_bytes: u64,
}

impl MemorySurvey {
    /// Reads a whole memory file. It blocks, about as long as a digest does.
    ///
    /// # Errors
    /// When the file cannot be mapped.
    pub(crate) fn of(file: &File) -> io::Result<Self> {
        let map = sys::map_file(file)?;
        let zero_pages = map.chunks(PAGE_BYTES).filter(|page| is_zero(page)).count();
        Ok(Self {
            bytes: map.len() as u64,
            allocated_bytes: file.metadata()?.blocks() * STAT_BLOCK_BYTES,
            zero_bytes: (zero_pages * PAGE_BYTES) as u64,
        })
    }
}

fn is_zero(page: &[u8]) -> bool {
    // The compiler makes vector code of a fold; `all` would stop at every byte to look.
    page.chunks(64)
        .all(|part| part.iter().fold(0, |seen, byte| seen | byte) == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn zero_pages_are_counted_page_by_page() -> io::Result<()> {
        let mut file = tempfile::tempfile()?;
        let mut bytes = vec![0_u8; 4 * PAGE_BYTES];
        bytes[2 * PAGE_BYTES + 4095] = 1;
        file.write_all(&bytes)?;
        let survey = MemorySurvey::of(&file)?;
        assert_eq!(survey.bytes, 4 * PAGE_BYTES as u64);
        assert_eq!(survey.zero_bytes, 3 * PAGE_BYTES as u64);
        Ok(())
    }
}

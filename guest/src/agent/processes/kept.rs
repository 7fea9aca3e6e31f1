//! The newest of what a process has written to one of its streams.

use std::collections::VecDeque;

use vmint_guest_protocol::KEPT_MAX_BYTES;

/// What is thrown away goes in steps of this, so that it is not moved for each byte.
const STEP_BYTES: usize = 64 * 1024;

#[derive(Default)]
pub(super) struct Kept {
    bytes: VecDeque<u8>,
    /// Of all that was written, the place where `bytes` begin.
    start: u64,
}

impl Kept {
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn start(&self) -> u64 {
        self.start
    }

    /// At most a frame's worth.
    pub(super) fn append(&mut self, bytes: &[u8]) {
        let over = (self.bytes.len() + bytes.len()).saturating_sub(KEPT_MAX_BYTES);
        self.drop_first(over);
        self.bytes.extend(bytes);
    }

    /// Forgets so many of the oldest, and gives their memory back.
    pub(super) fn forget(&mut self, bytes: usize) {
        self.drop_first(bytes.max(STEP_BYTES).min(self.bytes.len()));
        if self.bytes.capacity() > 2 * self.bytes.len() + STEP_BYTES {
            self.bytes.shrink_to_fit();
        }
    }

    fn drop_first(&mut self, bytes: usize) {
        self.bytes.drain(..bytes);
        self.start += bytes as u64;
    }

    /// Fills `room` from a place of all that was written on. Returns how much of it.
    pub(super) fn copy_from(&self, place: u64, room: &mut [u8]) -> usize {
        let skip = usize::try_from(place.saturating_sub(self.start)).unwrap_or(usize::MAX);
        let (first, second) = self.bytes.as_slices();
        let first_part = first.get(skip..).unwrap_or_default();
        let second_part = second
            .get(skip.saturating_sub(first.len())..)
            .unwrap_or_default();
        let mut filled = 0;
        for part in [first_part, second_part] {
            let size = part.len().min(room.len() - filled);
            room[filled..filled + size].copy_from_slice(&part[..size]);
            filled += size;
        }
        filled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(kept: &Kept, from: u64) -> Vec<u8> {
        let mut room = vec![0; KEPT_MAX_BYTES + 1];
        let size = kept.copy_from(from, &mut room);
        room.truncate(size);
        room
    }

    #[test]
    fn the_newest_bytes_are_there() {
        let mut kept = Kept::default();
        let written: Vec<u8> = (0..3_000_000_u32).map(|at| (at / 3) as u8).collect();
        for piece in written.chunks(32 * 1024 - 7) {
            kept.append(piece);
            assert!(kept.len() <= KEPT_MAX_BYTES);
        }
        let from = written.len() - KEPT_MAX_BYTES;
        assert_eq!((kept.len(), kept.start()), (KEPT_MAX_BYTES, from as u64));
        assert!(all(&kept, kept.start()) == written[from..]);
        for behind in [1, 5, 100_000, KEPT_MAX_BYTES] {
            let place = written.len() - behind;
            assert!(all(&kept, place as u64) == written[place..], "{behind}");
        }
        assert!(all(&kept, written.len() as u64).is_empty());
        assert!(kept.bytes.capacity() <= 2 * KEPT_MAX_BYTES);
    }

    #[test]
    fn what_is_forgotten_gives_its_memory_back() {
        let mut kept = Kept::default();
        for _ in 0..32 {
            kept.append(&[1; 32 * 1024]);
        }
        kept.forget(1);
        assert_eq!(kept.len(), KEPT_MAX_BYTES - STEP_BYTES);
        kept.forget(KEPT_MAX_BYTES / 2);
        assert!(kept.bytes.capacity() <= KEPT_MAX_BYTES);
        kept.forget(usize::MAX);
        assert_eq!((kept.len(), kept.start()), (0, KEPT_MAX_BYTES as u64));
        assert!(kept.bytes.capacity() <= STEP_BYTES);
    }
}

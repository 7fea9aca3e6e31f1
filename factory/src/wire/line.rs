//! Bounded lines from a socket.

use tokio::io::{AsyncRead, AsyncReadExt};

use super::LinkError;
use super::link::SENTINEL;

/// How much is asked of the socket at a time.
const CHUNK_BYTES: usize = 16 * 1024;
/// What a reader keeps of its buffer between lines: a long answer is rare, and there is a reader for every guest.
const KEPT_BYTES: usize = 64 * 1024;

/// What was read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// A line, without its end.
    Whole(Vec<u8>),
    /// So many bytes of a line that is too long.
    Skipped(usize),
}

/// Reads lines of a bounded length.
///
/// Cancel safe: what was read stays in the buffer.
pub(super) struct LineReader<R> {
    socket: R,
    buffer: Vec<u8>,
    /// Where the next line begins in `buffer`.
    start: usize,
    /// Up to where `buffer` is known to hold no end of that line.
    searched: usize,
    /// Whether what comes next is still of a line that was too long.
    is_skipping: bool,
}

impl<R: AsyncRead + Unpin> LineReader<R> {
    pub(super) fn new(socket: R) -> Self {
        Self {
            socket,
            buffer: Vec::new(),
            start: 0,
            searched: 0,
            is_skipping: false,
        }
    }

    /// The next line. One that is longer than `max_bytes` at present is skipped piece by piece, up to its end or to a
    /// sentinel.
    pub(super) async fn next(&mut self, max_bytes: usize) -> Result<Line, LinkError> {
        loop {
            if self.is_skipping && self.start < self.buffer.len() {
                return Ok(self.skip());
            }
            let end = self.buffer[self.searched..]
                .iter()
                .position(|&b| b == b'\n')
                .map(|at| self.searched + at);
            let length = end.unwrap_or(self.buffer.len()) - self.start;
            if length > max_bytes {
                self.is_skipping = true;
                continue;
            }
            if let Some(end) = end {
                return Ok(Line::Whole(self.take(end)));
            }
            self.searched = self.buffer.len();
            self.make_room();
            let count = self
                .socket
                .read_buf(&mut self.buffer)
                .await
                .map_err(|e| LinkError::Io(e.kind()))?;
            if count == 0 {
                return Err(LinkError::Closed);
            }
        }
    }

    /// Takes the line that ends at `end` out of the buffer.
    fn take(&mut self, end: usize) -> Vec<u8> {
        let is_all = self.start == 0 && end + 1 == self.buffer.len();
        let line = if is_all && self.buffer.capacity() > KEPT_BYTES {
            // A long line leaves with its buffer: it is not in memory twice, and nothing of it is kept.
            let mut line = std::mem::take(&mut self.buffer);
            line.pop();
            line
        } else {
            self.buffer[self.start..end].to_vec()
        };
        self.begin_at(end + 1);
        line
    }

    /// Drops what is there of a line that is too long.
    fn skip(&mut self) -> Line {
        let rest = &self.buffer[self.start..];
        let end = rest.iter().position(|&b| b == b'\n' || b == SENTINEL);
        let count = end.map_or(rest.len(), |end| end + 1);
        self.is_skipping = end.is_none();
        self.begin_at(self.start + count);
        Line::Skipped(count)
    }

    /// The next line begins here.
    fn begin_at(&mut self, start: usize) {
        self.start = start;
        if start >= self.buffer.len() {
            self.buffer.clear();
            self.buffer.shrink_to(KEPT_BYTES);
            self.start = 0;
        }
        self.searched = self.start;
    }

    /// Room for the next piece. A long line grows in steps of a quarter, and not by doubling.
    fn make_room(&mut self) {
        self.buffer.drain(..self.start);
        self.searched -= self.start;
        self.start = 0;
        if self.buffer.len() <= KEPT_BYTES {
            self.buffer.shrink_to(KEPT_BYTES);
        }
        let free = self.buffer.capacity() - self.buffer.len();
        if free < CHUNK_BYTES {
            self.buffer
                .reserve_exact(CHUNK_BYTES.max(self.buffer.len() / 4));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_are_cut_and_bounded() {
        let input: &[u8] = b"one\ntwo\n";
        let mut reader = LineReader::new(input);
        assert_eq!(reader.next(100).await, Ok(Line::Whole(b"one".to_vec())));
        assert_eq!(reader.next(100).await, Ok(Line::Whole(b"two".to_vec())));
        assert_eq!(reader.next(100).await, Err(LinkError::Closed));

        for end in [b'\n', SENTINEL] {
            let long = [&[b'x'; 100_000][..], &[end], b"next\n"].concat();
            let mut reader = LineReader::new(long.as_slice());
            let mut skipped = 0;
            let next = loop {
                match reader.next(100).await {
                    Ok(Line::Skipped(count)) => skipped += count,
                    next => break next,
                }
                assert!(reader.buffer.capacity() <= KEPT_BYTES);
            };
            assert_eq!(next, Ok(Line::Whole(b"next".to_vec())));
            assert_eq!(skipped, 100_001);
        }
    }

    #[tokio::test]
    async fn a_long_line_leaves_no_memory_behind() {
        const LONG_BYTES: usize = 8 << 20;
        let long = vec![b'x'; LONG_BYTES];
        for after in [&b""[..], b"short\nx", b"short\nshort\n"] {
            let input = [&long[..], b"\n", after].concat();
            let mut reader = LineReader::new(input.as_slice());
            let line = reader.next(LONG_BYTES).await;
            assert_eq!(line, Ok(Line::Whole(long.clone())));
            while reader.next(100).await.is_ok() {}
            assert!(
                reader.buffer.capacity() <= 2 * KEPT_BYTES,
                "{} bytes are kept",
                reader.buffer.capacity()
            );
        }
    }
}

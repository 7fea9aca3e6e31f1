//! Bounded lines from a socket.

use tokio::io::{AsyncRead, AsyncReadExt};

use super::LinkError;

/// How much is asked of the socket at a time.
const CHUNK_BYTES: usize = 16 * 1024;
/// What a reader keeps of its buffer between lines: a long answer is rare, and there is a reader for every machine.
const KEPT_BYTES: usize = 64 * 1024;

/// Reads lines of a bounded length.
///
/// Cancel safe: what was read stays in the buffer.
pub(super) struct LineReader<R> {
    socket: R,
    max_bytes: usize,
    buffer: Vec<u8>,
    /// Up to where `buffer` is known to hold no end of a line.
    searched: usize,
}

impl<R: AsyncRead + Unpin> LineReader<R> {
    pub(super) fn new(socket: R, max_bytes: usize) -> Self {
        Self {
            socket,
            max_bytes,
            buffer: Vec::new(),
            searched: 0,
        }
    }

    /// The next line, without its end.
    pub(super) async fn next(&mut self) -> Result<Vec<u8>, LinkError> {
        let max_bytes = self.max_bytes;
        loop {
            let rest = &self.buffer[self.searched..];
            let end = rest.iter().position(|&byte| byte == b'\n');
            let end = end.map(|at| self.searched + at);
            if end.unwrap_or(self.buffer.len()) > max_bytes {
                return Err(LinkError::TooLong { max_bytes });
            }
            if let Some(end) = end {
                let later = self.buffer.split_off(end + 1);
                let mut line = std::mem::replace(&mut self.buffer, later);
                line.pop();
                self.searched = 0;
                return Ok(line);
            }
            self.searched = self.buffer.len();
            if self.buffer.is_empty() {
                self.buffer.shrink_to(KEPT_BYTES);
            }
            self.buffer.reserve(CHUNK_BYTES);
            let read = self.socket.read_buf(&mut self.buffer).await;
            if read.map_err(|e| LinkError::Io(e.kind()))? == 0 {
                return Err(LinkError::Closed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_are_cut_and_bounded() {
        let input: &[u8] = b"one\ntwo\n";
        let mut reader = LineReader::new(input, 100);
        assert_eq!(reader.next().await, Ok(b"one".to_vec()));
        assert_eq!(reader.next().await, Ok(b"two".to_vec()));
        assert_eq!(reader.next().await, Err(LinkError::Closed));

        let long = [b'x'; 100_000];
        let mut reader = LineReader::new(long.as_slice(), 100);
        let too_long = LinkError::TooLong { max_bytes: 100 };
        assert_eq!(reader.next().await, Err(too_long));
    }

    #[tokio::test]
    async fn a_long_line_leaves_no_memory_behind() {
        const LONG_BYTES: usize = 8 << 20;
        let long = vec![b'x'; LONG_BYTES];
        for after in [&b""[..], b"short\nx", b"short\nshort\n"] {
            let input = [&long[..], b"\n", after].concat();
            let mut reader = LineReader::new(input.as_slice(), LONG_BYTES);
            assert_eq!(reader.next().await, Ok(long.clone()));
            while reader.next().await.is_ok() {}
            assert!(
                reader.buffer.capacity() <= 2 * KEPT_BYTES,
                "{} bytes are kept",
                reader.buffer.capacity()
            );
        }
    }
}

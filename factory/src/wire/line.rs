//! Bounded lines from a socket.

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};

use super::LinkError;

/// How much is asked of the socket at a time, and what a reader keeps between lines: there is one for every machine.
const CHUNK_BYTES: usize = 16 * 1024;

/// Reads lines of a bounded length.
///
/// Cancel safe: what was read of a line stays.
pub(super) struct LineReader<R> {
    socket: BufReader<R>,
    max_bytes: usize,
    /// What has come of the next line.
    line: Vec<u8>,
}

impl<R: AsyncRead + Unpin> LineReader<R> {
    pub(super) fn new(socket: R, max_bytes: usize) -> Self {
        Self {
            socket: BufReader::with_capacity(CHUNK_BYTES, socket),
            max_bytes,
            line: Vec::new(),
        }
    }

    /// The next line, without its end.
    pub(super) async fn next(&mut self) -> Result<Vec<u8>, LinkError> {
        let max_bytes = self.max_bytes;
        // One more for the line's end.
        let room = (max_bytes + 1).saturating_sub(self.line.len());
        let mut socket = (&mut self.socket).take(u64::try_from(room).unwrap_or(u64::MAX));
        let read = socket.read_until(b'\n', &mut self.line).await;
        read.map_err(|e| LinkError::Io(e.kind()))?;
        if self.line.pop_if(|last| *last == b'\n').is_some() {
            Ok(std::mem::take(&mut self.line))
        } else if self.line.len() > max_bytes {
            Err(LinkError::TooLong { max_bytes })
        } else {
            Err(LinkError::Closed)
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
                reader.line.capacity() <= 2 * CHUNK_BYTES,
                "{} bytes are kept",
                reader.line.capacity()
            );
        }
    }
}

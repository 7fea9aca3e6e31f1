//! Bounded lines from a socket.

use tokio::io::{AsyncRead, AsyncReadExt};

use super::LinkError;

/// How much is asked of the socket at a time.
const CHUNK_BYTES: usize = 16 * 1024;

/// Reads lines of a bounded length.
///
/// Cancel safe: what was read stays in the buffer.
pub(super) struct LineReader<R> {
    socket: R,
    buffer: Vec<u8>,
    /// Bytes of `buffer` known to hold no end of line.
    searched: usize,
    max_bytes: usize,
}

impl<R: AsyncRead + Unpin> LineReader<R> {
    pub(super) fn new(socket: R, max_bytes: usize) -> Self {
        Self {
            socket,
            buffer: Vec::new(),
            searched: 0,
            max_bytes,
        }
    }

    /// The next line, without its end.
    pub(super) async fn next(&mut self) -> Result<Vec<u8>, LinkError> {
        loop {
            if let Some(at) = self.buffer[self.searched..]
                .iter()
                .position(|&b| b == b'\n')
            {
                let end = self.searched + at;
                let mut line: Vec<u8> = self.buffer.drain(..=end).collect();
                line.pop();
                self.searched = 0;
                return Ok(line);
            }
            self.searched = self.buffer.len();
            if self.buffer.len() > self.max_bytes {
                return Err(LinkError::TooLong {
                    max_bytes: self.max_bytes,
                });
            }
            self.buffer.reserve(CHUNK_BYTES);
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

        let long = vec![b'x'; 1000];
        let mut reader = LineReader::new(long.as_slice(), 100);
        assert_eq!(
            reader.next().await,
            Err(LinkError::TooLong { max_bytes: 100 })
        );
    }
}

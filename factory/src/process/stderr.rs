//! The last lines that a process wrote to its error stream.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use tokio::io::AsyncReadExt;
use tokio::process::ChildStderr;

use crate::sync::lock;

/// How much is kept: a message names the last lines, nobody reads more.
const KEPT_BYTES: usize = 8 * 1024;

/// Reads an error stream to its end and keeps its tail.
#[derive(Clone, Debug, Default)]
pub(crate) struct StderrTail(Arc<Mutex<VecDeque<u8>>>);

impl StderrTail {
    /// Starts to read. The task ends when the stream does.
    pub(super) fn follow(mut stream: ChildStderr) -> (Self, tokio::task::JoinHandle<()>) {
        let tail = Self::default();
        let kept = tail.clone();
        let reader = tokio::spawn(async move {
            let mut chunk = [0; 1024];
            while let Ok(count @ 1..) = stream.read(&mut chunk).await {
                kept.push(&chunk[..count]);
            }
        });
        (tail, reader)
    }

    fn push(&self, bytes: &[u8]) {
        let mut kept = lock(&self.0);
        kept.extend(bytes);
        let surplus = kept.len().saturating_sub(KEPT_BYTES);
        kept.drain(..surplus);
    }

    /// What was kept, as text.
    pub(crate) fn text(&self) -> String {
        let mut kept = lock(&self.0);
        String::from_utf8_lossy(kept.make_contiguous())
            .trim()
            .to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_tail_is_kept() {
        let tail = StderrTail::default();
        tail.push(&[b'a'; 2 * KEPT_BYTES]);
        tail.push(b"the end");
        assert!(tail.text().ends_with("the end"));
        assert_eq!(tail.text().len(), KEPT_BYTES);
    }
}

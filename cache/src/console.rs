//! Consoles that are followed.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::cache::Cache;
use crate::error::ConsoleError;
use crate::mint::ConsoleReader;
use crate::sandbox::Sandbox;

/// How often a followed console is looked at: a log tells nobody that it has grown. A person sees no delay, and a look
/// at a file that has not grown is one system call.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long the machine may take to be gone once its lease has ended, until when its last words are waited for.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// A console that is being followed. It holds one open file.
pub struct FollowedConsole {
    sandbox: Arc<Sandbox>,
    /// None while it is read, and after an error.
    reader: Option<Box<dyn ConsoleReader>>,
    has_ended: bool,
}

impl Cache {
    /// Follows a sandbox's console: what is kept of it, then what comes, until its machine has ended.
    ///
    /// # Errors
    /// The sandbox is unknown, or the file cannot be opened.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn follow_console(&self, id: &str) -> Result<FollowedConsole, ConsoleError> {
        let unknown = || ConsoleError::UnknownSandbox { id: id.to_owned() };
        let sandbox = self.node().sandboxes.get(id).ok_or_else(unknown)?.sandbox;
        let vm = Arc::clone(sandbox.vm());
        let opened = spawn_blocking(move || vm.follow_console()).await;
        let opened = opened.unwrap_or_else(|error| Err(std::io::Error::other(error)));
        let reader = opened.map_err(|source| ConsoleError::Read {
            id: id.to_owned(),
            source,
        })?;
        Ok(FollowedConsole {
            sandbox,
            reader: Some(reader),
            has_ended: false,
        })
    }
}

impl FollowedConsole {
    /// What comes next; `None` after the machine's last words. It waits for as long as the machine lives and says
    /// nothing.
    ///
    /// # Errors
    /// The file cannot be read.
    ///
    /// # Cancel safety
    /// Dropped while it reads, the rest cannot be read any more.
    pub async fn next(&mut self) -> std::io::Result<Option<Vec<u8>>> {
        loop {
            // What is read after the end is known is all that there will be.
            let was_over = self.has_ended;
            let Some(mut reader) = self.reader.take() else {
                return Ok(None);
            };
            let read = spawn_blocking(move || {
                let read = reader.read();
                (reader, read)
            });
            let (reader, read) = read.await.map_err(std::io::Error::other)?;
            let bytes = read?;
            self.reader = Some(reader);
            if !bytes.is_empty() {
                return Ok(Some(bytes));
            }
            if was_over {
                self.reader = None;
                return Ok(None);
            }
            if timeout(LOOK_EVERY, self.sandbox.ended()).await.is_ok() {
                // The lease is over; what the machine still says is waited for, but not for ever.
                let _ = timeout(LAST_WORDS, self.sandbox.vm().ended()).await;
                self.has_ended = true;
            }
        }
    }
}

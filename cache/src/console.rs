//! Consoles that are followed.
//!
//! A follower of a console that says nothing waits for a notice of the kernel, and holds no thread. Of one that says much
//! it reads no more often than every [`PACE`], and all followers of the node read [`READS_AT_ONCE`] at a time: they take
//! no threads from those who make clones.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::cache::Cache;
use crate::error::ConsoleError;
use crate::mint::ConsoleReader;
use crate::sandbox::Sandbox;

/// Followers of one console: more than ever look at one machine.
pub(crate) const FOLLOWERS_MAX: usize = 16;
/// Followers that read at the same time, of all consoles: a read is one system call.
const READS_AT_ONCE: usize = 4;
/// The shortest time between two reads of a console. The first after a silence comes at once; a person sees no delay.
const PACE: Duration = Duration::from_millis(50);
/// A read that brought so much is followed by the next at once: there is more, and it is cut off soon.
const MUCH_BYTES: usize = 32 << 10;
/// How often a console is looked at where the kernel gives no notice that it has grown.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long the machine may take to be gone once its lease has ended, until when its last words are waited for.
const LAST_WORDS: Duration = Duration::from_secs(10);

static READS: Semaphore = Semaphore::const_new(READS_AT_ONCE);

/// A console that is being followed. It holds one open file.
pub struct FollowedConsole {
    sandbox: Arc<Sandbox>,
    /// None while it is read, and after an error.
    reader: Option<Box<dyn ConsoleReader>>,
    has_ended: bool,
    /// When it may be read again.
    next_read: Instant,
    _place: OwnedSemaphorePermit,
}

impl Cache {
    /// Follows a sandbox's console: what is kept of it, then what comes, until its machine has ended.
    ///
    /// # Errors
    /// The sandbox is unknown, too many follow it, or the file cannot be opened.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn follow_console(&self, id: &str) -> Result<FollowedConsole, ConsoleError> {
        let sandbox = self.node().sandboxes.get(id)?.sandbox;
        let place = sandbox
            .follower_place()
            .ok_or_else(|| ConsoleError::TooManyFollowers {
                id: id.to_owned(),
                max: FOLLOWERS_MAX,
            })?;
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
            next_read: Instant::now(),
            _place: place,
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
            if !was_over {
                sleep_until(self.next_read).await;
            }
            let Some(reader) = self.reader.take() else {
                return Ok(None);
            };
            // What is written from here on gives notice; what was written before is read.
            let growth = reader.growth().unwrap_or_else(|error| {
                tracing::debug!(%error, "a followed console is looked at now and then");
                sleep(LOOK_EVERY).boxed()
            });
            let (reader, read) = read(reader).await?;
            let bytes = read?;
            if bytes.len() < MUCH_BYTES {
                self.next_read = Instant::now() + PACE;
            }
            self.reader = Some(reader);
            if !bytes.is_empty() {
                return Ok(Some(bytes));
            }
            if was_over {
                self.reader = None;
                return Ok(None);
            }
            tokio::select! {
                biased;
                _ = self.sandbox.ended() => {
                    // The lease is over; what the machine still says is waited for, but not for ever.
                    let _ = timeout(LAST_WORDS, self.sandbox.vm().ended()).await;
                    self.has_ended = true;
                }
                () = growth => {}
            }
        }
    }
}

/// Reads what came, on a thread that may block.
async fn read(
    mut reader: Box<dyn ConsoleReader>,
) -> std::io::Result<(Box<dyn ConsoleReader>, std::io::Result<Vec<u8>>)> {
    let turn = READS.acquire().await.map_err(std::io::Error::other)?;
    let read = spawn_blocking(move || {
        let read = reader.read();
        (reader, read)
    });
    let read = read.await.map_err(std::io::Error::other);
    drop(turn);
    read
}

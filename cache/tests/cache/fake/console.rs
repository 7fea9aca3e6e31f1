//! The console of a machine without a guest.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::future::BoxFuture;
use tokio::sync::watch;
use vmint_cache::ConsoleReader;

/// What a machine has written and nobody has read.
pub(super) struct Written(
    pub(super) Arc<watch::Sender<Vec<u8>>>,
    pub(super) Arc<AtomicU64>,
);

impl ConsoleReader for Written {
    fn read(&mut self) -> io::Result<Vec<u8>> {
        self.1.fetch_add(1, Ordering::SeqCst);
        let mut read = Vec::new();
        self.0.send_if_modified(|written| {
            read = std::mem::take(written);
            false
        });
        Ok(read)
    }

    fn growth(&self) -> io::Result<BoxFuture<'static, ()>> {
        let mut written = self.0.subscribe();
        let grown = async move { drop(written.wait_for(|written| !written.is_empty()).await) };
        Ok(Box::pin(grown))
    }
}

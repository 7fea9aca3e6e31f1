//! The console of a machine without a guest.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::time::sleep;
use vmint_cache::ConsoleReader;

/// What a machine has written and nobody has read.
pub(super) struct Written(pub(super) Arc<Mutex<Vec<u8>>>, pub(super) Arc<AtomicU64>);

impl ConsoleReader for Written {
    fn read(&mut self) -> io::Result<Vec<u8>> {
        self.1.fetch_add(1, Ordering::SeqCst);
        Ok(std::mem::take(&mut self.0.lock().unwrap()))
    }

    fn growth(&self) -> io::Result<BoxFuture<'static, ()>> {
        let written = Arc::clone(&self.0);
        let grown = async move {
            while written.lock().unwrap().is_empty() {
                sleep(Duration::from_millis(100)).await;
            }
        };
        Ok(Box::pin(grown))
    }
}

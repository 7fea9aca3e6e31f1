//! One rendering of the metrics for all who ask at the same time.
//!
//! A rendering takes milliseconds of a thread, and every user of the host may ask for it. So one is under way at a time: who
//! asks meanwhile waits, and all who wait share the next one. What always holds: an answer was begun after it was asked for.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Mutex;
use tokio::task::{JoinError, spawn_blocking};
use tokio::time::Instant;

/// The last rendering.
#[derive(Default)]
pub(super) struct Scrapes(Arc<Mutex<Option<Scrape>>>);

struct Scrape {
    begun: Instant,
    text: Bytes,
}

impl Scrapes {
    /// A rendering that began after this was called: its own, or that of another one who waited.
    ///
    /// # Errors
    /// When the rendering panicked.
    ///
    /// # Cancel safety
    /// A rendering that was begun is finished, and no other begins before that.
    pub(super) async fn text(
        &self,
        render: impl FnOnce() -> String + Send + 'static,
    ) -> Result<Bytes, JoinError> {
        let asked = Instant::now();
        let mut last = Arc::clone(&self.0).lock_owned().await;
        if let Some(scrape) = last.as_ref().filter(|scrape| scrape.begun >= asked) {
            return Ok(scrape.text.clone());
        }
        // The lock goes along: whoever hangs up does not let another one begin beside it.
        let rendering = spawn_blocking(move || {
            let begun = Instant::now();
            let text = Bytes::from(render());
            *last = Some(Scrape {
                begun,
                text: text.clone(),
            });
            text
        });
        rendering.await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::future::join_all;

    use super::*;

    #[tokio::test]
    async fn those_who_ask_together_share_and_those_who_ask_later_do_not() {
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let render = || MADE.fetch_add(1, Ordering::SeqCst).to_string();
        let scrapes = Arc::new(Scrapes::default());
        assert_eq!(scrapes.text(render).await.expect("text"), "0");
        assert_eq!(scrapes.text(render).await.expect("text"), "1", "a new one");
        // One is under way, its client goes: some wait for it.
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let (begin, begun) = std::sync::mpsc::channel::<()>();
        let slow = {
            let scrapes = Arc::clone(&scrapes);
            tokio::spawn(async move {
                let waiting = move || {
                    let _ = begin.send(());
                    let _ = wait.recv();
                    render()
                };
                scrapes.text(waiting).await
            })
        };
        while scrapes.0.try_lock().is_ok() {
            tokio::task::yield_now().await;
        }
        begun.recv().expect("it has begun");
        let waiting = join_all((0..30).map(|_| {
            let scrapes = Arc::clone(&scrapes);
            tokio::spawn(async move { scrapes.text(render).await.expect("text") })
        }));
        slow.abort();
        // One thread: by now each of them has asked.
        tokio::task::yield_now().await;
        assert_eq!(MADE.load(Ordering::SeqCst), 2, "nothing beside it");
        drop(go);
        for text in waiting.await {
            assert_eq!(text.expect("a task"), "3", "one for all of them");
        }
    }
}

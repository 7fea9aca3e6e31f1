//! A stream whose writes have a deadline, unless its seat says that the client is waited for.

use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Duration, Sleep, sleep};

use crate::http::Seat;

/// What a write does that makes no progress.
pub(super) struct Patience<S> {
    stream: S,
    limit: Duration,
    seat: Seat,
    /// Runs while a write waits.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl<S: Unpin> Patience<S> {
    pub(super) fn new(stream: S, limit: Duration, seat: Seat) -> Self {
        Self {
            stream,
            limit,
            seat,
            deadline: None,
        }
    }

    /// Does a step of writing; one that has waited too long is an error.
    fn step<T>(
        &mut self,
        cx: &mut Context<'_>,
        step: impl FnOnce(Pin<&mut S>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let done = step(Pin::new(&mut self.stream), cx);
        if done.is_ready() || self.seat.waits_for_client() {
            self.deadline = None;
            return done;
        }
        let deadline = self
            .deadline
            .get_or_insert_with(|| Box::pin(sleep(self.limit)));
        deadline
            .as_mut()
            .poll(cx)
            .map(|()| Err(ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patience<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patience<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.step(cx, |stream, cx| stream.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.step(cx, |stream, cx| stream.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.step(cx, |stream, cx| stream.poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.step(cx, |stream, cx| stream.poll_shutdown(cx))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::io::{AsyncWriteExt as _, duplex};
    use tokio::sync::Semaphore;
    use tokio::time::timeout;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    async fn seat() -> Seat {
        let room = Arc::new(Semaphore::new(1));
        Seat::new(room.acquire_owned().await.expect("it is open"))
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_is_given_up_unless_it_is_waited_for() {
        let (near, _far) = duplex(8);
        let mut stream = Patience::new(near, LIMIT, seat().await);
        let error = stream.write_all(&[0; 64]).await.expect_err("it is full");
        assert_eq!(error.kind(), ErrorKind::TimedOut);

        let (near, _far) = duplex(8);
        let waits = seat().await;
        waits.wait_for_client();
        let mut stream = Patience::new(near, LIMIT, waits);
        let written = timeout(LIMIT * 100, stream.write_all(&[0; 64])).await;
        assert!(written.is_err(), "it still waits");
    }
}

//! A socket that an upgrade of the Swarm's works with while the listener can still take it back.
//!
//! The Swarm may leave an upgrade unpolled for as long as it likes. The listener takes the socket
//! back at once when it needs the place, and does not wait for the upgrade to hear of it.

use futures::channel::oneshot;
use futures::future::FutureExt as _;
use futures::io::{AsyncRead, AsyncWrite};
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

/// Lends `io`. Without its lender it is lent for good.
pub(crate) fn lend<S>(io: S) -> (Lender<S>, Lent<S>) {
    let shared = Arc::new(Shared {
        io: Mutex::new(Some(io)),
        used: AtomicBool::new(false),
    });
    let (recall, recalled) = oneshot::channel();
    let lender = Lender {
        shared: shared.clone(),
        recall,
    };
    (
        lender,
        Lent {
            io: Loan(shared),
            recalled,
        },
    )
}

struct Shared<S> {
    /// Gone when it was taken back, or kept.
    io: Mutex<Option<S>>,
    used: AtomicBool,
}

impl<S> Shared<S> {
    fn lock(&self) -> MutexGuard<'_, Option<S>> {
        // A socket that has panicked is no worse for the lock.
        self.io.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Option<S> {
        self.lock().take()
    }
}

/// The listener's side.
pub(crate) struct Lender<S> {
    shared: Arc<Shared<S>>,
    recall: oneshot::Sender<()>,
}

impl<S> Lender<S> {
    /// Takes the socket back, and wakes the upgrade. `None` if that has kept it, or dropped it.
    pub(crate) fn take_back(self) -> Option<S> {
        let io = self.shared.take();
        let _ = self.recall.send(());
        io
    }

    /// Whether the upgrade has begun to work with it.
    pub(crate) fn is_used(&self) -> bool {
        self.shared.used.load(Ordering::Relaxed)
    }
}

/// The upgrade's side. Dropped, it drops the socket.
pub(crate) struct Lent<S> {
    io: Loan<S>,
    recalled: oneshot::Receiver<()>,
}

/// Reads and writes; an error once the socket was taken back.
pub(crate) struct Loan<S>(Arc<Shared<S>>);

impl<S> Lent<S> {
    /// The socket to work with, and what resolves if it is taken back.
    pub(crate) fn parts(&mut self) -> (&mut Loan<S>, impl Future<Output = ()> + use<'_, S>) {
        self.io.0.used.store(true, Ordering::Relaxed);
        let recalled = (&mut self.recalled).then(|recalled| async move {
            if recalled.is_err() {
                // The lender has gone, and wants nothing back.
                futures::future::pending().await
            }
        });
        (&mut self.io, recalled)
    }

    /// Keeps it. `None` if it was taken back.
    pub(crate) fn keep(self) -> Option<S> {
        self.io.0.take()
    }
}

impl<S> Drop for Loan<S> {
    fn drop(&mut self) {
        let io = self.0.take();
        drop(io);
    }
}

impl<S> Loan<S> {
    fn poll<T>(&self, poll: impl FnOnce(&mut S) -> Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match &mut *self.0.lock() {
            Some(io) => poll(io),
            None => Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into())),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Loan<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, room: &mut [u8]) -> Poll<io::Result<usize>> {
        self.poll(|io| Pin::new(io).poll_read(cx, room))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Loan<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll(|io| Pin::new(io).poll_write(cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(|io| Pin::new(io).poll_flush(cx))
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(|io| Pin::new(io).poll_close(cx))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::io::{AsyncReadExt as _, Cursor};

    /// Alive as long as its second half.
    struct Told(Cursor<Vec<u8>>, #[allow(dead_code, reason = "counted")] Arc<()>);

    impl AsyncRead for Told {
        fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, room: &mut [u8]) -> Poll<io::Result<usize>> {
            Pin::new(&mut self.0).poll_read(cx, room)
        }
    }

    fn told() -> (Told, Arc<()>) {
        let alive = Arc::new(());
        (Told(Cursor::new(vec![7; 4]), alive.clone()), alive)
    }

    #[test]
    fn what_is_taken_back_is_the_lenders_at_once_and_an_error_to_the_upgrade() {
        let (io, alive) = told();
        let (lender, mut lent) = lend(io);
        assert!(!lender.is_used());
        let mut room = [0; 2];
        let (loan, recalled) = lent.parts();
        assert_eq!(loan.read(&mut room).now_or_never().expect("ready").expect("reads"), 2);
        let mut recalled = Box::pin(recalled);
        assert_eq!((&mut recalled).now_or_never(), None);
        assert!(lender.is_used());
        let back = lender.take_back().expect("was lent");
        assert_eq!((&mut recalled).now_or_never(), Some(()));
        drop(recalled);
        let read = loan.read(&mut room).now_or_never().expect("ready");
        assert_eq!(read.expect_err("taken back").kind(), io::ErrorKind::ConnectionAborted);
        assert!(lent.keep().is_none());
        assert_eq!(Arc::strong_count(&alive), 2);
        drop(back);
        assert_eq!(Arc::strong_count(&alive), 1);
    }

    #[test]
    fn what_is_kept_cannot_be_taken_back_and_what_is_dropped_is_gone() {
        let (io, _alive) = told();
        let (lender, lent) = lend(io);
        let kept = lent.keep();
        assert!(kept.is_some() && lender.take_back().is_none());
        let (io, alive) = told();
        let (lender, lent) = lend(io);
        drop(lent);
        assert_eq!(Arc::strong_count(&alive), 1, "dropped with the upgrade");
        assert!(lender.take_back().is_none());
    }

    #[test]
    fn without_its_lender_it_is_lent_for_good() {
        let (io, _alive) = told();
        let (lender, mut lent) = lend(io);
        drop(lender);
        let (_, recalled) = lent.parts();
        assert_eq!(recalled.now_or_never(), None);
        assert!(lent.keep().is_some());
    }
}

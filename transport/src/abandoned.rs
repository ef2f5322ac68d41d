//! Dials that were dropped after they had knocked.
//!
//! libp2p drops the dials of a peer that are not first. The peer has answered such a knock, or is about to, and would take
//! the end of it for a handshake that failed. So the transport finishes these dials, and closes their connections in order.

use crate::config::Config;
use crate::door::Secured;
use crate::timer::Deadline;
use crate::user_code::{Hook, UserCode};
use futures::future::{BoxFuture, FutureExt as _, select};
use futures::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use futures::stream::{FuturesUnordered, StreamExt as _};
use futures::task::AtomicWaker;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;
use web_time::Instant;

/// Limit on the dials that one transport finishes at once. Later ones are dropped.
const MOST: usize = 64;
/// How long a dial is kept for a transport that is not polled any more.
const PATIENCE: Duration = Duration::from_secs(10);

type Work = BoxFuture<'static, ()>;

/// The transport's end.
pub(crate) struct Abandoned {
    left: Arc<Left>,
    running: FuturesUnordered<Work>,
}

#[derive(Default)]
struct Left {
    works: Mutex<Works>,
    waker: AtomicWaker,
    /// Whether the transport was ever polled. Of one that is only dialled nothing would be finished.
    polled: AtomicBool,
}

#[derive(Default)]
struct Works {
    waiting: Vec<(Instant, Work)>,
    running: usize,
}

impl Left {
    fn works(&self) -> MutexGuard<'_, Works> {
        // Nothing under the lock can panic half way through a change.
        self.works.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes `work` in, if there is room.
    fn take(&self, work: Work) {
        let now = Instant::now();
        let stale = |(since, _): &mut (Instant, Work)| now.saturating_duration_since(*since) >= PATIENCE;
        let mut works = self.works();
        let mut dropped: Vec<_> = works.waiting.extract_if(.., stale).collect();
        if works.waiting.len() + works.running < MOST {
            works.waiting.push((now, work));
        } else {
            dropped.push((now, work));
        }
        drop(works);
        // Not under the lock: both are the user's code in part.
        self.waker.wake();
        drop(dropped);
    }
}

impl Abandoned {
    pub(crate) fn new() -> Self {
        Self {
            left: Arc::default(),
            running: FuturesUnordered::new(),
        }
    }

    /// Goes on with all of them.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) {
        self.left.waker.register(cx.waker());
        self.left.polled.store(true, Ordering::Relaxed);
        let waiting = {
            let mut works = self.left.works();
            works.running += works.waiting.len();
            std::mem::take(&mut works.waiting)
        };
        self.running.extend(waiting.into_iter().map(|(_, work)| work));
        while let Poll::Ready(Some(())) = self.running.poll_next_unpin(cx) {
            self.left.works().running -= 1;
        }
    }
}

/// A dial that is left to its transport when it is dropped after it has knocked.
pub(crate) struct Dialling<S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    /// None once it has ended, or while it is polled.
    dial: Option<BoxFuture<'static, Secured<S>>>,
    knocked: Arc<AtomicBool>,
    close_timeout: Duration,
    user_code: UserCode,
    left: Weak<Left>,
}

impl<S> Dialling<S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    pub(crate) fn new(knocked: Arc<AtomicBool>, config: &Config, transport: &Abandoned) -> Self {
        Self {
            dial: None,
            knocked,
            close_timeout: config.close_timeout,
            user_code: config.user_code.clone(),
            left: Arc::downgrade(&transport.left),
        }
    }

    pub(crate) fn run(mut self, dial: BoxFuture<'static, Secured<S>>) -> Self {
        self.dial = Some(dial);
        self
    }
}

impl<S> Future for Dialling<S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Output = Secured<S>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // Of one that panics nothing is left.
        let mut dial = self.dial.take().expect("not polled after its end");
        let polled = dial.poll_unpin(cx);
        if polled.is_pending() {
            self.dial = Some(dial);
        }
        polled
    }
}

impl<S> Drop for Dialling<S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    fn drop(&mut self) {
        let Some(dial) = self.dial.take() else { return };
        let knocked = self.knocked.load(Ordering::Relaxed);
        let left = self
            .left
            .upgrade()
            .filter(|left| knocked && left.polled.load(Ordering::Relaxed));
        if let Some(left) = left {
            let user_code = self.user_code.clone();
            let finished = AssertUnwindSafe(finish(dial, self.close_timeout)).catch_unwind();
            let finished = finished.map(move |done| {
                if let Err(panic) = done {
                    user_code.caught(Hook::Inner, panic);
                }
            });
            left.take(finished.boxed());
        }
    }
}

/// Goes on with `dial` to its end, and closes what comes of it.
async fn finish<S>(dial: BoxFuture<'static, Secured<S>>, close_timeout: Duration)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let Ok((peer, mut stream)) = dial.await else { return };
    tracing::debug!(%peer, "a knock that nobody waits for any more has reached its peer: closing");
    if stream.close().await.is_ok() {
        // What is unread when a socket goes makes a reset of its end.
        let mut sink = [0; 512];
        let read = async { while let Ok(1..) = stream.read(&mut sink).await {} };
        select(pin!(read), Deadline::after(close_timeout)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::future::pending;
    use futures::task::noop_waker_ref;

    #[test]
    fn no_more_than_the_limit_are_finished_at_once_and_nothing_stays_when_the_transport_goes() {
        let mut transport = Abandoned::new();
        let counted = Arc::new(());
        let leave = |transport: &Abandoned, forever: bool| {
            let held = counted.clone();
            let work = async move {
                let _held = held;
                if forever {
                    pending().await
                }
            };
            transport.left.take(work.boxed());
        };
        let held = || Arc::strong_count(&counted) - 1;
        let mut cx = Context::from_waker(noop_waker_ref());
        for n in 0..2 * MOST {
            leave(&transport, n % 2 == 0);
        }
        assert_eq!(held(), MOST, "waiting");
        transport.poll(&mut cx);
        assert_eq!(held(), MOST / 2, "those that have ended made room");
        for _ in 0..MOST {
            leave(&transport, true);
            transport.poll(&mut cx);
        }
        assert_eq!(held(), MOST, "running");
        drop(transport);
        assert_eq!(held(), 0);
    }
}

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
    dropped: Arc<AtomicBool>,
    handshake_timeout: Duration,
    close_timeout: Duration,
    user_code: UserCode,
    left: Weak<Left>,
}

impl<S> Dialling<S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    /// `knocked` says when the peer may have heard of the dial. `dropped` is set when it is dropped.
    pub(crate) fn new(
        knocked: Arc<AtomicBool>,
        dropped: Arc<AtomicBool>,
        config: &Config,
        transport: &Abandoned,
    ) -> Self {
        Self {
            dial: None,
            knocked,
            dropped,
            handshake_timeout: config.handshake_timeout,
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
        self.dropped.store(true, Ordering::Relaxed);
        let knocked = self.knocked.load(Ordering::Relaxed);
        let left = self
            .left
            .upgrade()
            .filter(|left| knocked && left.polled.load(Ordering::Relaxed));
        if let Some(left) = left {
            let user_code = self.user_code.clone();
            let finished = AssertUnwindSafe(finish(dial, self.handshake_timeout, self.close_timeout)).catch_unwind();
            let finished = finished.map(move |done| {
                if let Err(panic) = done {
                    user_code.caught(Hook::Inner, panic);
                }
            });
            left.take(finished.boxed());
        }
    }
}

/// Goes on with `dial` to its end, and closes what comes of it. That takes both time limits together at most.
async fn finish<S>(dial: BoxFuture<'static, Secured<S>>, handshake_timeout: Duration, close_timeout: Duration)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let finishing = async {
        let Ok((peer, mut stream)) = dial.await else { return };
        tracing::debug!(%peer, "a knock that was dropped has reached its peer: closing");
        if stream.close().await.is_ok() {
            // What is unread when a socket goes makes a reset of its end.
            let mut sink = [0; 512];
            while let Ok(1..) = stream.read(&mut sink).await {}
        }
    };
    let limit = handshake_timeout.saturating_add(close_timeout);
    select(pin!(finishing), Deadline::after(limit)).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::future::{Either, pending};
    use futures::task::noop_waker_ref;

    #[test]
    fn a_dial_that_does_not_end_is_given_up_at_its_limit() {
        let dial = pending::<Secured<futures::io::Cursor<Vec<u8>>>>().boxed();
        let limit = Duration::from_millis(20);
        let finished = pin!(finish(dial, limit, limit));
        let finished = select(finished, Deadline::after(Duration::from_secs(10)));
        assert!(matches!(futures::executor::block_on(finished), Either::Left(_)));
    }

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

//! What a caller waits for while the Swarm trims.

use crate::event::Trimmed;
use crate::shared::Shared;
use futures::channel::oneshot;
use futures::future::FutureExt as _;
use futures_timer::Delay;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

/// How long a Swarm may leave its behaviours alone while a trim waits for it.
const PATIENCE: Duration = Duration::from_secs(10);

/// A trim under way. Resolves when it is over; dropping it does not stop the trim.
#[must_use = "the trim runs without it, but its outcome is lost"]
pub struct Trimming {
    outcome: oneshot::Receiver<Trimmed>,
    shared: Arc<Shared>,
    /// How often the Swarm had polled the behaviour when this last looked.
    polls: u64,
    patience: Duration,
    /// When this looks again. Set by the first poll.
    timer: Option<Delay>,
}

impl Trimming {
    pub(crate) fn new(shared: Arc<Shared>) -> (oneshot::Sender<Trimmed>, Self) {
        let (answer, outcome) = oneshot::channel();
        let trimming = Self {
            outcome,
            polls: shared.polls(),
            shared,
            patience: PATIENCE,
            timer: None,
        };
        (answer, trimming)
    }

    /// The same with less patience.
    #[cfg(test)]
    pub(crate) fn impatient(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }
}

impl Future for Trimming {
    type Output = Result<Trimmed, TrimError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if let Poll::Ready(outcome) = this.outcome.poll_unpin(cx) {
            // The behaviour is gone, and the Swarm with it: no connection is left.
            return Poll::Ready(Ok(outcome.unwrap_or_default()));
        }
        loop {
            let timer = this.timer.get_or_insert_with(|| Delay::new(this.patience));
            if timer.poll_unpin(cx).is_pending() {
                return Poll::Pending;
            }
            let polls = this.shared.polls();
            if std::mem::replace(&mut this.polls, polls) == polls {
                return Poll::Ready(Err(TrimError::NotPolled { waited: this.patience }));
            }
            // A Swarm that runs answers this with a poll, whether or not there is work.
            this.shared.wake();
            this.timer = None;
        }
    }
}

impl fmt::Debug for Trimming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trimming").finish_non_exhaustive()
    }
}

/// Why it is not known what a trim came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TrimError {
    /// The Swarm was not polled. The trim is carried out when it is.
    #[error("the swarm was not polled for {waited:?}: await a trim on another task than the one that drives the swarm")]
    NotPolled {
        /// For how long.
        waited: Duration,
    },
}

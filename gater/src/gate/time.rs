//! When the policy is called for time's sake, and the user's timer that says so.

use super::Shared;
use crate::user_code::{AFTER_PANIC, Hook};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

impl Shared {
    /// Calls the policy for time's sake; after how long to do so again.
    pub(crate) fn tick(&self) -> Option<Duration> {
        let ticked = self.call(Hook::Tick, || self.policy.tick());
        ticked.unwrap_or(Some(AFTER_PANIC))
    }

    /// Which of its wishes the policy is called by.
    pub(crate) fn schedule(&self) -> u64 {
        self.schedule.load(Ordering::Acquire)
    }

    pub(super) fn reschedule(&self) {
        self.schedule.fetch_add(1, Ordering::AcqRel);
        self.wake(&self.behaviours_wait);
    }

    /// The user's timer, if there is one and it does not panic.
    pub(crate) fn given_timer(&self, time: Duration) -> Option<BoxFuture<'static, ()>> {
        let timer = self.timer.get()?;
        self.call(Hook::Timer, || timer(time))
    }

    /// Polls such a timer; nothing if it panics.
    pub(crate) fn poll_timer(&self, timer: &mut BoxFuture<'static, ()>, cx: &mut Context<'_>) -> Option<Poll<()>> {
        self.call(Hook::Timer, || timer.poll_unpin(cx))
    }

    /// Drops it, whatever that does.
    pub(crate) fn drop_timer(&self, timer: BoxFuture<'static, ()>) {
        self.call(Hook::Timer, || drop(timer));
    }
}

//! When the policy is to be called although nothing has happened.

use crate::gate::Shared;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use futures_timer::Delay;
use std::task::{Context, Poll};
use std::time::Duration;

/// A policy that wants to be called at once, always, is called every millisecond.
const SHORTEST: Duration = Duration::from_millis(1);
/// What a timer can wait for, whatever a policy answers.
const LONGEST: Duration = Duration::from_secs(86_400);

#[derive(Default)]
pub(super) struct Alarm {
    /// By which of its wishes the policy was called last.
    schedule: Option<u64>,
    timer: Option<Timer>,
}

struct Timer {
    time: Duration,
    kind: Kind,
}

enum Kind {
    Own(Delay),
    /// The user's.
    Given(BoxFuture<'static, ()>),
}

impl Alarm {
    /// Calls the policy where it is time, once at most. Costs one atomic load while it never is.
    #[inline]
    pub(super) fn poll(&mut self, shared: &Shared, cx: &mut Context<'_>) {
        let schedule = shared.schedule();
        if self.schedule != Some(schedule) {
            // First this, or a wish in between would be missed.
            self.schedule = Some(schedule);
            self.set(shared);
        } else if self.timer.is_some() && self.rings(shared, cx) {
            self.set(shared);
        } else {
            return;
        }
        if self.timer.is_some() && self.rings(shared, cx) {
            // In the next turn, which comes at once.
            self.schedule = None;
            cx.waker().wake_by_ref();
        }
    }

    /// Calls the policy, and waits for as long as it says.
    fn set(&mut self, shared: &Shared) {
        self.stop(shared);
        self.timer = shared.tick().map(|time| {
            let time = time.clamp(SHORTEST, LONGEST);
            let given = shared.given_timer(time);
            let kind = given.map_or_else(|| Kind::Own(Delay::new(time)), Kind::Given);
            Timer { time, kind }
        });
    }

    fn rings(&mut self, shared: &Shared, cx: &mut Context<'_>) -> bool {
        let Some(timer) = &mut self.timer else { return false };
        if let Kind::Given(given) = &mut timer.kind {
            match shared.poll_timer(given, cx) {
                Some(polled) => return polled.is_ready(),
                None => {
                    let own = Kind::Own(Delay::new(timer.time));
                    if let Kind::Given(given) = std::mem::replace(&mut timer.kind, own) {
                        shared.drop_timer(given);
                    }
                }
            }
        }
        match &mut timer.kind {
            Kind::Own(own) => own.poll_unpin(cx) == Poll::Ready(()),
            Kind::Given(_) => false,
        }
    }

    pub(super) fn stop(&mut self, shared: &Shared) {
        if let Some(Timer {
            kind: Kind::Given(given),
            ..
        }) = self.timer.take()
        {
            shared.drop_timer(given);
        }
    }
}

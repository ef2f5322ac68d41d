//! Many deadlines, one thread that sleeps.
//!
//! A `futures_timer::Delay` for each handshake wakes that crate's thread when it is made and again when it is dropped,
//! almost always without having fired; measured, doing without two of them took some five per cent off what a connection costs. Here a
//! deadline is two steps in a map, and the thread is woken only by one that is earlier than what it sleeps for: about
//! once in a handshake timeout, however many handshakes there are. No runtime is needed.

use crate::silence::limits::later;
use crate::user_code::discard;
use std::collections::BTreeMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use web_time::Instant;

static TIMER: Mutex<Timer> = Mutex::new(Timer {
    waiting: BTreeMap::new(),
    next: 0,
    thread: Thread::None,
});
static EARLIER: Condvar = Condvar::new();

/// In order of time, and of making among equals.
type Key = (Instant, u64);

struct Timer {
    waiting: BTreeMap<Key, Option<Waker>>,
    next: u64,
    thread: Thread,
}

enum Thread {
    None,
    Busy,
    SleepsUntil(Option<Instant>),
}

/// Resolves at its time.
#[derive(Debug)]
pub(crate) struct Deadline {
    key: Key,
}

impl Deadline {
    pub(crate) fn after(limit: Duration) -> Self {
        Self::at(later(Instant::now(), limit))
    }

    pub(crate) fn at(time: Instant) -> Self {
        let mut timer = lock();
        let key = (time, timer.next);
        timer.next += 1;
        timer.waiting.insert(key, None);
        let started = match timer.thread {
            Thread::None => timer.start(),
            Thread::SleepsUntil(until) if until.is_none_or(|until| time < until) => {
                EARLIER.notify_one();
                Ok(())
            }
            _ => Ok(()),
        };
        // Not under the lock: a subscriber to the log may need a deadline.
        drop(timer);
        if let Err(error) = started {
            tracing::error!(%error, "no thread for timeouts");
        }
        Self { key }
    }
}

impl Future for Deadline {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if Instant::now() >= self.key.0 {
            return Poll::Ready(());
        }
        // The entry goes when its time has come, so a late look at the clock has to be trusted, not the map.
        let old = match lock().waiting.get_mut(&self.key) {
            Some(waker) => waker.replace(cx.waker().clone()),
            None => {
                cx.waker().wake_by_ref();
                None
            }
        };
        // Not under the lock: a waker may own a task, and that another deadline.
        drop(old);
        Poll::Pending
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        let removed = lock().waiting.remove(&self.key);
        // Not under the lock, as above.
        drop(removed);
    }
}

impl Timer {
    /// Without a thread the next deadline tries again, and the thread will then find this one too.
    fn start(&mut self) -> io::Result<()> {
        let thread = std::thread::Builder::new().name("knock-timer".to_owned());
        thread.spawn(sleep_and_wake)?;
        self.thread = Thread::Busy;
        Ok(())
    }

    /// Takes out whoever's time has come.
    fn take_due(&mut self, now: Instant) -> Vec<Waker> {
        let mut due = Vec::new();
        while let Some(first) = self.waiting.first_entry()
            && first.key().0 <= now
        {
            due.extend(first.remove());
        }
        due
    }
}

fn sleep_and_wake() {
    let mut timer = lock();
    loop {
        let now = Instant::now();
        let due = timer.take_due(now);
        if !due.is_empty() {
            timer.thread = Thread::Busy;
            // Not under the lock: a waker may do anything, and drop a deadline too.
            drop(timer);
            for waker in due {
                // One that panics must not take everybody's timeouts along.
                if let Err(panic) = catch_unwind(AssertUnwindSafe(|| waker.wake())) {
                    discard(panic);
                }
            }
            timer = lock();
            continue;
        }
        let until = timer.waiting.first_key_value().map(|((time, _), _)| *time);
        timer.thread = Thread::SleepsUntil(until);
        timer = match until {
            Some(until) => {
                let slept = EARLIER.wait_timeout(timer, until.saturating_duration_since(now));
                slept.unwrap_or_else(PoisonError::into_inner).0
            }
            None => EARLIER.wait(timer).unwrap_or_else(PoisonError::into_inner),
        };
        timer.thread = Thread::Busy;
    }
}

fn lock() -> MutexGuard<'static, Timer> {
    // Nothing under the lock can panic half way through a change.
    TIMER.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::executor::block_on;
    use futures::future::{join_all, select};
    use std::sync::Arc;
    use std::task::Wake;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    /// Not in which order tasks are run that were woken together: that is theirs.
    #[test]
    fn deadlines_are_woken_in_their_order_and_when_their_time_has_come() {
        struct Says(u64, Arc<Mutex<Vec<u64>>>);
        impl Wake for Says {
            fn wake(self: Arc<Self>) {
                self.1.lock().unwrap_or_else(PoisonError::into_inner).push(self.0);
            }
        }
        let (start, woken) = (Instant::now(), Arc::<Mutex<Vec<u64>>>::default());
        let mut timer = Timer {
            waiting: BTreeMap::new(),
            next: 0,
            thread: Thread::None,
        };
        for (number, n) in [60, 20, 40, 20].into_iter().enumerate() {
            let waker = Waker::from(Arc::new(Says(n + number as u64, woken.clone())));
            timer.waiting.insert((start + ms(n), number as u64), Some(waker));
        }
        for (at, expected) in [(19, &[][..]), (20, &[21, 23]), (60, &[21, 23, 42, 60])] {
            timer.take_due(start + ms(at)).into_iter().for_each(Waker::wake);
            assert_eq!(
                *woken.lock().unwrap_or_else(PoisonError::into_inner),
                expected,
                "{at} ms"
            );
        }
    }

    #[test]
    fn deadlines_do_not_resolve_before_their_time() {
        let started = Instant::now();
        let waits = [60, 20, 40, 20].map(|n| async move {
            Deadline::after(ms(n)).await;
            (n, started.elapsed())
        });
        for (n, after) in block_on(join_all(waits)) {
            assert!(after >= ms(n), "{n} ms resolved after {after:?}");
        }
    }

    #[test]
    fn one_that_nobody_polls_or_that_is_dropped_holds_nobody_up() {
        let started = Instant::now();
        let mut unattended = Deadline::after(ms(2));
        let _ = block_on(futures::future::poll_immediate(&mut unattended));
        let later = std::thread::spawn(|| block_on(Deadline::after(ms(80))));
        // First in line, and gone before its time, again and again.
        while started.elapsed() < ms(60) {
            block_on(select(Deadline::after(ms(5)), futures::future::ready(())));
            let mut first = Deadline::after(ms(1));
            let _ = block_on(futures::future::poll_immediate(&mut first));
            drop(first);
        }
        later.join().expect("resolves");
        assert!(started.elapsed() >= ms(80));
    }

    #[test]
    fn a_deadline_in_the_past_resolves_at_once() {
        block_on(Deadline::at(Instant::now()));
        block_on(Deadline::after(Duration::ZERO));
    }
}

//! Who changes the rules next. One thread at a time has the turn, and no lock is held meanwhile:
//! what runs then is a closure of the user's.

use super::lock;
use std::ops::{Deref, DerefMut};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread::{self, ThreadId};

/// The turn is this thread's already: it would wait for itself.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Inside;

/// Turns at a `T`, which goes to the one that has the turn.
pub(super) struct Turns<T> {
    state: Mutex<State<T>>,
    free: Condvar,
}

struct State<T> {
    /// While it is no thread's turn.
    idle: Option<T>,
    by: Option<ThreadId>,
}

/// One turn. It ends when this is dropped, by a panic too.
pub(super) struct Turn<'t, T> {
    turns: &'t Turns<T>,
    own: Option<T>,
}

impl<T: Default> Default for Turns<T> {
    fn default() -> Self {
        let idle = Some(T::default());
        Self {
            state: Mutex::new(State { idle, by: None }),
            free: Condvar::new(),
        }
    }
}

impl<T> Turns<T> {
    /// The turn, once the others have had theirs.
    pub(super) fn take(&self) -> Result<Turn<'_, T>, Inside> {
        let me = thread::current().id();
        let mut state = lock(&self.state);
        loop {
            if let Some(turn) = self.begin(&mut state, me) {
                return Ok(turn);
            }
            if state.by == Some(me) {
                return Err(Inside);
            }
            state = self.free.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The turn, if it is no thread's.
    pub(super) fn try_take(&self) -> Option<Turn<'_, T>> {
        self.begin(&mut lock(&self.state), thread::current().id())
    }

    fn begin(&self, state: &mut State<T>, me: ThreadId) -> Option<Turn<'_, T>> {
        let own = state.idle.take()?;
        state.by = Some(me);
        Some(Turn {
            turns: self,
            own: Some(own),
        })
    }
}

impl<T> Deref for Turn<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.own.as_ref().expect("until it is dropped")
    }
}

impl<T> DerefMut for Turn<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.own.as_mut().expect("until it is dropped")
    }
}

impl<T> Drop for Turn<'_, T> {
    fn drop(&mut self) {
        let mut state = lock(&self.turns.state);
        state.idle = self.own.take();
        state.by = None;
        drop(state);
        self.turns.free.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::mpsc;

    #[test]
    fn a_turn_is_one_threads_and_ends_with_a_panic_too() {
        let turns = Turns::<u32>::default();
        let mut turn = turns.take().expect("free");
        *turn += 1;
        assert_eq!(turns.take().err(), Some(Inside));
        assert!(turns.try_take().is_none());
        drop(turn);
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            *turns.take().expect("free") += 1;
            let _turn = turns.take().expect("free");
            panic!("in a turn");
        }));
        panicked.expect_err("it panics");
        assert_eq!(turns.try_take().map(|turn| *turn), Some(2));
    }

    #[test]
    fn many_threads_have_one_turn_each() {
        let turns = Turns::<u32>::default();
        let (begin, begun) = mpsc::channel();
        thread::scope(|scope| {
            let turn = turns.take().expect("free");
            for _ in 0..8 {
                let (turns, begin) = (&turns, begin.clone());
                scope.spawn(move || {
                    begin.send(()).expect("listened to");
                    *turns.take().expect("no turn inside") += 1;
                });
            }
            for _ in 0..8 {
                begun.recv().expect("begun");
            }
            assert_eq!(*turn, 0);
            drop(turn);
        });
        assert_eq!(turns.take().map(|turn| *turn), Ok(8));
    }
}

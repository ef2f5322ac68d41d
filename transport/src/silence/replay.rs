//! Which knocks have been answered: none is answered twice.
//!
//! A knock is known by its Noise ephemeral. Its outer nonce would not do, as whoever knows our PeerID can wrap what is inside anew.
//!
//! **Nothing is forgotten that could still be answered.** An entry goes only when its own time lies more than
//! [`WINDOW`] back, and from then on no knock of that time is taken, whatever the clock says later. What is kept of it are times
//! that knocks had, never one that a clock showed, and in ranges: a clock that was ahead, for however long, and comes back keeps
//! nobody out.
//!
//! **It cannot overflow.** What is remembered is charged to a budget, on a clock that cannot be set, and a second's
//! worth of budget is kept for at most [`KEPT`] seconds. Only a wall clock that was set back holds entries longer. Should
//! that fill it, new knocks are refused until the clock has caught up; no old one is ever pushed out.

use super::budget::Budget;
use super::forgotten::Forgotten;
use super::memory::{Digest, Memory};
use super::prefix::Prefix;
use blake2::Blake2sMac;
use blake2::digest::consts::U16;
use blake2::digest::{KeyInit as _, Mac as _};
use std::fmt;
use std::time::Duration;
use web_time::Instant;

/// How far a knock's time may be from ours, in milliseconds.
pub(crate) const WINDOW: u64 = 120_000;
/// For how many seconds' worth there is room: 240 from the most that a dialer's clock may be ahead to the most that it
/// may lag behind, one as whole seconds are forgotten, one for the burst that a budget allows.
const KEPT: usize = 242;
/// How much is forgotten in one go at most, so that nobody waits for a clock that leapt. Two at least, to keep up.
const FORGOTTEN_AT_ONCE: usize = 64;

/// What time it is, by the two clocks that matter.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    /// Milliseconds since 1970. May be wrong, and may be set forward and back.
    pub(crate) wall: u64,
    /// When this process began, by the wall clock as it is now: a stored start, read from a wrong clock, would keep
    /// everybody out once that is put right.
    pub(crate) boot: u64,
    /// Cannot be set.
    pub(crate) monotonic: Instant,
}

impl Moment {
    /// `age` is how long the process has run, time asleep included.
    pub(crate) fn new(wall: u64, age: Duration, monotonic: Instant) -> Self {
        let age = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        Self {
            wall,
            boot: wall.saturating_sub(age),
            monotonic,
        }
    }
}

/// Why a knock is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// It was answered before.
    Replayed,
    /// Its time lies too far back, or among those that are forgotten, or not after the start of this process.
    TooOld,
    /// Its time lies too far ahead.
    TooNew,
    /// No more can be remembered now, for this prefix at least.
    OverBudget,
}

/// The knocks that were answered. One for each identity, whatever addresses and sockets it has.
pub(crate) struct ReplaySet {
    key: [u8; 32],
    memory: Memory,
    forgotten: Forgotten,
    budget: Budget,
}

impl ReplaySet {
    /// `key` is 32 random bytes, drawn for this set alone: without them nobody can tell where a knock ends up in it.
    pub(crate) fn new(key: [u8; 32], per_second: u32, now: Instant) -> Self {
        Self {
            key,
            memory: Memory::new((per_second as usize).saturating_mul(KEPT)),
            forgotten: Forgotten::default(),
            budget: Budget::new(per_second, now),
        }
    }

    /// Whether this knock was answered, as far as is remembered: to spare a replay the key work. The verdict is
    /// [`ReplaySet::insert`]'s.
    pub(crate) fn contains(&self, ephemeral: &[u8; 32]) -> bool {
        self.memory.contains(&self.digest(ephemeral))
    }

    /// Whether a knock of this time may come in at this moment.
    ///
    /// # Errors
    ///
    /// [`Refused::TooOld`] and [`Refused::TooNew`].
    pub(crate) fn check_time(&self, time: u64, at: Moment) -> Result<(), Refused> {
        if time > at.wall.saturating_add(WINDOW) {
            Err(Refused::TooNew)
        } else if time < at.wall.saturating_sub(WINDOW) || time <= at.boot || self.is_forgotten(time) {
            Err(Refused::TooOld)
        } else {
            Ok(())
        }
    }

    /// Takes a knock, once and never again. One step: whatever was found before may have changed while its flight was on
    /// the way.
    ///
    /// # Errors
    ///
    /// Any [`Refused`]. Nothing has changed then, except that what was due to be forgotten is.
    pub(crate) fn insert(
        &mut self,
        ephemeral: &[u8; 32],
        time: u64,
        at: Moment,
        prefix: Prefix,
        known: bool,
    ) -> Result<(), Refused> {
        self.forget(at.wall);
        let digest = self.digest(ephemeral);
        if self.memory.contains(&digest) {
            return Err(Refused::Replayed);
        }
        self.check_time(time, at)?;
        if self.memory.is_full() || !self.budget.charge(at.monotonic, prefix, known) {
            return Err(Refused::OverBudget);
        }
        self.memory.insert(digest, time);
        Ok(())
    }

    /// Whether a knock of this time may have been answered, and is not remembered.
    pub(crate) fn is_forgotten(&self, time: u64) -> bool {
        self.forgotten.contains(time)
    }

    pub(crate) fn len(&self) -> usize {
        self.memory.len()
    }

    fn forget(&mut self, wall: u64) {
        for _ in 0..FORGOTTEN_AT_ONCE {
            let Some(time) = self.memory.forget_before(wall.saturating_sub(WINDOW)) else {
                return;
            };
            self.forgotten.insert(time);
        }
    }

    fn digest(&self, ephemeral: &[u8; 32]) -> Digest {
        let mac = Blake2sMac::<U16>::new_from_slice(&self.key).expect("BLAKE2s takes keys of 32 bytes");
        mac.chain_update(ephemeral).finalize().into_bytes().into()
    }
}

impl fmt::Debug for ReplaySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplaySet")
            .field("len", &self.len())
            .field("forgotten", &self.forgotten)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;

//! The simulated listener. It does what the real one does, in the same order, and after each step compares what was decided
//! with a model that forgets nothing.

use super::{CAPACITY, Fate, Knock, Process, T, World};
use crate::silence::pool::{Action, Event, Slot};
use crate::silence::prefix::Prefix;
use crate::silence::replay::{Moment, Refused, WINDOW};
use std::time::Duration;

impl World {
    /// Lets time pass, and sees everybody out at his time exactly.
    pub(super) fn pass(&mut self, time: Duration) {
        let until = self.elapsed + time;
        while let Some(at) = self.process.pool.next_timeout().map(|at| at - self.origin)
            && at <= until
        {
            assert_eq!(
                self.process
                    .pool
                    .pop_expired(self.origin + at - Duration::from_nanos(1), |_| false),
                None
            );
            let id = self
                .process
                .pool
                .pop_expired(self.origin + at, |_| false)
                .expect("its time has come");
            let (came, _) = self.process.inside.remove(&id).expect("was inside");
            assert_eq!(at, came + T, "left at another time than accept + T");
            self.tally.expired += 1;
        }
        self.elapsed = until;
        let overdue = self.process.inside.values().find(|(came, _)| *came + T <= until);
        assert_eq!(overdue, None, "stayed longer than T");
    }

    pub(super) fn accept(&mut self, prefix: Prefix) -> (Slot, u64) {
        self.next += 1;
        let (id, now, draw) = (self.next, self.now(), self.chance.next());
        let Process {
            pool, known, inside, ..
        } = &mut self.process;
        let is_known = known.contains(now, prefix);
        let strangers = inside.values().any(|(_, of)| !known.contains(now, *of));
        let (len, own) = (pool.len(), pool.held_by(prefix));
        let over_share = len >= CAPACITY / 2 && own >= pool.share();
        let (slot, evicted) = pool.on_accept(now, prefix, is_known, id, draw);
        assert_eq!(evicted.is_some(), len == CAPACITY || over_share);
        if let Some(gone) = evicted {
            let (_, of) = inside.remove(&gone).expect("was inside");
            assert!(!over_share || of == prefix, "somebody else paid");
            assert!(
                over_share || !strangers || !known.contains(now, of),
                "a known one went for a stranger"
            );
            self.tally.evicted += 1;
        }
        inside.insert(id, (self.elapsed, prefix));
        assert!(pool.len() <= CAPACITY && pool.len() == inside.len());
        self.tally.accepted += 1;
        (slot, id)
    }

    /// The listener, from accept to answer. `between` lets others in while the knock is on the way.
    pub(super) fn dial(&mut self, prefix: Prefix, knock: Knock, between: u64) -> Fate {
        let (slot, id) = self.accept(prefix);
        for _ in 0..between {
            let other = self.stranger();
            self.accept(other);
        }
        if self.process.pool.on_event(slot, Event::Head) != Action::Open {
            return Fate::Evicted;
        }
        let (now, moment) = (self.now(), self.moment());
        let process = &mut self.process;
        let known = process.known.contains(now, prefix);
        let fate = if process.replays.contains(&knock.ephemeral()) {
            Some(Fate::Seen)
        } else if !process.openings.charge(now, prefix, known) {
            Some(Fate::NoOpening)
        } else {
            process.replays.check_time(knock.time, moment).err().map(Fate::Refused)
        };
        if let Some(fate) = fate {
            return self.refuse(slot, knock, fate);
        }
        assert_eq!(
            process.pool.on_event(slot, Event::Admitted),
            Action::ReadFlight { displaced: None }
        );
        if self.chance.below(4) == 0 {
            // The flight comes later: in between others, maybe with the same knock, and with another time.
            let (wait, other) = (self.chance.below(3000), self.stranger());
            if between > 0 {
                self.pass(Duration::from_millis(wait));
                if self.chance.below(8) == 0 {
                    // Who sits on the path can play a copy first: one of the two is answered, the dialer tries anew.
                    if self.dial(other, knock, 0) == Fate::Answered {
                        self.overtaken = Some(knock.id);
                    }
                }
            }
        }
        if self.process.pool.get_mut(slot).is_none() {
            return Fate::Displaced;
        }
        let moment = self.moment();
        let process = &mut self.process;
        let answer = process
            .replays
            .insert(&knock.ephemeral(), knock.time, moment, prefix, known);
        if self.tally.answered.is_multiple_of(64) {
            self.check_forgotten();
        }
        if let Err(refused) = answer {
            return self.refuse(slot, knock, Fate::Refused(refused));
        }
        self.check_answer(knock, moment);
        assert_eq!(self.process.pool.on_event(slot, Event::Knocked), Action::Answer);
        assert_eq!(self.process.pool.remove(slot), Some(id), "authenticated at once");
        self.process.inside.remove(&id);
        Fate::Answered
    }

    fn refuse(&mut self, slot: Slot, knock: Knock, fate: Fate) -> Fate {
        assert_eq!(self.process.pool.on_event(slot, Event::Refused), Action::Drain);
        let (moment, process) = (self.moment(), &self.process);
        match fate {
            Fate::Seen | Fate::Refused(Refused::Replayed) => {
                assert!(
                    process.answered.contains_key(&knock.id),
                    "taken for one that was answered"
                );
            }
            Fate::Refused(Refused::TooOld) if knock.time >= moment.wall - WINDOW && knock.time > moment.boot => {
                assert!(process.replays.is_forgotten(knock.time), "refused for no reason");
                assert!(
                    !process.calm,
                    "forgotten within the window of a clock that was left alone"
                );
            }
            Fate::NoOpening | Fate::Refused(Refused::OverBudget) => self.tally.over_budget += 1,
            Fate::Refused(Refused::TooNew) => assert!(knock.time > moment.wall + WINDOW),
            _ => {}
        }
        self.tally.refused += 1;
        fate
    }

    fn check_answer(&mut self, knock: Knock, moment: Moment) {
        let process = &mut self.process;
        assert!(knock.time.abs_diff(moment.wall) <= WINDOW && knock.time > moment.boot);
        assert_eq!(
            process.answered.insert(knock.id, knock.time),
            None,
            "a replay was answered"
        );
        process.times.insert(knock.time);
        self.tally.answered += 1;
        // The exception: a process knows nothing of what the one before it has answered, except by the time. So this
        // one came from a clock that was ahead of that process's end, or ours was set back in between.
        if !self.ever_answered.insert(knock.id) {
            assert!(self.tally.restarts > 0);
            self.tally.exceptions += 1;
        }
    }

    /// Whatever was answered is remembered, or of a time that is forgotten.
    fn check_forgotten(&self) {
        let process = &self.process;
        for (id, time) in &process.answered {
            let knock = Knock { id: *id, time: *time };
            assert!(
                process.replays.is_forgotten(*time) || process.replays.contains(&knock.ephemeral()),
                "could be answered again"
            );
        }
    }
}

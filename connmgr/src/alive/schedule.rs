//! When to ask. Time comes in, and whether there was an answer.

use crate::persistent::Probes;
use std::time::Duration;
use web_time::Instant;

/// How long an answer may take where nothing else is set.
pub(crate) const ANSWER: Duration = Duration::from_secs(20);

/// Questions are not closer than this, whatever is set.
const CLOSEST: Duration = Duration::from_millis(10);

/// The first question comes sooner than the others by this factor: an end that accepts it needs no
/// more of them.
const SOONER: u32 = 6;

/// When to ask the other end of one connection.
#[derive(Debug)]
pub(crate) struct Schedule {
    /// Between two questions that are there to keep an end alive which has refused. `None` asks
    /// none.
    every: Option<Duration>,
    /// How it is found out whether there is an answer at all.
    probes: Option<Probes>,
    state: State,
    /// Whether the other end has accepted, and so keeps the connection as well.
    held: bool,
    /// Whether it has ever answered.
    fresh: bool,
    /// Whether the next answer is waited for by the behaviour.
    wanted: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The connection is not kept.
    Off,
    /// Since the last answer, or since it is kept.
    Resting {
        since: Instant,
    },
    /// To be asked now.
    Due,
    Asked,
}

/// What has come of a question.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Question {
    /// Nothing to tell.
    #[default]
    Routine,
    /// It was answered, and the behaviour waits for that.
    Answered,
    /// It was not answered in time, and that matters.
    Silent,
}

impl Schedule {
    pub(crate) fn new(every: Option<Duration>, probes: Option<Probes>) -> Self {
        Self {
            every: every.map(|every| every.max(CLOSEST)),
            probes: probes.map(|probes| Probes {
                interval: probes.interval.max(CLOSEST),
                ..probes
            }),
            state: State::Off,
            held: false,
            fresh: true,
            wanted: false,
        }
    }

    /// Whether the other end keeps the connection as well.
    pub(crate) fn is_held(&self) -> bool {
        self.held
    }

    pub(crate) fn is_on(&self) -> bool {
        self.state != State::Off
    }

    /// From here on the connection is to be kept, or is not. A question that is under way then
    /// counts for nothing.
    pub(crate) fn keep(&mut self, keep: bool, now: Instant) {
        if keep == self.is_on() {
            return;
        }
        self.held = false;
        self.wanted = false;
        self.fresh = true;
        self.state = if keep {
            State::Resting { since: now }
        } else {
            State::Off
        };
    }

    /// Asks now, and has the behaviour told what comes of it.
    pub(crate) fn ask_now(&mut self) {
        self.wanted = self.is_on();
        if let State::Resting { .. } = self.state {
            self.state = State::Due;
        }
    }

    /// How long an answer may take.
    pub(crate) fn patience(&self) -> Duration {
        self.probes.map_or(ANSWER, |probes| probes.timeout)
    }

    /// When to ask next; `None` if not before something has happened. `stream` is when the last
    /// stream was opened: the other end's idle timeout cannot have begun earlier.
    pub(crate) fn next(&self, stream: Option<Instant>) -> Option<Instant> {
        let State::Resting { since } = self.state else {
            return None;
        };
        let probe = self.probes.map(|probes| later(since, probes.interval));
        let keep = self.every.filter(|_| !self.held).map(|every| {
            let every = if self.fresh {
                (every / SOONER).max(CLOSEST)
            } else {
                every
            };
            later(since.max(stream.unwrap_or(since)), every)
        });
        // A question that the behaviour waits for could not be asked.
        let again = self.wanted.then(|| later(since, CLOSEST));
        [probe, keep, again].into_iter().flatten().min()
    }

    /// Whether to ask; if so, it counts as asked.
    pub(crate) fn is_due(&mut self, stream: Option<Instant>, now: Instant) -> bool {
        let due = self.state == State::Due || self.next(stream).is_some_and(|next| next <= now);
        if due {
            self.state = State::Asked;
        }
        due
    }

    /// The stream that was to carry the question is gone: it is asked once more.
    pub(crate) fn again(&mut self) {
        if self.state == State::Asked {
            self.state = State::Due;
        }
    }

    /// An answer; `held` if it was an acceptance. A refusal is an answer.
    pub(crate) fn answered(&mut self, held: bool, now: Instant) -> Question {
        if self.state != State::Asked {
            return Question::Routine;
        }
        self.state = State::Resting { since: now };
        self.held = held;
        self.fresh = false;
        if std::mem::take(&mut self.wanted) {
            Question::Answered
        } else {
            Question::Routine
        }
    }

    /// No answer in time.
    pub(crate) fn silent(&mut self, now: Instant) -> Question {
        if self.state != State::Asked {
            return Question::Routine;
        }
        let matters = self.probes.is_some() || std::mem::take(&mut self.wanted);
        self.state = if matters {
            State::Off
        } else {
            State::Resting { since: now }
        };
        self.held = false;
        if matters { Question::Silent } else { Question::Routine }
    }

    /// There was no stream for the question in time, as all that there may be are in use. That says
    /// nothing of the other end.
    pub(crate) fn unasked(&mut self, now: Instant) {
        if self.state == State::Asked {
            self.state = State::Resting { since: now };
        }
    }

    /// The other end has let go of the stream that it had accepted.
    pub(crate) fn released(&mut self, now: Instant) {
        self.held = false;
        if let State::Resting { since } = &mut self.state {
            *since = now;
        }
    }
}

/// `now + wait`, or as good as never.
fn later(now: Instant, wait: Duration) -> Instant {
    const NEVER: Duration = Duration::from_secs(30 * 365 * 86_400);
    now.checked_add(wait).unwrap_or_else(|| now + NEVER)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const PROBES: Probes = Probes {
        interval: Duration::from_secs(15),
        timeout: Duration::from_secs(20),
    };

    fn on(every: Option<Duration>, probes: Option<Probes>, now: Instant) -> Schedule {
        let mut schedule = Schedule::new(every, probes);
        schedule.keep(true, now);
        schedule
    }

    /// When it asks in the first minute of an end that answers after `delay`, and accepts or not.
    fn questions(mut schedule: Schedule, start: Instant, delay: Duration, accepts: bool) -> Vec<u64> {
        let (mut now, mut asked) = (start, Vec::new());
        while let Some(next) = schedule.next(None)
            && next <= start + 60 * SECOND
        {
            now = next.max(now);
            assert!(schedule.is_due(None, now));
            asked.push((now - start).as_secs());
            now += delay;
            assert_eq!(schedule.answered(accepts, now), Question::Routine);
        }
        asked
    }

    #[test]
    fn an_end_that_refuses_is_asked_before_its_idle_timeout_is_over_and_the_first_time_soon() {
        let now = Instant::now();
        let asked = questions(on(Some(6 * SECOND), Some(PROBES), now), now, Duration::ZERO, false);
        assert_eq!(asked, [1, 7, 13, 19, 25, 31, 37, 43, 49, 55]);
        let asked = questions(on(Some(6 * SECOND), None, now), now, SECOND, false);
        assert_eq!(asked, [1, 8, 15, 22, 29, 36, 43, 50, 57]);
    }

    #[test]
    fn an_end_that_accepts_is_asked_only_whether_it_answers_and_not_at_all_without_probes() {
        let now = Instant::now();
        let asked = questions(on(Some(6 * SECOND), Some(PROBES), now), now, Duration::ZERO, true);
        assert_eq!(asked, [1, 16, 31, 46]);
        let asked = questions(on(Some(6 * SECOND), None, now), now, Duration::ZERO, true);
        assert_eq!(asked, [1]);
    }

    #[test]
    fn without_keep_alive_only_the_probes_ask() {
        let now = Instant::now();
        let asked = questions(on(None, Some(PROBES), now), now, Duration::ZERO, false);
        assert_eq!(asked, [15, 30, 45, 60]);
        assert_eq!(on(None, None, now).next(None), None);
    }

    #[test]
    fn the_time_counts_from_the_last_answer_or_from_when_a_stream_was_opened_since() {
        let now = Instant::now();
        let mut schedule = on(Some(6 * SECOND), None, now);
        assert!(schedule.is_due(None, now + SECOND));
        schedule.answered(false, now + SECOND);
        assert_eq!(schedule.next(None), Some(now + 7 * SECOND));
        assert_eq!(schedule.next(Some(now)), Some(now + 7 * SECOND));
        // The other end's time began anew as well.
        assert_eq!(schedule.next(Some(now + 3 * SECOND)), Some(now + 9 * SECOND));
    }

    #[test]
    fn an_end_that_lets_go_is_asked_again() {
        let now = Instant::now();
        let mut schedule = on(Some(6 * SECOND), None, now);
        assert!(schedule.is_due(None, now + SECOND));
        schedule.answered(true, now + SECOND);
        assert_eq!(schedule.next(None), None);
        schedule.released(now + 60 * SECOND);
        assert_eq!(schedule.next(None), Some(now + 66 * SECOND));
    }

    #[test]
    fn silence_matters_to_probes_and_to_a_behaviour_that_asked_and_else_not() {
        let now = Instant::now();
        let mut schedule = on(Some(6 * SECOND), None, now);
        assert!(schedule.is_due(None, now + SECOND));
        assert_eq!(schedule.silent(now + 21 * SECOND), Question::Routine);
        assert_eq!(schedule.next(None), Some(now + 21 * SECOND + SECOND), "asked again");
        schedule.ask_now();
        assert!(schedule.is_due(None, now + 21 * SECOND));
        assert_eq!(schedule.silent(now + 41 * SECOND), Question::Silent);
        assert_eq!(schedule.next(None), None);

        let mut schedule = on(None, Some(PROBES), now);
        assert!(schedule.is_due(None, now + 15 * SECOND));
        assert_eq!(schedule.silent(now + 35 * SECOND), Question::Silent);
    }

    #[test]
    fn a_question_for_which_there_was_no_stream_is_asked_again_and_the_behaviour_waits_for_it() {
        let now = Instant::now();
        let mut schedule = on(None, Some(PROBES), now);
        assert!(schedule.is_due(None, now + 15 * SECOND));
        schedule.unasked(now + 35 * SECOND);
        assert_eq!(schedule.next(None), Some(now + 50 * SECOND));
        // Even where nothing else asks.
        let mut schedule = on(None, None, now);
        schedule.ask_now();
        assert!(schedule.is_due(None, now));
        schedule.unasked(now + 20 * SECOND);
        assert!(!schedule.is_due(None, now + 20 * SECOND), "not without a pause");
        assert!(schedule.is_due(None, now + 21 * SECOND));
        assert_eq!(schedule.answered(false, now + 22 * SECOND), Question::Answered);
        assert_eq!(schedule.next(None), None);
    }

    #[test]
    fn a_behaviour_that_asks_is_told_once_also_if_a_question_was_under_way() {
        let now = Instant::now();
        let mut schedule = on(None, Some(PROBES), now);
        schedule.ask_now();
        assert!(schedule.is_due(None, now) && !schedule.is_due(None, now));
        schedule.ask_now();
        assert!(!schedule.is_due(None, now), "one at a time");
        assert_eq!(schedule.answered(false, now), Question::Answered);
        assert!(schedule.is_due(None, now + 15 * SECOND));
        assert_eq!(schedule.answered(false, now + 15 * SECOND), Question::Routine);
    }

    #[test]
    fn what_was_asked_before_the_connection_was_let_go_of_counts_for_nothing() {
        let now = Instant::now();
        let mut schedule = on(None, Some(PROBES), now);
        assert!(schedule.is_due(None, now + 15 * SECOND));
        schedule.keep(false, now + 16 * SECOND);
        assert_eq!(schedule.silent(now + 35 * SECOND), Question::Routine);
        schedule.ask_now();
        assert!(!schedule.is_due(None, now + 35 * SECOND));
        schedule.keep(true, now + 40 * SECOND);
        assert_eq!(schedule.answered(false, now + 41 * SECOND), Question::Routine);
        assert_eq!(schedule.next(None), Some(now + 55 * SECOND));
    }

    #[test]
    fn absurd_intervals_are_moved_to_their_bounds() {
        let now = Instant::now();
        let probes = Probes {
            interval: Duration::MAX,
            timeout: Duration::MAX,
        };
        let schedule = on(Some(Duration::MAX), Some(probes), now);
        assert!(schedule.next(None).unwrap() > now + Duration::from_secs(86_400));
        let probes = Probes {
            interval: Duration::ZERO,
            timeout: Duration::ZERO,
        };
        let schedule = on(Some(Duration::ZERO), Some(probes), now);
        assert_eq!(schedule.next(None), Some(now + CLOSEST), "nor without a pause");
    }
}

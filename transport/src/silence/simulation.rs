//! Months of a listener's life in seconds, on our own clocks: floods, replays, clocks that are set, restarts.
//!
//! Every run follows from a seed, which a failure names. `SEED=n` repeats that one; `SEEDS=n` runs so many (200 unless
//! told). The listener below does what the real one does, in the same order; what it decides is compared with a
//! model that forgets nothing.

use super::budget::Budget;
use super::known::KnownPrefixes;
use super::pool::{Action, Event, Pool, Slot};
use super::prefix::Prefix;
use super::replay::{Moment, Refused, ReplaySet, WINDOW};
use std::collections::{HashMap, HashSet};
use std::num::NonZeroUsize;
use std::time::Duration;
use web_time::Instant;

const T: Duration = Duration::from_secs(150);
const CAPACITY: usize = 64;
/// Openings and remembered knocks a second: low, so that floods reach the limits.
const RATE: u32 = 200;
const DAY: u64 = 1_800_000_000_000;

struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

#[derive(Debug, Clone, Copy)]
struct Knock {
    id: u64,
    time: u64,
}

impl Knock {
    fn ephemeral(&self) -> [u8; 32] {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&self.id.to_le_bytes());
        bytes
    }
}

/// What became of a knock.
#[derive(Debug, PartialEq)]
enum Fate {
    Answered,
    /// Its socket had to go before it could speak.
    Evicted,
    /// Its buffer was needed before its flight was there.
    Displaced,
    /// Nobody got to open it.
    NoOpening,
    Seen,
    Refused(Refused),
}

/// What is lost in a restart.
struct Process {
    started: Duration,
    pool: Pool<u64>,
    replays: ReplaySet,
    openings: Budget,
    known: KnownPrefixes,
    /// The model's: whoever is in the pool, and when he came.
    inside: HashMap<u64, (Duration, Prefix)>,
    /// The model's: all that was ever answered by this process.
    answered: HashMap<u64, u64>,
    times: HashSet<u64>,
    floor: u64,
    latest_wall: u64,
    /// Whether the clock has been left alone since the start.
    calm: bool,
}

#[derive(Debug, Default)]
struct Tally {
    accepted: u64,
    evicted: u64,
    expired: u64,
    ended: u64,
    answered: u64,
    honest: u64,
    /// Of the honest: those that had to be answered, and were.
    promised: u64,
    replays: u64,
    refused: u64,
    over_budget: u64,
    restarts: u64,
    steps_of_the_clock: u64,
    /// Answered again after a restart, as documented.
    exceptions: u64,
}

impl Tally {
    fn add(&mut self, other: &Self) {
        self.accepted += other.accepted;
        self.evicted += other.evicted;
        self.expired += other.expired;
        self.ended += other.ended;
        self.answered += other.answered;
        self.honest += other.honest;
        self.promised += other.promised;
        self.over_budget += other.over_budget;
        self.replays += other.replays;
        self.refused += other.refused;
        self.restarts += other.restarts;
        self.steps_of_the_clock += other.steps_of_the_clock;
        self.exceptions += other.exceptions;
    }
}

struct World {
    chance: Chance,
    origin: Instant,
    elapsed: Duration,
    /// How far our wall clock is from the true time, which everybody else has.
    shift: i64,
    /// Whether it is ever set. In half of the runs it is not.
    is_clock_set: bool,
    process: Process,
    next: u64,
    recorded: Vec<Knock>,
    /// By any process.
    ever_answered: HashSet<u64>,
    /// The last knock of which a copy was answered before it.
    overtaken: Option<u64>,
    tally: Tally,
}

impl World {
    fn new(seed: u64) -> Self {
        let origin = Instant::now();
        let mut chance = Chance(seed);
        let process = Process::new(origin, Duration::ZERO, &mut chance);
        let is_clock_set = chance.below(2) == 0;
        Self {
            chance,
            origin,
            elapsed: Duration::ZERO,
            shift: 0,
            is_clock_set,
            process,
            next: 0,
            recorded: Vec::new(),
            ever_answered: HashSet::new(),
            overtaken: None,
            tally: Tally::default(),
        }
    }

    fn now(&self) -> Instant {
        self.origin + self.elapsed
    }

    fn true_time(&self) -> u64 {
        DAY + self.elapsed.as_millis() as u64
    }

    fn moment(&self) -> Moment {
        let wall = self.true_time().saturating_add_signed(self.shift);
        Moment::new(wall, self.elapsed - self.process.started, self.now())
    }

    fn knock(&mut self, time: u64) -> Knock {
        self.next += 1;
        Knock { id: self.next, time }
    }

    /// Lets time pass, and sees everybody out at his time exactly.
    fn pass(&mut self, time: Duration) {
        let until = self.elapsed + time;
        while let Some(at) = self.process.pool.next_timeout().map(|at| at - self.origin)
            && at <= until
        {
            assert_eq!(
                self.process
                    .pool
                    .pop_expired(self.origin + at - Duration::from_nanos(1)),
                None
            );
            let id = self
                .process
                .pool
                .pop_expired(self.origin + at)
                .expect("its time has come");
            let (came, _) = self.process.inside.remove(&id).expect("was inside");
            assert_eq!(at, came + T, "left at another time than accept + T");
            self.tally.expired += 1;
        }
        self.elapsed = until;
        let overdue = self.process.inside.values().find(|(came, _)| *came + T <= until);
        assert_eq!(overdue, None, "stayed longer than T");
    }

    fn accept(&mut self, prefix: Prefix) -> (Slot, u64) {
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
    fn dial(&mut self, prefix: Prefix, knock: Knock, between: u64) -> Fate {
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
        process.latest_wall = process.latest_wall.max(moment.wall);
        self.check_floor();
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
                assert!(
                    knock.time <= process.replays.not_before(moment),
                    "refused for no reason"
                );
                assert!(
                    !process.calm,
                    "the floor reached into the window of a clock that was left alone"
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

    fn check_floor(&mut self) {
        let process = &mut self.process;
        let floor = process.replays.not_before(Moment {
            wall: 0,
            boot: 0,
            monotonic: self.origin,
        });
        assert!(floor >= process.floor, "the floor fell");
        assert!(
            floor == 0 || process.times.contains(&floor),
            "a floor that no knock had"
        );
        assert!(floor == 0 || floor < process.latest_wall - WINDOW, "forgotten too soon");
        process.floor = floor;
    }

    /// From one of three prefixes whose peers come and go, by clocks up to 100 s off.
    fn honest(&mut self) {
        // No faster than a prefix's own allowance, so that only others can be in the way.
        let wait = 100 + self.chance.below(900);
        self.pass(Duration::from_millis(wait));
        let prefix = Prefix::V4([1, 1, self.chance.below(3) as u8]);
        let skew = self.chance.below(200_001) as i64 - 100_000;
        let time = self.true_time().saturating_add_signed(skew);
        let knock = self.knock(time);
        let moment = self.moment();
        let known = self.process.known.contains(self.now(), prefix);
        let in_time = self.process.calm
            && time > moment.boot
            // The flight may take three seconds.
            && time.saturating_add(WINDOW - 3000) > moment.wall
            && time <= moment.wall + WINDOW;
        let between = self.chance.below(20);
        let fate = self.dial(prefix, knock, between);
        self.tally.honest += 1;
        if known && in_time && self.overtaken.take() != Some(knock.id) {
            assert_eq!(fate, Fate::Answered, "an honest dial from a known prefix");
            self.tally.promised += 1;
        }
        if fate == Fate::Answered {
            self.authenticate(prefix);
        }
        self.recorded.push(knock);
    }

    fn authenticate(&mut self, prefix: Prefix) {
        let now = self.now();
        self.process.known.on_authenticated(now, prefix);
        self.process.pool.on_authenticated(prefix);
    }

    /// Some flood from few prefixes, some from many.
    fn stranger(&mut self) -> Prefix {
        match self.chance.below(4) {
            0 => Prefix::V4([9, 0, 0]),
            1 => Prefix::Unknown,
            2 => Prefix::V4([9, 1, self.chance.below(8) as u8]),
            _ => Prefix::V6(self.chance.next().to_le_bytes()[..6].try_into().expect("six")),
        }
    }

    /// Plays back what was recorded, wrapped anew or not: the listener sees the same ephemeral.
    fn replay(&mut self) {
        if self.recorded.is_empty() {
            return;
        }
        let back = self.chance.below(self.recorded.len().min(40) as u64) as usize;
        let knock = self.recorded[self.recorded.len() - 1 - back];
        let prefix = self.stranger();
        self.dial(prefix, knock, 0);
        self.tally.replays += 1;
    }

    /// Knocks that are in order, from strangers who know our PeerID: of now, stale, and as far ahead as it goes.
    fn flood(&mut self) {
        for _ in 0..1 + self.chance.below(400) {
            let wall = self.moment().wall;
            let time = match self.chance.below(4) {
                0 => wall,
                1 => wall - WINDOW - 1 - self.chance.below(1_000_000),
                _ => wall + WINDOW,
            };
            let knock = self.knock(time);
            // A neighbour of honest peers too, in a prefix of his own that counts as known.
            let prefix = if self.chance.below(20) == 0 {
                Prefix::V4([1, 2, 0])
            } else {
                self.stranger()
            };
            self.dial(prefix, knock, 0);
            self.recorded.push(knock);
        }
    }

    fn set_clock(&mut self) {
        if !self.is_clock_set {
            return;
        }
        self.process.calm = false;
        self.tally.steps_of_the_clock += 1;
        let far = [500, 130_000, 3_600_000][self.chance.below(3) as usize];
        let by = self.chance.below(2 * far + 1) as i64 - far as i64;
        // It comes right again, sooner or later.
        self.shift = if self.chance.below(3) == 0 { 0 } else { self.shift + by };
    }

    fn restart(&mut self) {
        self.tally.restarts += 1;
        let wait = self.chance.below(5000);
        self.pass(Duration::from_millis(wait));
        self.process = Process::new(self.now(), self.elapsed, &mut self.chance);
        if self.chance.below(2) == 0 {
            self.shift = 0;
        }
    }

    fn step(&mut self) {
        match self.chance.below(100) {
            0..30 => self.honest(),
            30..55 => self.replay(),
            55..59 => self.flood(),
            59..80 => {
                let prefix = self.stranger();
                let (slot, id) = self.accept(prefix);
                if self.chance.below(2) == 0 {
                    assert_eq!(self.process.pool.on_event(slot, Event::Ended), Action::Close(id));
                    assert_eq!(self.process.pool.on_event(slot, Event::Ended), Action::Nothing);
                    self.process.inside.remove(&id);
                    self.tally.ended += 1;
                }
            }
            80..90 => {
                let time = [50, 5000, 200_000][self.chance.below(3) as usize];
                let wait = self.chance.below(time);
                self.pass(Duration::from_millis(wait));
            }
            90..94 => {
                let draw = self.chance.next();
                for gone in self.process.pool.evict(8, draw) {
                    assert!(self.process.inside.remove(&gone).is_some());
                }
            }
            94..97 => self.set_clock(),
            97..99 => self.authenticate(Prefix::V4([1, 2, 0])),
            _ => self.restart(),
        }
    }
}

impl Process {
    fn new(now: Instant, started: Duration, chance: &mut Chance) -> Self {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&chance.next().to_le_bytes());
        Self {
            started,
            pool: Pool::new(NonZeroUsize::new(CAPACITY).expect("not zero"), T),
            replays: ReplaySet::new(key, RATE, now),
            openings: Budget::new(RATE, now),
            known: KnownPrefixes::new(),
            inside: HashMap::new(),
            answered: HashMap::new(),
            times: HashSet::new(),
            floor: 0,
            latest_wall: 0,
            calm: true,
        }
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

fn run(seed: u64) -> Tally {
    let mut world = World::new(seed);
    for _ in 0..150 {
        world.step();
    }
    world.tally
}

#[test]
fn no_replay_is_answered_and_no_honest_dial_is_lost_whatever_happens() {
    if let Some(seed) = number("SEED") {
        println!("{:#?}", run(seed));
        return;
    }
    let mut sums = Tally::default();
    for seed in 0..number("SEEDS").unwrap_or(200) {
        let tally = std::panic::catch_unwind(|| run(seed)).unwrap_or_else(|cause| {
            eprintln!("repeat with SEED={seed}");
            std::panic::resume_unwind(cause)
        });
        sums.add(&tally);
    }
    println!("{sums:#?}");
    assert!(sums.exceptions > 0, "the documented exception is reached too");
}

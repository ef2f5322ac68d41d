//! Months of a listener's life in seconds, on our own clocks: floods, replays, clocks that are set, restarts.
//!
//! Every run follows from a seed, which a failure names. `SEED=n` repeats that one; `SEEDS=n` runs so many (200 unless
//! told).

mod listener;

use super::budget::Budget;
use super::known::KnownPrefixes;
use super::pool::{Action, Event, Pool};
use super::prefix::Prefix;
use super::replay::{Moment, Refused, ReplaySet, WINDOW};
use std::collections::{BTreeSet, HashMap, HashSet};
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
    times: BTreeSet<u64>,
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
        // Among times of which knocks were answered it may be refused, after a clock has leapt.
        let (apart, times) = (2 * WINDOW, &self.process.times);
        let among = times.range(time.saturating_sub(apart)..=time).next().is_some()
            && times.range(time..=time.saturating_add(apart)).next().is_some();
        let in_time = (self.process.calm || !among)
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
        // Mostly the latest, which are still within the window.
        let among = if self.chance.below(4) == 0 {
            self.recorded.len()
        } else {
            self.recorded.len().min(40)
        };
        let back = self.chance.below(among as u64) as usize;
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

    /// The clock leaps ahead for a moment, in which somebody is answered, and comes back: what was forgotten in that
    /// moment is played back.
    fn leap(&mut self) {
        if !self.is_clock_set {
            return;
        }
        self.process.calm = false;
        let shift = self.shift;
        self.shift += 3_600_000;
        for _ in 0..3 {
            let (wall, prefix) = (self.moment().wall, self.stranger());
            let knock = self.knock(wall);
            self.dial(prefix, knock, 0);
        }
        self.shift = shift;
        for _ in 0..20 {
            self.replay();
        }
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
            94..96 => self.set_clock(),
            96 => self.leap(),
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
            times: BTreeSet::new(),
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

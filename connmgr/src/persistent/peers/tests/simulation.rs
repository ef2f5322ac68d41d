//! Two nodes that want each other, every message between them as late as a seed says: in the end they share exactly one
//! connection.

use super::super::*;

const SECOND: Duration = Duration::from_secs(1);

/// What happens at one end at one time.
#[derive(Debug, Clone, Copy)]
enum Happening {
    Established { dialled: bool },
    Closed,
    Timer,
}

/// Both ends, and what is on its way to them.
struct World {
    ends: [Peers; 2],
    ids: [PeerId; 2],
    /// By time; the number keeps what is simultaneous in the order it was sent.
    due: BTreeMap<(Instant, u64), (usize, ConnectionId, Happening)>,
    next: u64,
    dice: Dice,
    now: Instant,
    /// Which ends think that they have it.
    open: HashMap<ConnectionId, [bool; 2]>,
    /// Closed before the other end had even heard of it.
    refused: BTreeSet<(ConnectionId, usize)>,
}

impl World {
    fn new(seed: u64, config: impl Fn(usize) -> Config) -> Self {
        let ids = [PeerId::random(), PeerId::random()];
        Self {
            ends: [0, 1].map(|end: usize| Peers::new(ids[end], config(end).with_seed(seed ^ end as u64))),
            ids,
            due: BTreeMap::new(),
            next: 0,
            dice: Dice::new(Some(seed)),
            now: Instant::now(),
            open: HashMap::new(),
            refused: BTreeSet::new(),
        }
    }

    fn within(&mut self, most: Duration) -> Duration {
        let most = u64::try_from(most.as_micros()).unwrap();
        Duration::from_micros(self.dice.roll() % most)
    }

    fn send(&mut self, delay: Duration, end: usize, connection: ConnectionId, what: Happening) {
        self.due.insert((self.now + delay, self.next), (end, connection, what));
        self.next += 1;
    }

    /// A dial by `end` that succeeds: either end may learn of it first.
    fn connect(&mut self, end: usize) -> ConnectionId {
        let id = ConnectionId::new_unchecked(usize::try_from(self.next).unwrap() + 1);
        self.next += 1;
        for side in [0, 1] {
            let delay = self.within(2 * SECOND);
            self.send(delay, side, id, Happening::Established { dialled: side == end });
        }
        id
    }

    fn act(&mut self, end: usize) {
        while let Some(action) = self.ends[end].next_action() {
            match action {
                Action::Dial { peer, .. } => {
                    let id = self.connect(end);
                    self.ends[end].dialling(peer, id);
                }
                Action::Close { connection, .. } => {
                    for side in [end, 1 - end] {
                        let delay = self.within(SECOND / 2);
                        self.send(delay, side, connection, Happening::Closed);
                    }
                }
                Action::Keep { .. } | Action::Tell(_) => {}
            }
        }
        if let Some(next) = self.ends[end].next_timeout() {
            let delay = next.saturating_duration_since(self.now);
            self.send(delay, end, ConnectionId::new_unchecked(0), Happening::Timer);
        }
    }

    fn run(&mut self, until: Instant) {
        while let Some(entry) = self.due.first_entry()
            && entry.key().0 <= until
        {
            let ((at, _), (end, id, what)) = entry.remove_entry();
            self.now = at;
            let peer = self.ids[1 - end];
            match what {
                Happening::Established { dialled } => {
                    let held = Held {
                        id,
                        dialled_by_us: dialled,
                        relayed: false,
                        since: at,
                    };
                    self.ends[end].established(at, peer, held, None);
                    self.open.entry(id).or_default()[end] = true;
                    // Closed by the other end while it was coming up here.
                    if self.refused.contains(&(id, end)) {
                        self.send(Duration::ZERO, end, id, Happening::Closed);
                    }
                }
                Happening::Closed => {
                    let open = self.open.entry(id).or_default();
                    if open[end] {
                        open[end] = false;
                        self.ends[end].closed(at, &peer, id);
                    } else {
                        self.refused.insert((id, end));
                    }
                }
                Happening::Timer => self.ends[end].timeout(at),
            }
            self.act(end);
        }
        self.now = until;
    }

    /// What each end has.
    fn connections(&self) -> [Vec<ConnectionId>; 2] {
        [0, 1].map(|end: usize| {
            let open = self.open.iter().filter(|(_, open)| open[end]);
            let mut ids: Vec<ConnectionId> = open.map(|(id, _)| *id).collect();
            ids.sort_unstable();
            ids
        })
    }

    fn want_each_other(&mut self) {
        for end in [0, 1] {
            let peer = self.ids[1 - end];
            self.ends[end].add(self.now, peer, vec!["/memory/1".parse().unwrap()]);
            self.act(end);
        }
    }

    fn assert_one(&self, seed: u64) {
        let [left, right] = self.connections();
        assert_eq!(left, right, "seed {seed}: both ends have the same connections");
        assert_eq!(left.len(), 1, "seed {seed}: {left:?}");
    }
}

#[test]
fn two_that_dial_each_other_at_once_settle_on_one_connection() {
    let mut duplicates = 0;
    for seed in 0..2_000 {
        let mut world = World::new(seed, |_| Config::new());
        world.want_each_other();
        world.run(world.now + 60 * SECOND);
        world.assert_one(seed);
        duplicates += world.open.len() - 1;
    }
    // Otherwise this has tested nothing.
    assert!(duplicates > 500, "{duplicates} duplicates");
}

#[test]
fn two_hundred_simultaneous_dials_settle_on_one_connection() {
    for seed in 0..100 {
        let mut world = World::new(seed, |_| Config::new());
        world.want_each_other();
        for dial in 0..200 {
            world.connect(dial % 2);
        }
        world.run(world.now + 60 * SECOND);
        world.assert_one(seed);
    }
}

#[test]
fn one_end_alone_settles_on_one_connection_too() {
    for seed in 0..500 {
        let without = usize::from(seed % 2 == 0);
        let mut world = World::new(seed, |end| Config::new().with_one_connection(end != without));
        world.want_each_other();
        for dial in 0..6 {
            world.connect(dial % 2);
        }
        world.run(world.now + 60 * SECOND);
        world.assert_one(seed);
    }
}

#[test]
fn dials_spread_over_a_minute_settle_on_one_connection_too() {
    for seed in 0..500 {
        let mut world = World::new(seed, |_| Config::new());
        world.want_each_other();
        for dial in 0..20 {
            let pause = world.within(6 * SECOND);
            world.run(world.now + pause);
            world.connect(dial % 2);
        }
        world.run(world.now + 120 * SECOND);
        world.assert_one(seed);
    }
}

#[test]
fn a_connection_that_is_dead_at_one_end_only_gives_way_to_the_new_one() {
    for seed in 0..500 {
        let mut world = World::new(seed, |_| Config::new());
        world.want_each_other();
        world.run(world.now + 60 * SECOND);
        world.assert_one(seed);
        let old = world.connections()[0][0];
        // One end has lost it, by a reset that never reached the other.
        let end = usize::from(seed % 2 == 0);
        world.send(Duration::ZERO, end, old, Happening::Closed);
        world.run(world.now + 60 * SECOND);
        world.assert_one(seed);
        assert_ne!(world.connections()[0], [old], "seed {seed}");
    }
}

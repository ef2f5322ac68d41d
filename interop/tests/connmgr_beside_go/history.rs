//! What is done to both managers.

use crate::naive::{DECAYING, Link, Naive, Op, SECOND, Setting, TAGS, Time, Ways};
use std::fmt;

/// As many as take part at most.
pub(crate) const PEERS: usize = 20;

/// What a history may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// Nothing in which the managers are documented to differ.
    Plain,
    Everything,
}

#[derive(Debug, Clone)]
pub(crate) struct History {
    pub(crate) profile: Profile,
    pub(crate) setting: Setting,
    pub(crate) ops: Vec<Op>,
}

/// Long enough for every history, and short enough to be added to.
const FOR_EVER: Time = 1_000_000_000 * SECOND;

fn setting(low: usize, high: usize, grace: Time, silence: Time) -> Setting {
    Setting {
        low,
        high,
        grace: grace * SECOND,
        silence: silence * SECOND,
        close_deadline: 10 * SECOND,
        // A little more than a minute: what happens in the very instant is another matter.
        early_for: 60 * SECOND + 1_000,
        retention: None,
        total: false,
        hard_limit: None,
        slow: false,
        resolution: 5 * SECOND,
        ways: Ways::default(),
    }
}

/// SplitMix64: the same histories everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    #[allow(clippy::cast_possible_truncation, reason = "smaller than `below`")]
    fn below(&mut self, below: usize) -> usize {
        (self.next() % below as u64) as usize
    }

    fn one_in(&mut self, many: usize) -> bool {
        self.below(many) == 0
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    fn value(&mut self) -> i64 {
        i64::try_from(self.below(60)).unwrap_or(0) - 20
    }
}

impl History {
    pub(crate) fn new(low: usize, high: usize, grace: Time, silence: Time, ops: Vec<Op>) -> Self {
        Self {
            profile: Profile::Everything,
            setting: setting(low, high, grace, silence),
            ops,
        }
    }

    /// The same for the same seed.
    pub(crate) fn random(profile: Profile, seed: u64, operations: usize) -> Self {
        let mut random = Random(seed);
        let low = 1 + random.below(6);
        let high = low + random.below(6);
        let (grace, silence) = (random.pick(&[0, 0, 10, 30]), random.pick(&[3, 5, 10]));
        let mut setting = setting(low, high, grace, silence);
        match profile {
            Profile::Plain => setting.early_for = FOR_EVER,
            Profile::Everything => setting.slow = random.one_in(2),
        }
        // In a plain history a peer comes once: a return is where go-libp2p has forgotten what this
        // manager remembers.
        let mut preview = Naive::new(setting);
        preview.pass(SECOND / 2);
        let mut ops = Vec::new();
        let mut came = [false; PEERS];
        while ops.len() < operations {
            let op = Self::one(&mut random, profile);
            if profile == Profile::Plain {
                match op {
                    Op::Connect(peer, _) => {
                        let connected = preview.peers.get(&peer).is_some_and(|known| !known.conns.is_empty());
                        let again = std::mem::replace(&mut came[peer], true);
                        if again && !connected && setting.grace > 0 {
                            continue;
                        }
                    }
                    // Early tags of a protected peer age there.
                    Op::Unprotect(peer, _)
                        if preview
                            .peers
                            .get(&peer)
                            .is_some_and(|known| known.conns.is_empty() && known.tagged()) =>
                    {
                        continue;
                    }
                    // It would make a record there.
                    Op::Remove(peer, _) if !preview.peers.contains_key(&peer) => continue,
                    _ => {}
                }
                preview
                    .apply(ops.len(), op)
                    .unwrap_or_else(|why| unreachable!("it follows no manager: {why}"));
            }
            ops.push(op);
        }
        Self { profile, setting, ops }
    }

    /// The peer of a connection, by its serial: the number of the operation that made it.
    pub(crate) fn peers_of(&self) -> Vec<usize> {
        let peer = |op: &Op| match op {
            Op::Connect(peer, _) => *peer,
            _ => usize::MAX,
        };
        self.ops.iter().map(peer).collect()
    }

    fn one(random: &mut Random, profile: Profile) -> Op {
        let plain = profile == Profile::Plain;
        let (peer, tag, decaying) = (
            random.below(PEERS),
            random.below(TAGS.len()),
            random.below(DECAYING.len()),
        );
        match random.below(if plain { 34 } else { 42 }) {
            0..3 => Op::Tag(peer, tag, random.value()),
            3 => Op::Untag(peer, tag),
            4..6 => Op::Upsert(peer, tag, random.value()),
            6 => Op::Protect(peer, tag),
            7..9 => Op::Unprotect(peer, tag),
            9..11 => Op::Bump(peer, decaying, random.value()),
            11 => Op::Remove(peer, decaying),
            12 if random.one_in(4) => Op::Reset(decaying),
            12..24 => Op::Connect(
                peer,
                Link {
                    dialled: random.one_in(3),
                    // Where equals may not be told apart by chance, no two peers have as many.
                    streams: Some(match u32::try_from(peer) {
                        Ok(peer) if plain => 100 + peer,
                        _ => u32::try_from(random.below(3)).unwrap_or(0),
                    }),
                },
            ),
            24..26 => Op::Disconnect(peer),
            26..28 => Op::Trim,
            28..33 => Op::Wait(1 + random.below(12) as u64),
            33 => Op::Wait(random.pick(&[60, 75, 600])),
            34 => Op::ForceTrim,
            35 => Op::Guard(peer),
            36 => Op::Unguard(peer),
            37 => Op::BeginDial(peer),
            38 => Op::EndDial(peer),
            39..41 => Op::Release(1 + random.below(6)),
            _ if random.one_in(30) => Op::Close,
            _ => Op::Trim,
        }
    }
}

impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Setting {
            low,
            high,
            grace,
            silence,
            slow,
            ..
        } = self.setting;
        let (grace, silence) = (grace / SECOND, silence / SECOND);
        let closes = if slow { ", slow closes" } else { "" };
        writeln!(
            f,
            "# low {low}, high {high}, grace {grace} s, silence {silence} s{closes}"
        )?;
        for op in &self.ops {
            match *op {
                Op::Tag(peer, tag, value) => writeln!(f, "tag        peer {peer} {:?} {value}", TAGS[tag])?,
                Op::Untag(peer, tag) => writeln!(f, "untag      peer {peer} {:?}", TAGS[tag])?,
                Op::Upsert(peer, tag, by) => writeln!(f, "upsert     peer {peer} {:?} by {by}", TAGS[tag])?,
                Op::Protect(peer, tag) => writeln!(f, "protect    peer {peer} {:?}", TAGS[tag])?,
                Op::Unprotect(peer, tag) => writeln!(f, "unprotect  peer {peer} {:?}", TAGS[tag])?,
                Op::Bump(peer, tag, by) => writeln!(f, "bump       peer {peer} {:?} by {by}", DECAYING[tag])?,
                Op::Remove(peer, tag) => writeln!(f, "remove     peer {peer} {:?}", DECAYING[tag])?,
                Op::Reset(tag) => writeln!(f, "reset      {:?}", DECAYING[tag])?,
                Op::Connect(peer, link) => {
                    let direction = if link.dialled { "outbound" } else { "inbound" };
                    writeln!(f, "connect    peer {peer} {direction}, {:?} streams", link.streams)?;
                }
                Op::Wait(seconds) => writeln!(f, "wait       {seconds} s")?,
                other => writeln!(f, "{other:?}")?,
            }
        }
        Ok(())
    }
}

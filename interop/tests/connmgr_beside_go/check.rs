//! What has to be so after each operation.

use crate::go::{Go, State, port};
use crate::history::{History, PEERS, Profile};
use crate::naive::{Absent, DECAYING, Known, Naive, Op, Reason, Setting, TAGS, Trimmed, Ways};
use crate::ours::{HALF, Ours};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::AddAssign;

/// What came of histories.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Outcome {
    pub(crate) operations: usize,
    /// Operations after which both managers said the same of everything.
    pub(crate) equal: usize,
    /// Trims of both managers that closed something.
    pub(crate) trims: usize,
    pub(crate) left_in_go: usize,
    pub(crate) left_in_ours: usize,
}

impl AddAssign for Outcome {
    fn add_assign(&mut self, other: Self) {
        self.operations += other.operations;
        self.equal += other.equal;
        self.trims += other.trims;
        self.left_in_go += other.left_in_go;
        self.left_in_ours += other.left_in_ours;
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} operations, both managers equal after {}, {} trims",
            self.operations, self.equal, self.trims
        )
    }
}

/// Since when it is known, its value, and its tags.
type Peer = (u64, i64, BTreeMap<String, i64>);

/// Everything that both managers say, for a comparison of one with the other.
#[derive(Debug, PartialEq)]
struct Said {
    connected: Vec<usize>,
    count: usize,
    /// Under any tag or in use, and under each tag.
    protected: Vec<Vec<bool>>,
    /// Of those that are connected: since when, in milliseconds, and what tags come to.
    peers: Vec<Option<Peer>>,
}

impl Said {
    fn is_as(&self, other: &Self) -> Wrong {
        same(|| "who is connected".to_owned(), &self.connected, &other.connected)?;
        same(|| "connections".to_owned(), &self.count, &other.count)?;
        for peer in 0..PEERS {
            let what = |what: &'static str| move || format!("{what} of peer {peer}");
            same(what("protection"), &self.protected[peer], &other.protected[peer])?;
            same(what("tag info"), &self.peers[peer], &other.peers[peer])?;
        }
        Ok(())
    }
}

type Wrong = Result<(), String>;

fn same<T: PartialEq + fmt::Debug>(what: impl FnOnce() -> String, found: &T, expected: &T) -> Wrong {
    if found == expected {
        return Ok(());
    }
    Err(format!("{}: {found:?}, expected {expected:?}\n", what()))
}

/// Whether go-libp2p's manager is what a model is that goes these ways.
pub(crate) fn check_go(history: &History, go: &mut Go, ways: Ways) -> Wrong {
    let states = go.states(history);
    let mut model = model(history, ways);
    for (at, (op, state)) in history.ops.iter().zip(&states).enumerate() {
        let observed = trims_of_go(*op, state, &history.peers_of());
        follow(&mut model, at, *op, observed, Some(state.still))?;
        compare_go(&mut model, state)?;
    }
    Ok(())
}

fn model(history: &History, ways: Ways) -> Naive {
    let mut model = Naive::new(Setting {
        ways,
        ..history.setting
    });
    model.pass(HALF);
    model
}

pub(crate) fn check(history: &History, go: &mut Go) -> Result<Outcome, String> {
    let states = go.states(history);
    let mut go = model(history, Ways::GO);
    // The last traffic of connections is told by the machine's own clock, and decides among equals.
    let ways = Ways {
        any_order_of_equals: true,
        ..Ways::default()
    };
    let mut naive = model(history, ways);
    let mut ours = Ours::new(history.setting);
    ours.pass(HALF);

    let peers_of = history.peers_of();
    let mut outcome = Outcome::default();
    for (at, (op, state)) in history.ops.iter().zip(&states).enumerate() {
        let because = |who: &str, why: String| format!("after operation {} ({op:?}), {who}: {why}", at + 1);
        let observed = trims_of_go(*op, state, &peers_of);
        outcome.trims += observed.len();
        follow(&mut go, at, *op, observed, Some(state.still)).map_err(|why| because("go-libp2p", why))?;
        compare_go(&mut go, state).map_err(|why| because("go-libp2p", why))?;

        let still = match op {
            Op::Wait(seconds) => {
                for _ in 0..2 * seconds {
                    ours.pass(HALF);
                }
                None
            }
            op => ours.apply(at, *op),
        };
        let observed = std::mem::take(&mut ours.trims);
        outcome.trims += observed.len();
        let closed = observed.clone();
        follow(&mut naive, at, *op, observed, still).map_err(|why| because("libp2p-connmgr", why))?;
        compare_ours(&mut naive, &ours).map_err(|why| because("libp2p-connmgr", why))?;

        let (one, other) = (said_by_go(state, &go), said_by_ours(&ours, &naive));
        outcome.operations += 1;
        outcome.equal += usize::from(one == other);
        if history.profile == Profile::Plain {
            let of_go = sets(&trims_of_go(*op, state, &peers_of));
            let equal = same(|| "trims".to_owned(), &sets(&closed), &of_go);
            let equal = equal.and_then(|()| other.is_as(&one));
            equal.map_err(|why| because("libp2p-connmgr beside go-libp2p", why))?;
        }
        outcome.left_in_go = state.count;
        outcome.left_in_ours = ours.manager.info().connections;
    }
    Ok(outcome)
}

/// When, and which peers, in whichever order.
fn sets(trims: &[Trimmed]) -> Vec<(u64, BTreeSet<usize>)> {
    trims
        .iter()
        .map(|trim| (trim.at, trim.peers.iter().copied().collect()))
        .collect()
}

fn trims_of_go(op: Op, state: &State, peers_of: &[usize]) -> Vec<Trimmed> {
    let reason = match op {
        Op::Trim => Reason::OnDemand,
        Op::ForceTrim => Reason::Pressure,
        _ => Reason::HighWatermark,
    };
    let trims = state.trims.iter().flatten();
    trims
        .map(|trim| Trimmed {
            at: trim.at * 1_000,
            peers: trim.closed.iter().map(|serial| peers_of[*serial]).collect(),
            reason,
        })
        .collect()
}

/// Lets a model do what a manager did, with what it has closed.
fn follow(naive: &mut Naive, at: usize, op: Op, observed: Vec<Trimmed>, still: Option<bool>) -> Wrong {
    naive.observed = observed.into();
    let expected = naive.apply(at, op)?;
    // Where there are no guards, a use is one more protection.
    let in_use = matches!(op, Op::Unprotect(peer, _) if naive.setting.ways.forgets_the_gone && naive.is_kept(peer));
    if let (Some(still), Some(expected)) = (still, expected.map(|expected| expected || in_use)) {
        same(|| "what unprotect returned".to_owned(), &still, &expected)?;
    }
    naive.trims.clear();
    match naive.observed.pop_front() {
        None => Ok(()),
        Some(unexpected) => Err(format!("it closed {unexpected:?}, and should have closed nothing then")),
    }
}

fn named(names: &[&str], tags: &BTreeMap<usize, i64>) -> BTreeMap<String, i64> {
    tags.iter().map(|(at, value)| (names[*at].to_owned(), *value)).collect()
}

/// Tags as the original lists them: a decaying tag hides a plain one of its name.
fn listed(known: &Known, ways: Ways) -> BTreeMap<String, i64> {
    let mut tags = named(&TAGS, &known.tags);
    for (name, value) in named(&DECAYING, &known.decaying) {
        if ways.info_collapses {
            tags.insert(name, value);
        } else {
            tags.entry(name).or_insert(value);
        }
    }
    tags
}

fn protected(naive: &Naive, peer: usize, any: bool) -> Vec<bool> {
    let kept = naive.kept.get(&peer).cloned().unwrap_or_default();
    let each = (0..TAGS.len()).map(|tag| kept.protections.contains(&tag));
    std::iter::once(any).chain(each).collect()
}

fn compare_go(naive: &mut Naive, state: &State) -> Wrong {
    same(|| "connections".to_owned(), &state.count, &naive.open())?;
    let last_trim = naive.last_trim.map_or(-1, |at| i64::try_from(at / 1_000).unwrap());
    same(|| "the last trim".to_owned(), &state.last_trim, &last_trim)?;
    for peer in 0..PEERS {
        let what = |what: &'static str| move || format!("{what} of peer {peer}");
        // Where there are no guards, a use is one more protection.
        let expected = protected(naive, peer, naive.is_kept(peer));
        same(what("protection"), &state.protected[peer], &expected)?;
        let (info, known) = (&state.peers[peer], naive.peers.get(&peer));
        same(what("a record"), &info.is_some(), &known.is_some())?;
        let (Some(info), Some(known)) = (info, known) else {
            continue;
        };
        same(what("the first sight"), &info.first_seen, &(known.first_seen / 1_000))?;
        same(what("the value"), &info.value, &known.value())?;
        same(what("tags"), &info.tags, &listed(known, naive.setting.ways))?;
        let addresses: BTreeSet<usize> = known.conns.iter().map(|conn| port(conn.serial)).collect();
        same(what("addresses"), &info.addresses, &addresses.len())?;
    }
    Ok(())
}

fn compare_ours(naive: &mut Naive, ours: &Ours) -> Wrong {
    naive.expire();
    let (info, counts) = (ours.manager.info(), ours.manager.counts());
    same(|| "connections".to_owned(), &info.connections, &naive.open())?;
    same(
        || "closing".to_owned(),
        &info.closing,
        &(naive.established() - naive.open()),
    )?;
    let absent = |wanted: fn(Absent) -> bool| naive.peers.values().filter(|known| wanted(known.absent)).count();
    let expected = (
        absent(|absent| matches!(absent, Absent::Early(_))),
        absent(|absent| matches!(absent, Absent::Gone(_))),
    );
    same(
        || "early and gone records".to_owned(),
        &(counts.early, counts.gone),
        &expected,
    )?;
    for peer in 0..PEERS {
        let what = |what: &'static str| move || format!("{what} of peer {peer}");
        let id = ours.peers[peer];
        let kept = naive.kept.get(&peer).is_some_and(|kept| !kept.protections.is_empty());
        let found = std::iter::once("")
            .chain(TAGS)
            .map(|tag| ours.manager.is_protected(&id, tag))
            .collect();
        same(what("protection"), &found, &protected(naive, peer, kept))?;
        let info = ours.manager.tag_info(&id);
        let known = naive
            .peers
            .get(&peer)
            .filter(|known| !known.conns.is_empty() || known.tagged());
        same(what("tag info"), &info.is_some(), &known.is_some())?;
        let (Some(info), Some(known)) = (info, known) else {
            continue;
        };
        same(
            what("the first sight"),
            &ours.at(info.first_seen.unwrap()),
            &known.first_seen,
        )?;
        same(what("the value"), &info.value, &known.value())?;
        same(
            what("tags"),
            &info.tags.into_iter().collect(),
            &named(&TAGS, &known.tags),
        )?;
        same(
            what("decaying tags"),
            &info.decaying.into_iter().collect(),
            &named(&DECAYING, &known.decaying),
        )?;
        let found: Vec<_> = info
            .connections
            .iter()
            .map(|connection| (connection.outbound, connection.closing, connection.streams))
            .collect();
        let expected: Vec<_> = known
            .conns
            .iter()
            .map(|conn| (conn.link.dialled, conn.closing != 0, conn.link.streams))
            .collect();
        same(what("connections"), &found, &expected)?;
    }
    Ok(())
}

fn said_by_go(state: &State, naive: &Naive) -> Said {
    let connected = state.connected.clone().unwrap_or_default();
    let is_connected = |peer: usize| naive.peers.get(&peer).is_some_and(|known| !known.conns.is_empty());
    let info = |peer: usize| {
        let info = state.peers[peer].as_ref().filter(|_| is_connected(peer))?;
        Some((info.first_seen, info.value, info.tags.clone()))
    };
    Said {
        connected,
        count: state.count,
        protected: state.protected.clone(),
        peers: (0..PEERS).map(info).collect(),
    }
}

fn said_by_ours(ours: &Ours, naive: &Naive) -> Said {
    let info = ours.manager.info();
    let peer = |peer: usize| {
        let info = ours.manager.tag_info(&ours.peers[peer])?;
        let first_seen = ours.at(info.first_seen.unwrap()) / 1_000;
        let mut tags: BTreeMap<String, i64> = info.tags.into_iter().collect();
        tags.extend(info.decaying);
        (!info.connections.is_empty()).then_some((first_seen, info.value, tags))
    };
    Said {
        connected: ours.conns.keys().copied().collect(),
        count: info.connections + info.closing,
        protected: (0..PEERS)
            .map(|peer| protected(naive, peer, naive.is_kept(peer)))
            .collect(),
        peers: (0..PEERS).map(peer).collect(),
    }
}

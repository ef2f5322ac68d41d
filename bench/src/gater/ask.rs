//! The questions of each stage, and the look-up of a bare trie, timed.

use super::BATCH;
use super::lists::{Lists, Question};
use crate::samples::median;
use anyhow::{Result, ensure};
use ipnet::{Ipv4Net, Ipv6Net};
use libp2p_core::{Endpoint, Multiaddr};
use libp2p_gater::{Accept, AddrDial, ConnectionGater as _, Knock, Link, PeerDial, Rules, Secured, Upgraded, Verdict};
use libp2p_swarm::ConnectionId;
use prefix_trie::PrefixSet;
use std::hint::black_box;
use std::net::IpAddr;
use std::time::Instant;

/// A stage, and with how much of it: a decision alone has been handed what the address says, as a gate does once for all
/// its stages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    PeerDial,
    AddrDial,
    /// Of an address that names no peer: what a bare trie does.
    AddrDialNoPeer,
    AddrDialParsed,
    Accept,
    AcceptParsed,
    Knock,
    Secured,
    Upgraded,
}

impl Asked {
    pub(super) const ALL: [Self; 9] = [
        Self::PeerDial,
        Self::AddrDial,
        Self::AddrDialNoPeer,
        Self::AddrDialParsed,
        Self::Accept,
        Self::AcceptParsed,
        Self::Knock,
        Self::Secured,
        Self::Upgraded,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::PeerDial => "peer_dial",
            Self::AddrDial => "addr_dial_with_peer",
            Self::AddrDialNoPeer => "addr_dial_no_peer",
            Self::AddrDialParsed => "addr_dial_parsed",
            Self::Accept => "accept",
            Self::AcceptParsed => "accept_parsed",
            Self::Knock => "knock",
            Self::Secured => "secured",
            Self::Upgraded => "upgraded",
        }
    }

    pub(super) fn about(name: &str) -> &str {
        match name {
            "trie" => "bare prefix-trie, no decision",
            "peer_dial" => "peer dial",
            "addr_dial_with_peer" => "address dial, peer and address",
            "addr_dial_no_peer" => "address dial, address alone",
            "addr_dial_parsed" => "address dial, with reading the address",
            "accept_parsed" => "accept, with reading both addresses",
            other => other,
        }
    }

    pub(super) fn measure(self, rules: &Rules, lists: &Lists, hit: bool) -> Result<f64> {
        let local: Multiaddr = "/ip4/198.51.100.1/tcp/4001".parse()?;
        let id = ConnectionId::new_unchecked(1);
        let timed = Timed {
            questions: lists.questions(hit),
            hit,
        };
        match self {
            Self::PeerDial => timed.with(|q| PeerDial::new(&q.peer), |dial| rules.intercept_peer_dial(dial)),
            Self::AddrDial => timed.with(
                |q| AddrDial::new(Some(&q.peer), Link::outbound(&q.dialled, Endpoint::Dialer)),
                |dial| rules.intercept_addr_dial(dial),
            ),
            Self::AddrDialNoPeer => timed.with(
                |q| AddrDial::new(None, Link::outbound(&q.address, Endpoint::Dialer)),
                |dial| rules.intercept_addr_dial(dial),
            ),
            Self::AddrDialParsed => timed.with(std::convert::identity, |q| {
                let link = Link::outbound(&q.dialled, Endpoint::Dialer);
                rules.intercept_addr_dial(&AddrDial::new(Some(&q.peer), link))
            }),
            Self::Accept => timed.with(
                |q| Accept::new(accepted(&local, q)),
                |accept| rules.intercept_accept(accept),
            ),
            Self::AcceptParsed => timed.with(std::convert::identity, |q| {
                rules.intercept_accept(&Accept::new(accepted(&local, q)))
            }),
            Self::Knock => timed.with(
                |q| Knock::new(&q.peer, accepted(&local, q)),
                |knock| rules.intercept_knock(knock),
            ),
            Self::Secured => timed.with(
                |q| Secured::new(&q.peer, accepted(&local, q)),
                |secured| rules.intercept_secured(secured),
            ),
            Self::Upgraded => timed.with(
                |q| Upgraded::new(&q.peer, accepted(&local, q).with_connection(id)),
                |upgraded| rules.intercept_upgraded(upgraded),
            ),
        }
    }
}

/// It has come in by `local`.
fn accepted<'a>(local: &'a Multiaddr, question: &'a Question) -> Link<'a> {
    Link::inbound(local, &question.address)
}

/// Questions that are all to get the same answer.
struct Timed<'a> {
    questions: &'a [Question],
    hit: bool,
}

impl<'a> Timed<'a> {
    /// The median time of one decision, and every answer is looked at. What a batch asks is made just before: somebody has
    /// read peer and address a moment ago where a connection is made, so they are at hand, and the rules are not.
    fn with<Q>(&self, ask: impl Fn(&'a Question) -> Q, decide: impl Fn(&Q) -> Verdict) -> Result<f64> {
        let mut times = Vec::with_capacity(self.questions.len() / BATCH);
        let mut asked = Vec::with_capacity(BATCH);
        for batch in self.questions.chunks_exact(BATCH) {
            asked.clear();
            for question in batch {
                black_box((
                    question.peer,
                    question.address.iter().count(),
                    question.dialled.iter().count(),
                ));
                asked.push(ask(question));
            }
            let start = Instant::now();
            let denied = asked
                .iter()
                .filter(|asked| black_box(decide(black_box(asked))).is_deny())
                .count();
            times.push(start.elapsed().as_nanos() as f64 / BATCH as f64);
            ensure!(denied == if self.hit { BATCH } else { 0 }, "a wrong answer");
        }
        Ok(median(&times))
    }
}

/// What one would write with the crate alone: is the IP in a network of the list?
pub(super) struct Trie {
    v4: PrefixSet<Ipv4Net>,
    v6: PrefixSet<Ipv6Net>,
}

impl Trie {
    pub(super) fn of(lists: &Lists) -> Self {
        let (mut v4, mut v6) = (PrefixSet::new(), PrefixSet::new());
        for network in &lists.networks {
            match network.first() {
                IpAddr::V4(first) => _ = v4.insert(Ipv4Net::new_assert(first, network.prefix_len())),
                IpAddr::V6(first) => _ = v6.insert(Ipv6Net::new_assert(first, network.prefix_len())),
            }
        }
        Self { v4, v6 }
    }

    fn contains(&self, ip: IpAddr) -> bool {
        match ip {
            IpAddr::V4(ip) => self.v4.get_spm(&Ipv4Net::from(ip)).is_some(),
            IpAddr::V6(ip) => self.v6.get_spm(&Ipv6Net::from(ip)).is_some(),
        }
    }

    pub(super) fn measure(&self, lists: &Lists, hit: bool) -> Result<f64> {
        let asked: Vec<IpAddr> = lists.questions(hit).iter().map(|question| question.ip).collect();
        let mut times = Vec::with_capacity(asked.len() / BATCH);
        for batch in asked.chunks_exact(BATCH) {
            // Brings them near, as the questions of a decision are.
            black_box(batch.to_vec());
            let start = Instant::now();
            let found = batch
                .iter()
                .filter(|ip| black_box(self.contains(black_box(**ip))))
                .count();
            times.push(start.elapsed().as_nanos() as f64 / BATCH as f64);
            ensure!(found == if hit { BATCH } else { 0 }, "a wrong answer");
        }
        Ok(median(&times))
    }
}

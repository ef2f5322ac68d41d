//! The lists and the questions: random, and the same in every run.

use anyhow::Result;
use libp2p_core::Multiaddr;
use libp2p_core::multiaddr::Protocol;
use libp2p_gater::Cidr;
use libp2p_identity::PeerId;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

pub(crate) struct Lists {
    pub(crate) networks: BTreeSet<Cidr>,
    pub(crate) peers: Vec<PeerId>,
    /// A blocked peer at a blocked address.
    pub(crate) hits: Vec<Question>,
    /// Neither.
    pub(crate) misses: Vec<Question>,
}

pub(crate) struct Question {
    pub(crate) peer: PeerId,
    pub(crate) ip: IpAddr,
    /// `/ip4/…/tcp/4001`.
    pub(crate) address: Multiaddr,
    /// The same with `/p2p/…`, as a Swarm hands it to a transport.
    pub(crate) dialled: Multiaddr,
}

/// splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// As an Ed25519 key has it: the key itself, inline.
    fn peer(&mut self) -> PeerId {
        let mut bytes = vec![0, 36, 8, 1, 18, 32];
        for _ in 0..4 {
            bytes.extend(self.next().to_be_bytes());
        }
        PeerId::from_bytes(&bytes).expect("the form of an inline key")
    }

    /// Four of five IPv4, the others global IPv6.
    fn ip(&mut self) -> IpAddr {
        let bits = (u128::from(self.next()) << 64) | u128::from(self.next());
        match self.below(5) {
            0 => Ipv6Addr::from_bits((bits >> 3) | (1 << 125)).into(),
            _ => Ipv4Addr::from_bits(bits as u32).into(),
        }
    }

    /// /18 to /32, or /32 to /64.
    fn network(&mut self) -> Cidr {
        let ip = self.ip();
        let length = match ip {
            IpAddr::V4(_) => 18 + self.below(15),
            IpAddr::V6(_) => 32 + self.below(33),
        };
        Cidr::around(ip, length as u8).expect("a length that there is")
    }

    fn within(&mut self, network: Cidr) -> IpAddr {
        let bits = (u128::from(self.next()) << 64) | u128::from(self.next());
        let length = network.prefix_len();
        match network.first() {
            IpAddr::V4(first) => {
                let free = if length == 32 { 0 } else { u32::MAX >> length };
                Ipv4Addr::from_bits(first.to_bits() | (bits as u32 & free)).into()
            }
            IpAddr::V6(first) => Ipv6Addr::from_bits(first.to_bits() | (bits & (u128::MAX >> length))).into(),
        }
    }
}

impl Question {
    fn new(peer: PeerId, ip: IpAddr) -> Self {
        let address = Multiaddr::from(ip).with(Protocol::Tcp(4001));
        Self {
            dialled: address.clone().with(Protocol::P2p(peer)),
            peer,
            ip,
            address,
        }
    }
}

impl Lists {
    pub(crate) fn make(networks: usize, peers: usize, questions: usize) -> Self {
        let mut random = Random(7);
        let mut blocked = BTreeSet::new();
        while blocked.len() < networks {
            blocked.insert(random.network());
        }
        let peers: Vec<PeerId> = (0..peers).map(|_| random.peer()).collect();
        let all: Vec<Cidr> = blocked.iter().copied().collect();
        let mut lengths: BTreeMap<(bool, u8), BTreeSet<Cidr>> = BTreeMap::new();
        for network in &all {
            let key = (network.first().is_ipv4(), network.prefix_len());
            lengths.entry(key).or_default().insert(*network);
        }
        let is_blocked = |ip: IpAddr| {
            let own = lengths.iter().filter(|((v4, _), _)| *v4 == ip.is_ipv4());
            own.into_iter()
                .any(|((_, length), set)| Cidr::around(ip, *length).is_ok_and(|range| set.contains(&range)))
        };
        let hits = (0..questions)
            .map(|_| {
                let network = all[random.below(all.len())];
                Question::new(peers[random.below(peers.len())], random.within(network))
            })
            .collect();
        let misses = (0..questions)
            .map(|_| {
                let free = std::iter::repeat_with(|| random.ip()).find(|ip| !is_blocked(*ip));
                let ip = free.expect("most of the Internet");
                Question::new(random.peer(), ip)
            })
            .collect();
        Self {
            networks: blocked,
            peers,
            hits,
            misses,
        }
    }

    pub(crate) fn questions(&self, hit: bool) -> &[Question] {
        if hit { &self.hits } else { &self.misses }
    }

    /// As the gater's file, which is simple enough for the Go program too; and what to ask.
    pub(crate) fn write(&self, rules: &Path, questions: &Path) -> Result<()> {
        let mut to = BufWriter::new(File::create(rules)?);
        writeln!(to, "libp2p-gater rules 1")?;
        for network in &self.networks {
            writeln!(to, "block network {network}")?;
        }
        for peer in &self.peers {
            writeln!(to, "block peer {peer}")?;
        }
        writeln!(to, "end")?;
        to.into_inner()?.sync_all()?;
        let mut to = BufWriter::new(File::create(questions)?);
        for hit in [true, false] {
            let answer = super::answer(hit);
            for Question { peer, .. } in self.questions(hit) {
                writeln!(to, "peer_dial {answer} {peer} -")?;
            }
            // A linear scan takes its time.
            for Question { address, .. } in self.questions(hit).iter().take(512) {
                writeln!(to, "accept {answer} - {address}")?;
                writeln!(to, "addr_dial {answer} - {address}")?;
            }
            for Question { peer, address, .. } in self.questions(hit) {
                writeln!(to, "secured {answer} {peer} {address}")?;
            }
        }
        to.into_inner()?.sync_all()?;
        Ok(())
    }
}

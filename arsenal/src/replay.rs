//! Plays recorded first flights again, and counts who is answered.

use crate::classes::Outcome;
use crate::content::Content;
use crate::gate::GateKey;
use crate::grid::{Delivery, Ending, Probe};
use crate::probe::{Limits, run};
use crate::rng::Rng;
use clap::ValueEnum;
use futures::stream::{self, StreamExt as _};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// A way to play a flight again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// From the source address it came from.
    SameSource,
    /// From another one.
    OtherSource,
    /// To another address of the same listener.
    OtherAddress,
    /// Many copies at the same moment.
    AtOnce,
    /// Under another outer nonce each time, as whoever knows the PeerId can.
    Rewrapped,
}

impl Way {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::SameSource,
        Self::OtherSource,
        Self::OtherAddress,
        Self::AtOnce,
        Self::Rewrapped,
    ];
}

/// How to replay.
#[derive(Debug, Clone)]
pub struct Replay {
    /// The listener.
    pub target: SocketAddr,
    /// Other addresses of it.
    pub also: Vec<SocketAddr>,
    /// Where the flights came from; the kernel chooses if nothing is given.
    pub source: Option<IpAddr>,
    /// Where they did not come from.
    pub other_source: Option<IpAddr>,
    /// How often each flight is played in each way.
    pub times: usize,
    /// Copies in [`Way::AtOnce`].
    pub copies: usize,
    /// How long to wait for an answer.
    pub wait: Duration,
}

impl Replay {
    /// A replay in front of that listener with the usual figures.
    pub fn new(target: SocketAddr) -> Self {
        Self {
            target,
            also: Vec::new(),
            source: None,
            other_source: target
                .is_ipv4()
                .then_some([127, 9, 9, 9].into())
                .filter(|_| target.ip().is_loopback()),
            times: 10,
            copies: 64,
            wait: Duration::from_millis(500),
        }
    }
}

/// What came of one way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replayed {
    /// The way.
    pub way: Way,
    /// Flights that reached the listener.
    pub sent: u64,
    /// Those that got any byte back.
    pub answered: u64,
    /// The bytes they got.
    pub bytes: u64,
    /// Flights for which there was no connection.
    pub not_connected: u64,
}

/// Connections at once, but for [`Way::AtOnce`].
const IN_FLIGHT: usize = 64;

impl Replay {
    /// Plays `flights` in each of `ways`, one way after the other. A way that lacks what it needs (another address, the
    /// key of the box) sends nothing.
    pub async fn run(&self, flights: &[Vec<u8>], ways: &[Way], gate: Option<&GateKey>, seed: u64) -> Vec<Replayed> {
        let mut results = Vec::new();
        let mut rng = Rng::new(seed);
        for way in ways {
            let mut all = Replayed {
                way: *way,
                sent: 0,
                answered: 0,
                bytes: 0,
                not_connected: 0,
            };
            for (flight, target, source, copies) in self.shots(flights, *way, gate, &mut rng) {
                let shots = (0..copies).map(|_| self.shoot(target, source, flight.clone()));
                let mut outcomes = stream::iter(shots).buffer_unordered(copies.max(1));
                while let Some(outcome) = outcomes.next().await {
                    match outcome {
                        Ok(Outcome { answered, .. }) => {
                            all.sent += 1;
                            all.answered += u64::from(answered > 0);
                            all.bytes += answered;
                        }
                        Err(_) => all.not_connected += 1,
                    }
                }
            }
            results.push(all);
        }
        results
    }

    /// Which flight goes where, from where, and how many copies of it at the same moment.
    fn shots(
        &self,
        flights: &[Vec<u8>],
        way: Way,
        gate: Option<&GateKey>,
        rng: &mut Rng,
    ) -> Vec<(Vec<u8>, SocketAddr, Option<IpAddr>, usize)> {
        let portions = || {
            (0..self.times)
                .step_by(IN_FLIGHT)
                .map(|done| IN_FLIGHT.min(self.times - done))
        };
        let mut shots = Vec::new();
        for flight in flights {
            let mut push = |target, source, copies| shots.push((flight.clone(), target, source, copies));
            match way {
                Way::SameSource => portions().for_each(|copies| push(self.target, self.source, copies)),
                Way::OtherSource => portions().for_each(|copies| push(self.target, self.other_source, copies)),
                Way::OtherAddress => {
                    for other in &self.also {
                        portions().for_each(|copies| push(*other, self.source, copies));
                    }
                }
                Way::AtOnce => push(self.target, self.source, self.copies),
                Way::Rewrapped => {
                    for _ in 0..self.times {
                        let again = gate.and_then(|gate| gate.rewrap(flight, rng));
                        shots.extend(again.map(|flight| (flight, self.target, self.source, 1)));
                    }
                }
            }
        }
        shots
    }

    async fn shoot(&self, target: SocketAddr, source: Option<IpAddr>, flight: Vec<u8>) -> std::io::Result<Outcome> {
        let probe = Probe {
            index: 0,
            length: flight.len(),
            content: Content::Capture,
            delivery: Delivery::Whole,
            ending: Ending::Close,
        };
        let limits = Limits {
            moment: self.wait,
            ..Limits::default()
        };
        run(target, source, probe, flight, limits).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_flight_is_played_as_often_as_asked_for_in_each_way() {
        let target = "127.0.0.1:1".parse().unwrap();
        let mut rng = Rng::new(1);
        let gate = GateKey::new(&[9; 32]).unwrap();
        let flights = [gate.seal_noise(0, &mut rng).unwrap(), b"no box".to_vec()];
        let replay = Replay {
            times: 100,
            also: vec![target, target],
            ..Replay::new(target)
        };
        let mut copies = |way| -> usize {
            let shots = replay.shots(&flights, way, Some(&gate), &mut rng);
            shots.iter().map(|(.., copies)| copies).sum()
        };
        assert_eq!(Way::ALL.map(&mut copies), [200, 200, 400, 128, 100]);
    }
}

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

/// One flight on one connection.
struct Shot {
    flight: Vec<u8>,
    target: SocketAddr,
    source: Option<IpAddr>,
}

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
            for salvo in self.salvos(flights, *way, gate, &mut rng) {
                let together = salvo.len();
                let shots = salvo.into_iter().map(|shot| self.shoot(shot));
                let mut outcomes = stream::iter(shots).buffer_unordered(together);
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

    /// What is played at the same moment, one salvo after the other.
    fn salvos(&self, flights: &[Vec<u8>], way: Way, gate: Option<&GateKey>, rng: &mut Rng) -> Vec<Vec<Shot>> {
        let mut salvos = Vec::new();
        for flight in flights {
            let to = |target, source| Shot {
                flight: flight.clone(),
                target,
                source,
            };
            let (times, most) = match way {
                Way::AtOnce => (self.copies, self.copies),
                _ => (self.times, IN_FLIGHT),
            };
            let mut shots = Vec::new();
            for _ in 0..times {
                match way {
                    Way::SameSource | Way::AtOnce => shots.push(to(self.target, self.source)),
                    Way::OtherSource => shots.push(to(self.target, self.other_source)),
                    Way::OtherAddress => shots.extend(self.also.iter().map(|other| to(*other, self.source))),
                    Way::Rewrapped => {
                        let again = gate.and_then(|gate| gate.rewrap(flight, rng));
                        shots.extend(again.map(|flight| Shot {
                            flight,
                            ..to(self.target, self.source)
                        }));
                    }
                }
            }
            while !shots.is_empty() {
                salvos.push(shots.split_off(shots.len().saturating_sub(most)));
            }
        }
        salvos
    }

    async fn shoot(&self, shot: Shot) -> std::io::Result<Outcome> {
        let Shot { flight, target, source } = shot;
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
            let salvos = replay.salvos(&flights, way, Some(&gate), &mut rng);
            assert!(salvos.iter().all(|salvo| (1..=IN_FLIGHT).contains(&salvo.len())));
            salvos.iter().map(Vec::len).sum()
        };
        assert_eq!(Way::ALL.map(&mut copies), [200, 200, 400, 128, 100]);
    }
}

//! One end of the protocol, for one peer: messages, time and chance come in, pings, pongs and latencies go out.

use crate::engine::time::later;
use rand::{Rng, RngExt as _};
use sha2::{Digest as _, Sha256};
use std::time::{Duration, Instant};

const PING: [u8; 4] = 1u32.to_be_bytes();
const PONG: [u8; 4] = 2u32.to_be_bytes();

/// Its type, and a tag of 16 bytes that nobody can guess.
pub(super) const MIN_SIZE: usize = 20;

pub(super) const PONG_SIZE: usize = 4 + 32;

#[derive(Debug)]
pub(super) struct Pinger {
    size: usize,
    min: Duration,
    max: Duration,
    timeout: Duration,
    /// The next ping, or the end of the wait for a pong.
    due: Instant,
    outstanding: Option<(Instant, [u8; PONG_SIZE])>,
}

/// What came of a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Received {
    /// Answer with this at once.
    Ping([u8; PONG_SIZE]),
    /// The answer to our last ping, after so long.
    Pong(Duration),
    Invalid,
}

/// What came of waiting.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Due {
    Send(Vec<u8>),
    TimedOut,
}

impl Pinger {
    pub(super) fn new(now: Instant, config: &super::Config, random: &mut impl Rng) -> Self {
        let mut this = Self {
            size: config.size,
            min: config.min,
            max: config.max,
            timeout: config.timeout,
            due: now,
            outstanding: None,
        };
        this.due = later(later(now, config.startup_delay), this.pause(random));
        this
    }

    /// When [`Pinger::on_time`] has something to do.
    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// What is due, if anything is.
    pub(super) fn on_time(&mut self, now: Instant, random: &mut impl Rng) -> Option<Due> {
        if now < self.due {
            return None;
        }
        if self.outstanding.take().is_some() {
            self.due = later(now, self.pause(random));
            return Some(Due::TimedOut);
        }
        let mut ping = vec![0; self.size];
        ping[..4].copy_from_slice(&PING);
        random.fill_bytes(&mut ping[4..]);
        self.outstanding = Some((now, pong(&ping)));
        self.due = later(now, self.timeout);
        Some(Due::Send(ping))
    }

    pub(super) fn on_message(&mut self, now: Instant, message: &[u8], random: &mut impl Rng) -> Received {
        if message.starts_with(&PING) && message.len() == self.size {
            return Received::Ping(pong(message));
        }
        match self.outstanding {
            Some((sent, expected)) if message == expected => {
                self.outstanding = None;
                self.due = later(now, self.pause(random));
                Received::Pong(now.duration_since(sent))
            }
            _ => Received::Invalid,
        }
    }

    /// Uniform between both bounds.
    fn pause(&self, random: &mut impl Rng) -> Duration {
        self.min + (self.max - self.min).mul_f64(random.random())
    }
}

fn pong(ping: &[u8]) -> [u8; PONG_SIZE] {
    let mut pong = [0; PONG_SIZE];
    pong[..4].copy_from_slice(&PONG);
    pong[4..].copy_from_slice(&Sha256::digest(ping));
    pong
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::*;
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    const SECOND: Duration = Duration::from_secs(1);

    fn pinger(now: Instant, random: &mut StdRng) -> Pinger {
        Pinger::new(now, &Config::defaults()[0], random)
    }

    #[test]
    fn a_pong_is_the_hash_of_the_ping() {
        let ping = hex::decode("00000001000102030405060708090a0b0c0d0e0f").unwrap();
        let (now, mut random) = (Instant::now(), StdRng::seed_from_u64(1));
        let Received::Ping(pong) = pinger(now, &mut random).on_message(now, &ping, &mut random) else {
            panic!("a ping");
        };
        assert_eq!(
            hex::encode(pong),
            "0000000247f7ee88f8d079c8f7f81c40c51b9e2b4d2785da7bacc2ac4f00a87e93d77054"
        );
    }

    #[test]
    fn pings_are_sent_between_the_bounds_and_never_two_at_once() {
        let (mut now, mut random) = (Instant::now(), StdRng::seed_from_u64(1));
        let mut pinger = pinger(now, &mut random);
        let first = pinger.due() - now;
        assert!(
            (40 * SECOND..=50 * SECOND).contains(&first),
            "the startup delay before: {first:?}"
        );
        let mut pauses = Vec::new();
        for round in 0..200u32 {
            assert_eq!(
                pinger.on_time(pinger.due() - Duration::from_nanos(1), &mut random),
                None
            );
            now = pinger.due();
            let Some(Due::Send(ping)) = pinger.on_time(now, &mut random) else {
                panic!()
            };
            assert_eq!(ping.len(), 20);
            assert_eq!(pinger.on_time(now, &mut random), None, "one is out");
            if round % 2 == 0 {
                now += SECOND;
                let pong = pong(&ping);
                assert_eq!(pinger.on_message(now, &pong, &mut random), Received::Pong(SECOND));
                assert_eq!(pinger.on_message(now, &pong, &mut random), Received::Invalid, "twice");
            } else {
                assert_eq!(pinger.due(), now + 10 * SECOND);
                now = pinger.due();
                assert_eq!(pinger.on_time(now, &mut random), Some(Due::TimedOut));
                assert_eq!(
                    pinger.on_message(now, &pong(&ping), &mut random),
                    Received::Invalid,
                    "too late"
                );
            }
            pauses.push(pinger.due() - now);
        }
        assert!(
            pauses.iter().all(|pause| (10 * SECOND..=20 * SECOND).contains(pause)),
            "{pauses:?}"
        );
        assert!(pauses.iter().any(|pause| *pause < 12 * SECOND) && pauses.iter().any(|pause| *pause > 18 * SECOND));
    }

    #[test]
    fn times_without_end_do_not_overflow() {
        let (now, mut random) = (Instant::now(), StdRng::seed_from_u64(1));
        let endless = Config::new(20, Duration::MAX, Duration::MAX, Duration::MAX).unwrap();
        let delayed = endless.clone().with_startup_delay(Duration::MAX);
        for config in [endless.with_startup_delay(Duration::ZERO), delayed] {
            let mut pinger = Pinger::new(now, &config, &mut random);
            let due = pinger.due();
            assert!(due > now + 1_000_000 * SECOND);
            let Some(Due::Send(ping)) = pinger.on_time(due, &mut random) else {
                panic!()
            };
            assert!(pinger.due() >= due);
            let received = pinger.on_message(due, &pong(&ping), &mut random);
            assert_eq!(received, Received::Pong(Duration::ZERO));
        }
    }

    #[test]
    fn what_is_neither_a_ping_of_our_size_nor_the_pong_we_wait_for_is_invalid() {
        let (now, mut random) = (Instant::now(), StdRng::seed_from_u64(1));
        let mut pinger = pinger(now, &mut random);
        let due = pinger.due();
        let Some(Due::Send(ping)) = pinger.on_time(due, &mut random) else {
            panic!()
        };
        let mut wrong = pong(&ping);
        wrong[35] ^= 1;
        let long = [&PING[..], &[0; 17]].concat();
        for message in [
            &[][..],
            &[0, 0, 0],
            &PING,
            &long,
            &long[..19],
            &wrong,
            &pong(&ping)[..35],
        ] {
            assert_eq!(
                pinger.on_message(due, message, &mut random),
                Received::Invalid,
                "{message:?}"
            );
        }
        assert_eq!(
            pinger.on_message(due, &pong(&ping), &mut random),
            Received::Pong(Duration::ZERO),
            "still waited for"
        );
    }
}

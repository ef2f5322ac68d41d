//! How long to wait before the next dial.

use super::config::Config;
use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

/// Random enough to spread dials, and repeatable from its seed: SplitMix64. Nothing secret depends on it.
#[derive(Debug, Clone)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: Option<u64>) -> Self {
        // What the standard library keys its maps with.
        Self(seed.unwrap_or_else(|| RandomState::new().hash_one(0)))
    }

    pub(crate) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// From 0 up to, but not including, 1.
    fn fraction(&mut self) -> f64 {
        let bits = u32::try_from(self.roll() >> 32).unwrap_or(0);
        f64::from(bits) / (f64::from(u32::MAX) + 1.0)
    }
}

/// The pause after `failures` in a row: the minimum, doubled for each but the first, up to the maximum, and jitter.
pub(crate) fn pause(config: &Config, failures: u32, dice: &mut Dice) -> Duration {
    let doublings = failures.saturating_sub(1).min(31);
    let longest = config.max_interval.max(config.min_interval);
    let plain = config.min_interval.saturating_mul(1 << doublings).min(longest);
    let jitter = Duration::try_from_secs_f64(plain.as_secs_f64() * config.jitter * dice.fraction());
    plain.saturating_add(jitter.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        Config::new()
            .with_min_interval(Duration::from_secs(1))
            .with_max_interval(Duration::from_secs(60))
    }

    #[test]
    fn pauses_double_up_to_the_maximum() {
        let config = config().with_jitter(0.0);
        let mut dice = Dice::new(Some(1));
        let pauses: Vec<u64> = (1..=9).map(|n| pause(&config, n, &mut dice).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(pause(&config, u32::MAX, &mut dice).as_secs(), 60);
    }

    #[test]
    fn jitter_only_lengthens_and_stays_within_its_fraction() {
        let config = config().with_jitter(0.5);
        let mut dice = Dice::new(Some(7));
        let pauses: Vec<f64> = (0..1000).map(|_| pause(&config, 4, &mut dice).as_secs_f64()).collect();
        assert!(pauses.iter().all(|pause| (8.0..12.0).contains(pause)));
        // Spread over the whole range, not huddled in a part of it.
        for tenth in 0..10 {
            let from = 8.0 + 0.4 * f64::from(tenth);
            let within = pauses
                .iter()
                .filter(|pause| (from..from + 0.4).contains(*pause))
                .count();
            assert!((50..=150).contains(&within), "{within} of 1000 from {from} s");
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_pauses() {
        let config = config();
        let (mut one, mut other) = (Dice::new(Some(3)), Dice::new(Some(3)));
        for failures in 1..100 {
            assert_eq!(pause(&config, failures, &mut one), pause(&config, failures, &mut other));
        }
        assert_ne!(Dice::new(None).roll(), Dice::new(None).roll());
    }

    #[test]
    fn absurd_settings_are_moved_to_their_bounds() {
        let mut dice = Dice::new(Some(1));
        let config = Config::new().with_min_interval(Duration::ZERO).with_jitter(f64::NAN);
        assert_eq!(pause(&config, 1, &mut dice), Config::SHORTEST_INTERVAL);
        let config = Config::new()
            .with_min_interval(Duration::MAX)
            .with_max_interval(Duration::ZERO)
            .with_jitter(f64::INFINITY);
        assert_eq!(pause(&config, 9, &mut dice), Duration::MAX);
    }
}

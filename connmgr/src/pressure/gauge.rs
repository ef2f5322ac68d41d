//! Readings in, alarms out. Pure.

use std::num::NonZeroU32;
use std::time::Duration;
use web_time::Instant;

/// How much of some memory is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Usage {
    /// Bytes in use that cannot simply be dropped.
    pub used: u64,
    /// Bytes that there are.
    pub limit: u64,
}

impl Usage {
    /// `used` of `limit` bytes.
    pub fn new(used: u64, limit: u64) -> Self {
        Self { used, limit }
    }

    /// The part in use, 0 to 1 and beyond. Of no memory at all, all is in use.
    #[expect(clippy::cast_precision_loss, reason = "of exabytes, the last kilobyte is lost")]
    pub fn fraction(&self) -> f64 {
        if self.limit == 0 {
            return 1.0;
        }
        self.used as f64 / self.limit as f64
    }
}

/// Memory runs short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Alarm {
    /// The reading that raised it.
    pub usage: Usage,
    /// Whether the last alarm has not helped: no reading since was below the lower mark.
    pub again: bool,
}

/// When there is an alarm. Values out of bounds are moved to the nearest bound, as each setter says.
#[derive(Debug, Clone)]
pub struct Config {
    upper: f64,
    lower: f64,
    confirmations: NonZeroU32,
    repeat: Duration,
    pub(crate) interval: Duration,
}

impl Config {
    /// The shortest interval that [`with_interval`](Self::with_interval) takes.
    pub const SHORTEST_INTERVAL: Duration = Duration::from_millis(10);

    /// The defaults, which stand beside each setter.
    pub fn new() -> Self {
        Self::default()
    }

    /// An alarm from this fraction of the limit on, and another one not before a reading below `lower`. Default 0.90 and
    /// 0.80. Both 0 to 1, what is no number counts as the default; a lower mark above the upper one counts as the upper
    /// one.
    pub fn with_marks(mut self, lower: f64, upper: f64) -> Self {
        let defaults = Self::default();
        let valid = |mark: f64, default: f64| if mark.is_nan() { default } else { mark.clamp(0.0, 1.0) };
        self.upper = valid(upper, defaults.upper);
        self.lower = valid(lower, defaults.lower).min(self.upper);
        self
    }

    /// So many readings in a row above the upper mark make an alarm. Default 3.
    pub fn with_confirmations(mut self, readings: NonZeroU32) -> Self {
        self.confirmations = readings;
        self
    }

    /// While memory stays above the lower mark and is above the upper one, there is an alarm this often. Default 30 s.
    pub fn with_repeat(mut self, every: Duration) -> Self {
        self.repeat = every;
        self
    }

    /// From one reading to the next. A reading takes some ten microseconds for each control group above the process.
    /// Default 1 s, at least 10 ms.
    pub fn with_interval(mut self, interval: Duration) -> Self {
        self.interval = interval.max(Self::SHORTEST_INTERVAL);
        self
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            upper: 0.90,
            lower: 0.80,
            confirmations: NonZeroU32::MIN.saturating_add(2),
            repeat: Duration::from_secs(30),
            interval: Duration::from_secs(1),
        }
    }
}

/// Decides, with hysteresis.
#[derive(Debug)]
pub(crate) struct Gauge {
    config: Config,
    /// Readings in a row above the upper mark.
    above: u32,
    /// When the last alarm was, if no reading since was below the lower mark.
    alarmed: Option<Instant>,
}

impl Gauge {
    pub(crate) fn new(config: Config) -> Self {
        Self {
            config,
            above: 0,
            alarmed: None,
        }
    }

    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    pub(crate) fn observe(&mut self, now: Instant, usage: Usage) -> Option<Alarm> {
        let fraction = usage.fraction();
        if fraction < self.config.lower {
            self.alarmed = None;
        }
        if fraction < self.config.upper {
            self.above = 0;
            return None;
        }
        self.above = self.above.saturating_add(1);
        if self.above < self.config.confirmations.get() {
            return None;
        }
        let again = match self.alarmed {
            Some(last) if now.saturating_duration_since(last) < self.config.repeat => return None,
            last => last.is_some(),
        };
        self.alarmed = Some(now);
        Some(Alarm { usage, again })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn config() -> Config {
        Config::new().with_marks(0.8, 0.9)
    }

    /// The seconds of the alarms, and whether each was a repetition, when there is one reading, in per cent, a second.
    fn alarms(config: Config, readings: impl IntoIterator<Item = u64>) -> Vec<(u64, bool)> {
        let mut gauge = Gauge::new(config);
        let start = Instant::now();
        let mut alarms = Vec::new();
        for (second, percent) in (0..).zip(readings) {
            let now = start + Duration::from_secs(second);
            if let Some(alarm) = gauge.observe(now, Usage::new(percent, 100)) {
                assert_eq!(alarm.usage, Usage::new(percent, 100));
                alarms.push((second, alarm.again));
            }
        }
        alarms
    }

    #[test]
    fn it_takes_several_readings_in_a_row() {
        assert_eq!(alarms(config(), [95, 95, 89, 95, 95, 89, 95, 95]), []);
        assert_eq!(alarms(config(), [95, 90, 100]), [(2, false)]);
        let at_once = config().with_confirmations(NonZeroU32::MIN);
        assert_eq!(alarms(at_once, [89, 90]), [(1, false)]);
    }

    #[test]
    fn the_next_alarm_waits_for_a_reading_below_the_lower_mark() {
        let dips_too_little = [95, 95, 95, 85, 95, 95, 95, 95];
        assert_eq!(alarms(config(), dips_too_little), [(2, false)]);
        let dips = [95, 95, 95, 79, 95, 95, 95, 95];
        assert_eq!(alarms(config(), dips), [(2, false), (6, false)]);
    }

    #[test]
    fn pressure_that_a_trim_did_not_cure_is_an_alarm_again() {
        let config = config().with_repeat(10 * SECOND);
        assert_eq!(alarms(config, [95; 30]), [(2, false), (12, true), (22, true)]);
    }

    #[test]
    fn absurd_settings_are_moved_to_their_bounds() {
        let upside_down = Config::new().with_marks(0.95, 0.5).with_confirmations(NonZeroU32::MIN);
        assert_eq!(alarms(upside_down, [50, 49, 50]), [(0, false), (2, false)]);
        let nothing = Config::new().with_marks(f64::NAN, f64::NAN);
        assert_eq!(alarms(nothing, [95, 95, 95]), [(2, false)]);
        let never = Config::new().with_marks(-1.0, 9.0);
        assert_eq!(alarms(never, [99; 9]), []);
        assert_eq!(
            Config::new().with_interval(Duration::ZERO).interval,
            Config::SHORTEST_INTERVAL
        );
        assert!(Usage::new(1, 0).fraction() >= 1.0);
    }
}

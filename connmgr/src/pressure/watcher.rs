//! Reads, asks the gauge, and sleeps.

use super::gauge::{Alarm, Config, Gauge, Usage};
use crate::user_code::{Hook, HookPanics};
use futures::future::FutureExt as _;
use futures::ready;
use futures_timer::Delay;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use web_time::Instant;

/// Says how much memory is in use.
pub trait Source: Send {
    /// Called once an interval, on the task that polls the [`Watcher`], and under no lock: it must
    /// not block for long. A panic counts as an error.
    ///
    /// # Errors
    ///
    /// When it cannot be said. The watcher logs the first of several in a row and goes on.
    fn read(&mut self) -> io::Result<Usage>;
}

impl<F> Source for F
where
    F: FnMut() -> io::Result<Usage> + Send,
{
    fn read(&mut self) -> io::Result<Usage> {
        self()
    }
}

/// The memory that limits this process. See the [module](super).
#[derive(Debug)]
pub struct SystemMemory {
    #[cfg(target_os = "linux")]
    reader: super::reader::Reader,
}

/// This platform does not show its memory in a way that is known here; a [`Source`] of your own can.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("memory is watched on Linux only; elsewhere it needs a source of its own")]
#[non_exhaustive]
pub struct Unsupported;

impl SystemMemory {
    /// Finds the control groups of this process.
    ///
    /// # Errors
    ///
    /// [`Unsupported`] on everything but Linux.
    pub fn new() -> Result<Self, Unsupported> {
        #[cfg(target_os = "linux")]
        return Ok(Self {
            reader: super::reader::Reader::new(std::path::Path::new("/")),
        });
        #[cfg(not(target_os = "linux"))]
        Err(Unsupported)
    }
}

impl Source for SystemMemory {
    #[cfg(target_os = "linux")]
    fn read(&mut self) -> io::Result<Usage> {
        self.reader.read()
    }

    #[cfg(not(target_os = "linux"))]
    fn read(&mut self) -> io::Result<Usage> {
        Err(io::Error::new(io::ErrorKind::Unsupported, Unsupported))
    }
}

/// Polled for alarms; keeps its own timer.
pub struct Watcher {
    gauge: Gauge,
    source: Box<dyn Source>,
    next: Delay,
    /// Whether the last reading failed.
    blind: bool,
    panics: Arc<HookPanics>,
}

impl fmt::Debug for Watcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watcher")
            .field("gauge", &self.gauge)
            .field("blind", &self.blind)
            .finish_non_exhaustive()
    }
}

impl Watcher {
    /// Watches `source`; the first reading is one interval from now.
    pub fn new(config: Config, source: impl Source + 'static) -> Self {
        Self {
            next: Delay::new(config.interval),
            gauge: Gauge::new(config),
            source: Box::new(source),
            blind: false,
            panics: Arc::default(),
        }
    }

    /// Counts the panics of the source there.
    pub(crate) fn counting(mut self, panics: &Arc<HookPanics>) -> Self {
        self.panics = panics.clone();
        self
    }

    /// Ready when there is an alarm; to be polled again after it. Between readings this is a look at a timer.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Alarm> {
        loop {
            ready!(self.next.poll_unpin(cx));
            self.next.reset(self.gauge.config().interval);
            let source = &mut self.source;
            let read = self.panics.call(Hook::MemorySource, || source.read());
            match read.unwrap_or_else(|| Err(io::Error::other("the source panicked"))) {
                Ok(usage) => {
                    self.blind = false;
                    if let Some(alarm) = self.gauge.observe(Instant::now(), usage) {
                        return Poll::Ready(alarm);
                    }
                }
                Err(error) => {
                    if !std::mem::replace(&mut self.blind, true) {
                        tracing::warn!(%error, "memory cannot be watched for now");
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;
    use std::num::NonZeroU32;

    fn config() -> Config {
        Config::new()
            .with_interval(Config::SHORTEST_INTERVAL)
            .with_confirmations(NonZeroU32::MIN)
    }

    #[tokio::test]
    async fn an_alarm_comes_when_memory_runs_short_and_not_before() {
        let mut readings: VecDeque<u64> = [10, 20, 89, 95].into();
        let mut watcher = Watcher::new(config(), move || Ok(Usage::new(readings.pop_front().unwrap_or(0), 100)));
        let alarm = std::future::poll_fn(|cx| watcher.poll(cx)).await;
        assert_eq!(alarm.usage, Usage::new(95, 100));
        assert!(!alarm.again);
    }

    #[tokio::test]
    async fn a_source_that_fails_for_a_while_is_asked_again() {
        let mut asked = 0;
        let mut watcher = Watcher::new(config(), move || {
            asked += 1;
            if asked < 4 {
                Err(io::ErrorKind::NotFound.into())
            } else {
                Ok(Usage::new(99, 100))
            }
        });
        let alarm = std::future::poll_fn(|cx| watcher.poll(cx)).await;
        assert_eq!(alarm.usage.used, 99);
    }

    #[tokio::test]
    async fn a_source_that_panics_is_asked_again_and_the_panic_is_counted() {
        let mut asked = 0;
        let watcher = Watcher::new(config(), move || {
            asked += 1;
            assert!(asked > 2, "no reading yet");
            Ok(Usage::new(99, 100))
        });
        let panics = Arc::default();
        let mut watcher = watcher.counting(&panics);
        let alarm = std::future::poll_fn(|cx| watcher.poll(cx)).await;
        assert_eq!((alarm.usage.used, panics.get(Hook::MemorySource)), (99, 2));
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_machine_that_is_full_by_definition_raises_the_alarm() {
        let full = config().with_marks(0.0, 0.0);
        let mut watcher = Watcher::new(full, SystemMemory::new().unwrap());
        let alarm = std::future::poll_fn(|cx| watcher.poll(cx)).await;
        assert!(alarm.usage.used > 0);
    }
}

//! Settings that weaken what this crate promises.

use super::Config;
use crate::clock::Clock;
use crate::error::ConfigError;
use crate::tls::CaughtKeyLog;
use crate::user_code::Hook;
use rustls::KeyLog;
use std::sync::Arc;
use std::time::Duration;
use web_time::{SystemTime, UNIX_EPOCH};

/// See [`Config::dangerous`].
#[derive(Debug)]
pub struct Dangerous(pub(super) Config);

impl Dangerous {
    /// How long a socket that does not authenticate stays open. Below some minutes it is a mark
    /// that tells this listener from others; for tests and measurements, which cannot wait for
    /// minutes.
    pub fn with_close_time(mut self, time: Duration) -> Config {
        self.0.close_time = time;
        self.0
    }

    /// The wall clock that knocks are made and judged by. For tests, and for machines with a better
    /// clock than the system's.
    ///
    /// Called here once, then on the task of the listening side and on those of dials and
    /// connections, several times for each knock. It must not block. A clock that panics shows no
    /// time: every knock is then refused, and a dial fails with
    /// [`Error::Seal`](crate::Error::Seal).
    ///
    /// # Errors
    ///
    /// [`ConfigError::Cloned`] once the configuration was cloned: all clones share what is
    /// remembered of knocks, and by which clock.
    pub fn with_clock(self, wall: impl Fn() -> SystemTime + Send + Sync + 'static) -> Result<Config, ConfigError> {
        self.0.not_cloned("with_clock")?;
        let _ = wall();
        let user_code = self.0.user_code.clone();
        let caught = move || user_code.run(Hook::Clock, &wall).unwrap_or(UNIX_EPOCH);
        Ok(self.0.judging_by(Clock::of(caught)))
    }

    /// Hands the secrets of every connection to `log`, so that captures can be decrypted. Never on
    /// by itself: the environment variable that libp2p's own TLS obeys is not looked at.
    ///
    /// Called on the connection's task, a few times in each handshake. One that panics logs
    /// nothing, and the connection goes on.
    pub fn with_key_log(mut self, log: Arc<dyn KeyLog>) -> Config {
        self.0.key_log = Arc::new(CaughtKeyLog::new(log, self.0.user_code.clone()));
        self.0
    }
}

//! What one stream may hold and take in, and the bounds that hold for all of them.

use crate::error::LimitsError;

/// The longest message: 1 GiB. A ceiling for every stream, and for responses.
pub const MAX_MESSAGE_LENGTH: usize = 1 << 30;

/// The longest stream name, in bytes.
pub const MAX_STREAM_NAME_LENGTH: usize = 256;

/// Streams with one peer, at most.
pub const MAX_STREAMS_PER_PEER: usize = 2_000;

/// Peers of one host, at most.
pub const MAX_PEERS_PER_HOST: usize = 256;

/// A token bucket: what may come in a burst, and how fast it fills again.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    /// Tokens per second. Rounded up to whole thousandths.
    pub per_second: f64,
    /// Tokens the bucket holds. It starts full.
    pub capacity: u32,
}

/// What one stream may hold and take in. Both ends of a stream set their own: the limits on rates are those of the receiver,
/// and a message over them is dropped by him, not slowed down.
///
/// A message that is larger than the capacity of the bytes bucket never passes and empties the bucket each time: keep
/// the capacity above the maximum message length.
///
/// ```
/// let limits = knock_host::Limits::default()
///     .with_outgoing_buffer(20)
///     .with_incoming_buffer(20)
///     .with_max_message(1 << 20)
///     .with_messages(100.0, 200)
///     .with_bytes(10e6, 20 << 20);
/// # let _ = limits;
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    pub(crate) outgoing: usize,
    pub(crate) incoming: usize,
    pub(crate) max_message: usize,
    pub(crate) messages: Rate,
    pub(crate) bytes: Rate,
}

/// Ten messages each way, 64 KiB a message, 100 messages and 1 MiB a second, twice that in a burst.
impl Default for Limits {
    fn default() -> Self {
        Self {
            outgoing: 10,
            incoming: 10,
            max_message: 64 << 10,
            messages: Rate {
                per_second: 100.0,
                capacity: 200,
            },
            bytes: Rate {
                per_second: (1 << 20).into(),
                capacity: 2 << 20,
            },
        }
    }
}

impl Limits {
    /// Messages that wait to be sent, at most; the oldest falls out. At least 1. Default 10. Worst case in memory: as many
    /// messages of whatever length the application sends.
    pub fn with_outgoing_buffer(mut self, messages: usize) -> Self {
        self.outgoing = messages;
        self
    }

    /// Messages that wait to be received, at most; the oldest falls out. At least 1. Default 10. Worst case in memory: as
    /// many messages of the maximum length, within the memory budget of the host.
    pub fn with_incoming_buffer(mut self, messages: usize) -> Self {
        self.incoming = messages;
        self
    }

    /// The longest message in bytes, sent or received, at most [`MAX_MESSAGE_LENGTH`]. Default 64 KiB. Longer ones are
    /// dropped and counted. A peer with v1 of the Go original closes the connection when it gets one that is longer than
    /// what it has set itself.
    pub fn with_max_message(mut self, bytes: usize) -> Self {
        self.max_message = bytes;
        self
    }

    /// Messages that are taken in. Default 100 a second, 200 at once.
    pub fn with_messages(mut self, per_second: f64, capacity: u32) -> Self {
        self.messages = Rate { per_second, capacity };
        self
    }

    /// Bytes of payload that are taken in. Default 1 MiB a second, 2 MiB at once.
    pub fn with_bytes(mut self, per_second: f64, capacity: u32) -> Self {
        self.bytes = Rate { per_second, capacity };
        self
    }

    pub(crate) fn check(&self) -> Result<(), LimitsError> {
        if self.outgoing == 0 || self.incoming == 0 {
            return Err(LimitsError::NoBuffer);
        }
        if self.max_message > MAX_MESSAGE_LENGTH {
            return Err(LimitsError::MessageLength(self.max_message));
        }
        for rate in [self.messages.per_second, self.bytes.per_second] {
            if !(rate.is_finite() && rate >= 0.0) {
                return Err(LimitsError::Rate(rate));
            }
        }
        Ok(())
    }
}

/// Which of two classes of streams is sent first. Within a class streams take turns at random.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Priority {
    /// Before the low ones, but for every eighth message.
    #[default]
    Default,
    /// When nothing of default priority waits, and for every eighth message.
    Low,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_of_nothing_is_refused() {
        // The Go original (v1) divides by it: W13.
        let none = [
            Limits::default().with_incoming_buffer(0),
            Limits::default().with_outgoing_buffer(0),
        ];
        for limits in none {
            assert_eq!(limits.check(), Err(LimitsError::NoBuffer));
        }
    }

    #[test]
    fn rates_that_are_no_rates_and_lengths_over_the_ceiling_are_refused() {
        for rate in [-1.0, f64::NAN, f64::INFINITY] {
            let limits = Limits::default();
            assert!(matches!(
                limits.with_messages(rate, 1).check(),
                Err(LimitsError::Rate(_))
            ));
            assert!(matches!(limits.with_bytes(rate, 1).check(), Err(LimitsError::Rate(_))));
        }
        let length = MAX_MESSAGE_LENGTH + 1;
        let limits = Limits::default().with_max_message(length);
        assert_eq!(limits.check(), Err(LimitsError::MessageLength(length)));
        assert_eq!(Limits::default().with_max_message(length - 1).check(), Ok(()));
    }
}

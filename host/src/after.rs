//! What is left to do when the lock of a peer is given back: nothing of it may run under the lock,
//! as all of it may call code of the application's.

use crate::counters::HostCounters;
use crate::engine::id::StreamId;
use crate::user_code::{Hook, HookPanics};
use bytes::Bytes;
use std::sync::Arc;
use std::task::Waker;

/// Tasks to wake, payloads that are no longer needed, and lines for the log.
#[derive(Debug, Default)]
pub(crate) struct After {
    pub(crate) wake: Vec<Waker>,
    /// Wakers whose place another one has taken.
    pub(crate) replaced: Vec<Waker>,
    /// What the application gave us to send. An owner of its own may be behind it.
    pub(crate) spent: Vec<Bytes>,
    pub(crate) notes: Vec<Note>,
}

/// What is left to do when a caller gives back a lock of its own. Done when it is dropped, which
/// has to come after that.
pub(crate) struct Later {
    pub(crate) after: After,
    pub(crate) counters: Arc<HostCounters>,
}

impl Drop for Later {
    fn drop(&mut self) {
        std::mem::take(&mut self.after).run(&self.counters.hook_panics);
    }
}

/// A line for the log.
#[derive(Debug)]
pub(crate) enum Note {
    /// A message that was to be sent and is too long.
    TooLong {
        stream: Arc<str>,
        bytes: usize,
        longest: usize,
    },
    /// The other end opened a stream under a name that is not this one's.
    NotItsName(StreamId),
}

impl After {
    pub(crate) fn is_empty(&self) -> bool {
        self.wake.is_empty() && self.replaced.is_empty() && self.spent.is_empty() && self.notes.is_empty()
    }

    /// Does all of it. A panic in one part keeps no other from being done.
    pub(crate) fn run(self, panics: &HookPanics) {
        for waker in self.wake {
            panics.call(Hook::Waker, || waker.wake());
        }
        for waker in self.replaced {
            panics.call(Hook::Waker, || drop(waker));
        }
        for payload in self.spent {
            panics.call(Hook::Payload, || drop(payload));
        }
        for note in self.notes {
            note.log();
        }
    }
}

impl Note {
    fn log(self) {
        match self {
            Self::TooLong { stream, bytes, longest } => {
                tracing::warn!(%stream, bytes, longest, "dropped a message that is too long");
            }
            Self::NotItsName(stream) => {
                tracing::debug!(?stream, "ignored the opening of a stream under another's name");
            }
        }
    }
}

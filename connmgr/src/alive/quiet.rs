//! Whether a connection carries streams, as far as a handler can tell.

use std::cell::Cell;
use web_time::Instant;

/// Passes in a row without the question that make a stream. A handler that tells its behaviour
/// something ends a pass before the question too, but the next pass follows at once.
const STREAM: u8 = 2;

/// Notices when a connection has no streams.
///
/// The Swarm asks a handler whether to keep a connection only if that carries no stream and
/// negotiates none, and then it asks in every pass. So passes in which it does not ask are passes
/// with streams. Streams that are to be ignored for this (ping's) count for nothing here either.
#[derive(Debug, Default)]
pub(crate) struct Quiet {
    asked: Cell<bool>,
    since: Cell<Option<Instant>>,
    /// Passes since the last question, and when the first of them was.
    passes: u8,
    unasked: Option<Instant>,
    began: Option<Instant>,
}

impl Quiet {
    /// To be called when the Swarm asks.
    pub(crate) fn asked(&self) {
        self.asked.set(true);
        if self.since.get().is_none() {
            self.since.set(Some(Instant::now()));
        }
    }

    /// To be called when the handler is polled, which is before it is asked. While only a stream
    /// that is to be left out keeps the Swarm from asking, `left_out` says so.
    pub(crate) fn pass(&mut self, left_out: bool) {
        if self.asked.replace(false) {
            self.passes = 0;
            return;
        }
        if left_out {
            return;
        }
        self.passes = self.passes.saturating_add(1);
        if self.passes == 1 {
            self.unasked = Some(Instant::now());
        }
        if self.passes == STREAM {
            self.since.set(None);
            self.began = self.unasked;
        }
    }

    /// From when on there has been no stream. `None` while there is one, or may be.
    pub(crate) fn since(&self) -> Option<Instant> {
        self.since.get().filter(|_| self.passes == 0)
    }

    /// When the connection last began to carry a stream. The other end did so too, and may have
    /// ended it long before this end does.
    pub(crate) fn began(&self) -> Option<Instant> {
        self.began
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_quiet_from_the_first_pass_with_a_question_until_there_are_passes_without() {
        let mut quiet = Quiet::default();
        quiet.pass(false);
        assert_eq!(quiet.since(), None, "the Swarm has not asked yet");
        quiet.asked();
        quiet.pass(false);
        let since = quiet.since();
        assert!(since.is_some());
        for _ in 0..3 {
            quiet.asked();
            quiet.asked();
            quiet.pass(false);
            assert_eq!(quiet.since(), since, "it goes on");
        }
        quiet.pass(false);
        assert_eq!(quiet.since(), None, "a pass without the question");
        quiet.asked();
        quiet.pass(false);
        assert_eq!(quiet.since(), since, "another handler told something");
        quiet.asked();
        for _ in 0..3 {
            quiet.pass(true);
            assert_eq!(quiet.since(), since, "the stream is left out");
        }
        assert_eq!(quiet.began(), None);
        quiet.pass(false);
        quiet.pass(false);
        let began = quiet.began();
        assert!(began > since, "there is a stream");
        quiet.pass(false);
        quiet.asked();
        quiet.pass(false);
        assert!(quiet.since() > began, "there was one");
        assert_eq!(quiet.began(), began, "it counts from its beginning");
    }
}

//! Which warnings about peers without a connection are passed on. Pure: times come in.

use libp2p_identity::PeerId;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// One warning about a peer in this time, and [`IN_ALL`] about all of them.
const EVERY: Duration = Duration::from_secs(60);
const IN_ALL: usize = 60;

/// See the module. It holds a time for each peer that there was a warning about, until it is
/// forgotten.
#[derive(Debug, Default)]
pub(crate) struct Warnings {
    last: HashMap<PeerId, Instant>,
    /// The current minute, and how many there were in it.
    minute: Option<(Instant, usize)>,
}

impl Warnings {
    /// Whether to pass on one about `peer`.
    pub(crate) fn pass(&mut self, peer: PeerId, now: Instant) -> bool {
        let recent = |at: Instant| now.saturating_duration_since(at) < EVERY;
        if self.last.get(&peer).is_some_and(|at| recent(*at)) {
            return false;
        }
        let (since, said) = self.minute.filter(|(since, _)| recent(*since)).unwrap_or((now, 0));
        if said == IN_ALL {
            return false;
        }
        self.minute = Some((since, said + 1));
        self.last.insert(peer, now);
        true
    }

    /// There is no stream to `peer` any more.
    pub(crate) fn forget(&mut self, peer: &PeerId) {
        self.last.remove(peer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn one_warning_about_a_peer_in_a_minute() {
        let (mut warnings, start) = (Warnings::default(), Instant::now());
        let (one, two) = (PeerId::random(), PeerId::random());
        assert!(warnings.pass(one, start));
        assert!(!warnings.pass(one, start + seconds(59)));
        assert!(warnings.pass(two, start + seconds(59)));
        assert!(warnings.pass(one, start + seconds(60)));
        // A stream that is opened anew is another one.
        warnings.forget(&one);
        assert!(warnings.pass(one, start + seconds(61)));
        warnings.forget(&one);
        warnings.forget(&two);
        assert!(warnings.last.is_empty());
    }

    #[test]
    fn sixty_warnings_in_a_minute_and_the_others_come_next() {
        let (mut warnings, start) = (Warnings::default(), Instant::now());
        let mut left: Vec<PeerId> = (0..150).map(|_| PeerId::random()).collect();
        for (minute, passed) in [(0, 60), (1, 60), (2, 30)] {
            let (now, before) = (start + seconds(60 * minute), left.len());
            left.retain(|peer| !warnings.pass(*peer, now));
            assert_eq!(before - left.len(), passed);
        }
    }
}

//! Which of several connections to a peer stays. The rule is in the [module's documentation](super).

use libp2p_identity::PeerId;
use libp2p_swarm::ConnectionId;
use std::time::Duration;
use web_time::Instant;

/// A connection, as far as the choice goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) id: ConnectionId,
    /// Which end took the dialer's part. In a hole punch both ends dial, and one of them takes the listener's.
    pub(crate) dialled_by_us: bool,
    pub(crate) relayed: bool,
    /// When we learned of it.
    pub(crate) since: Instant,
}

/// Whether this end closes what is not kept, or waits for the other end to do it.
pub(crate) fn closes(local: &PeerId, remote: &PeerId) -> bool {
    !greater(local, remote)
}

/// The connection that stays, if it answers; `None` if there is none.
pub(crate) fn keep<'a>(
    local: &PeerId,
    remote: &PeerId,
    held: impl Iterator<Item = &'a Held> + Clone,
    simultaneous: Duration,
) -> Option<&'a Held> {
    let any_direct = held.clone().any(|held| !held.relayed);
    let held = held.filter(move |held| !(any_direct && held.relayed));
    let oldest = held.clone().map(|held| held.since).min()?;
    let held = held.filter(move |held| held.since.saturating_duration_since(oldest) <= simultaneous);
    let dialled_by_us = greater(local, remote);
    let favoured = move |held: &Held| held.dialled_by_us == dialled_by_us;
    let any_favoured = held.clone().any(favoured);
    held.filter(move |held| !any_favoured || favoured(held))
        .min_by_key(|held| (held.since, held.id))
}

/// On bytes, which both ends have alike, whatever order the type may have.
fn greater(local: &PeerId, remote: &PeerId) -> bool {
    local.to_bytes() > remote.to_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(10);

    /// The smaller id and the greater one.
    fn two() -> (PeerId, PeerId) {
        let (a, b) = (PeerId::random(), PeerId::random());
        if a.to_bytes() < b.to_bytes() { (a, b) } else { (b, a) }
    }

    fn held(id: usize, dialled_by_us: bool, since: Instant) -> Held {
        Held {
            id: ConnectionId::new_unchecked(id),
            dialled_by_us,
            relayed: false,
            since,
        }
    }

    fn kept(local: &PeerId, remote: &PeerId, all: &[Held]) -> ConnectionId {
        keep(local, remote, all.iter(), WINDOW).unwrap().id
    }

    #[test]
    fn exactly_one_end_closes() {
        let (small, great) = two();
        assert!(closes(&small, &great));
        assert!(!closes(&great, &small));
    }

    #[test]
    fn of_two_crossing_dials_both_ends_keep_the_one_of_the_greater_id() {
        let (small, great) = two();
        let start = Instant::now();
        for (first, second) in [(0, 3), (3, 0)] {
            let at = |seconds| start + Duration::from_secs(seconds);
            // Connection 1 is dialled by the smaller id, connection 2 by the greater.
            let at_small = [held(1, true, at(first)), held(2, false, at(second))];
            let at_great = [held(1, false, at(second)), held(2, true, at(first))];
            assert_eq!(kept(&small, &great, &at_small), ConnectionId::new_unchecked(2));
            assert_eq!(kept(&great, &small, &at_great), ConnectionId::new_unchecked(2));
        }
    }

    #[test]
    fn a_dial_long_after_is_no_reason_to_give_up_the_connection_there_is() {
        let (small, great) = two();
        let start = Instant::now();
        let later = start + WINDOW + Duration::from_millis(1);
        for (local, remote) in [(&small, &great), (&great, &small)] {
            for (old, new) in [(true, false), (false, true), (true, true), (false, false)] {
                let all = [held(1, old, start), held(2, new, later)];
                assert_eq!(kept(local, remote, &all), ConnectionId::new_unchecked(1));
            }
        }
    }

    #[test]
    fn a_direct_connection_beats_a_relayed_one_even_if_it_is_younger() {
        let (small, great) = two();
        let start = Instant::now();
        let relayed = Held {
            relayed: true,
            ..held(2, true, start)
        };
        for (local, remote) in [(&small, &great), (&great, &small)] {
            let all = [held(1, false, start + Duration::from_secs(60)), relayed];
            assert_eq!(kept(local, remote, &all), ConnectionId::new_unchecked(1));
        }
    }

    #[test]
    fn of_several_in_one_direction_the_oldest_stays() {
        let (small, great) = two();
        let start = Instant::now();
        let all = [
            held(3, true, start + Duration::from_secs(1)),
            held(2, true, start),
            held(1, true, start + Duration::from_secs(2)),
        ];
        assert_eq!(kept(&small, &great, &all), ConnectionId::new_unchecked(2));
        assert_eq!(kept(&great, &small, &all), ConnectionId::new_unchecked(2));
    }

    #[test]
    fn without_a_connection_there_is_nothing_to_keep() {
        let (small, great) = two();
        assert!(keep(&small, &great, [].iter(), WINDOW).is_none());
    }
}

//! Which responses are let in: one for each request, of a size and until a time that the request
//! set; and what may come over the wire for them.

use super::bucket::on_the_wire;
use super::frame::RequestId;
use super::id::StreamId;
use rand::{Rng, RngExt as _};
use std::collections::HashMap;
use std::time::Instant;

/// Which response to a request is let in: one, of at most [`ResponsePolicy::max_size`] bytes, before
/// [`ResponsePolicy::expires`]. The first one uses it up, even if it is too large.
///
/// Responses are not held to the stream's maximum message length and rates, so this is what bounds them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResponsePolicy {
    /// Bytes of payload, at most.
    pub max_size: usize,
    /// Until when.
    pub expires: Instant,
}

/// Requests that were sent and not answered. Expired ones go a few at a time, as new ones come: about twice as many are
/// held as live.
#[derive(Debug, Default)]
pub(crate) struct Responses {
    policies: HashMap<RequestId, (StreamId, ResponsePolicy, usize)>,
    order: Vec<RequestId>,
    /// Bytes that may come over the wire for them, beyond what streams allow: what is left of all
    /// that the policies let in, and of the response that is arriving.
    pub(crate) allowance: u128,
    /// What all policies let in, and the response that is arriving. More than that is left over.
    expected: u128,
    arriving: u128,
}

impl Responses {
    pub(crate) fn expect<R: Rng>(
        &mut self,
        request: RequestId,
        stream: StreamId,
        policy: ResponsePolicy,
        now: Instant,
        rng: &mut R,
    ) {
        for _ in 0..2 {
            if self.order.is_empty() {
                break;
            }
            let probed = self.order[rng.random_range(0..self.order.len())];
            if self.policies[&probed].1.expires <= now {
                self.forget(&probed);
            }
        }
        self.forget(&request);
        self.policies.insert(request, (stream, policy, self.order.len()));
        self.order.push(request);
        self.allowance += on_the_wire(policy.max_size);
        self.expected += on_the_wire(policy.max_size);
    }

    /// The connection is gone, and what was on its way with it.
    pub(crate) fn nothing_comes(&mut self) {
        self.arriving = 0;
        self.allowance = self.expected;
    }

    /// A frame has come to its end, and with it the response that was arriving, if it was one.
    pub(crate) fn frame_ended(&mut self) {
        self.arriving = 0;
    }

    /// What responses that have come have left of their allowance. What the streams allow has paid
    /// for them first, so it gets that back, with half as much again at most: the room for TLS.
    pub(crate) fn take_left_over(&mut self) -> u128 {
        let left = self.allowance.saturating_sub(self.expected + self.arriving);
        self.allowance -= left;
        left
    }

    /// Whether a response is let in. Whatever the answer, there is no second one.
    pub(crate) fn admit(&mut self, request: &RequestId, stream: &StreamId, size: usize, now: Instant) -> bool {
        let Some((expected, policy, _)) = self.policies.get(request) else {
            return false;
        };
        if expected != stream {
            return false;
        }
        let admitted = now < policy.expires && size <= policy.max_size;
        self.forget(request);
        if admitted {
            self.arriving = on_the_wire(size);
            self.allowance += self.arriving;
        }
        admitted
    }

    /// The stream is closed: one of the same name that is opened later has asked nothing.
    pub(crate) fn forget_stream(&mut self, stream: &StreamId) {
        let theirs: Vec<RequestId> = self
            .policies
            .iter()
            .filter(|(_, (of, _, _))| of == stream)
            .map(|(request, _)| *request)
            .collect();
        for request in theirs {
            self.forget(&request);
        }
    }

    fn forget(&mut self, request: &RequestId) {
        let Some((_, policy, at)) = self.policies.remove(request) else {
            return;
        };
        self.allowance = self.allowance.saturating_sub(on_the_wire(policy.max_size));
        self.expected -= on_the_wire(policy.max_size);
        self.order.swap_remove(at);
        if let Some(moved) = self.order.get(at) {
            self.policies.entry(*moved).and_modify(|entry| entry.2 = at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;
    use std::time::Duration;

    const STREAM: StreamId = StreamId([1; 32]);
    const OTHER: StreamId = StreamId([2; 32]);

    fn id(n: u64) -> RequestId {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&n.to_be_bytes());
        RequestId(bytes)
    }

    fn expecting(count: u64, zero: Instant) -> Responses {
        let mut responses = Responses::default();
        let mut rng = StdRng::seed_from_u64(1);
        for n in 0..count {
            let policy = ResponsePolicy {
                max_size: 10,
                expires: zero + Duration::from_secs(n + 1),
            };
            responses.expect(id(n), STREAM, policy, zero, &mut rng);
        }
        responses
    }

    #[test]
    fn one_response_is_let_in_and_no_second() {
        let zero = Instant::now();
        let mut responses = expecting(3, zero);
        assert!(responses.admit(&id(1), &STREAM, 10, zero));
        assert!(!responses.admit(&id(1), &STREAM, 10, zero));
        assert!(responses.admit(&id(0), &STREAM, 0, zero));
        assert!(responses.admit(&id(2), &STREAM, 0, zero));
        assert!(responses.order.is_empty());
    }

    #[test]
    fn a_response_that_is_too_large_too_late_or_not_asked_for_is_refused() {
        let zero = Instant::now();
        let mut responses = expecting(3, zero);
        assert!(!responses.admit(&id(0), &STREAM, 11, zero));
        assert!(!responses.admit(&id(0), &STREAM, 10, zero), "the large one used it up");
        assert!(!responses.admit(&id(1), &STREAM, 10, zero + Duration::from_secs(2)));
        assert!(!responses.admit(&id(7), &STREAM, 1, zero));
        assert!(!responses.admit(&id(2), &OTHER, 1, zero), "of another stream");
        assert!(responses.admit(&id(2), &STREAM, 1, zero), "which did not use it up");
    }

    #[test]
    fn what_may_come_is_what_was_asked_for_and_has_not_come() {
        let zero = Instant::now();
        let mut responses = expecting(3, zero);
        assert_eq!(responses.allowance, 3 * on_the_wire(10));
        assert!(responses.admit(&id(1), &STREAM, 4, zero));
        assert_eq!(
            responses.allowance,
            2 * on_the_wire(10) + on_the_wire(4),
            "it is on its way"
        );
        assert!(!responses.admit(&id(2), &STREAM, 11, zero));
        assert_eq!(
            responses.allowance,
            on_the_wire(10) + on_the_wire(4),
            "it is thrown away"
        );
        responses.nothing_comes();
        assert_eq!(responses.allowance, on_the_wire(10));
        responses.forget_stream(&STREAM);
        assert_eq!(responses.allowance, 0);
        let mut rng = StdRng::seed_from_u64(4);
        let policy = ResponsePolicy {
            max_size: usize::MAX,
            expires: zero + Duration::from_secs(9),
        };
        for n in 0..100 {
            responses.expect(id(n), STREAM, policy, zero, &mut rng);
        }
        assert_eq!(responses.allowance, 100 * on_the_wire(usize::MAX));
        responses.forget_stream(&STREAM);
        assert_eq!(responses.allowance, 0);
    }

    #[test]
    fn a_stream_that_is_opened_again_has_asked_nothing() {
        let zero = Instant::now();
        let mut responses = expecting(5, zero);
        let mut rng = StdRng::seed_from_u64(2);
        let policy = ResponsePolicy {
            max_size: 1,
            expires: zero + Duration::from_secs(9),
        };
        responses.expect(id(9), OTHER, policy, zero, &mut rng);
        responses.forget_stream(&STREAM);
        assert!(!responses.admit(&id(4), &STREAM, 1, zero));
        assert!(responses.admit(&id(9), &OTHER, 1, zero));
    }

    #[test]
    fn what_expired_does_not_pile_up() {
        let zero = Instant::now();
        let mut responses = Responses::default();
        let mut rng = StdRng::seed_from_u64(3);
        for n in 0..10_000 {
            let now = zero + Duration::from_millis(n);
            let policy = ResponsePolicy {
                max_size: 1,
                expires: now + Duration::from_millis(50),
            };
            responses.expect(id(n), STREAM, policy, now, &mut rng);
            assert!(responses.order.len() < 250, "{} after {n}", responses.order.len());
            assert_eq!(responses.order.len(), responses.policies.len());
        }
    }
}

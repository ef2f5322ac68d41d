//! What a connection has of its peer.

use super::{Registry, Shared};
use crate::engine::frame::Violation;
use crate::engine::outgoing::Outgoing;
use crate::engine::slots::Role;
use crate::user_code::Hook;
use bytes::Bytes;
use std::sync::Arc;
use std::task::Context;
use std::time::Instant;

/// A connection's place. Given back when dropped.
pub(crate) struct Lease {
    pub(super) registry: Arc<Registry>,
    pub(super) shared: Arc<Shared>,
    pub(super) generation: u64,
}

impl Lease {
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// What to do, and until when; `cx` is woken when that changes.
    pub(crate) fn role(&self, cx: &Context<'_>) -> (Role, Option<Instant>) {
        let now = Instant::now();
        let mut state = self.shared.lock();
        state.slots.tick(now);
        state.follow_slots(now);
        let mut timeout = state.slots.next_timeout();
        if state.peer.generation() == Some(self.generation) {
            state.peer.tick(now);
            let peer = state.peer.next_timeout();
            timeout = timeout.into_iter().chain(peer).min();
        }
        if let Some(link) = state.links.get_mut(&self.generation)
            && link.waker.as_ref().is_none_or(|waker| !waker.will_wake(cx.waker()))
        {
            let former = link.waker.replace(cx.waker().clone());
            state.peer.after.replaced.extend(former);
        }
        (state.slots.role(self.generation), timeout)
    }

    /// The first byte on a connection that stands by.
    pub(crate) fn spoke(&self) {
        let now = Instant::now();
        let mut state = self.shared.lock();
        state.slots.spoke(self.generation, now);
        state.follow_slots(now);
    }

    /// Adds what there is to write. Nothing to a connection that is not in use.
    pub(crate) fn fill(&self, out: &mut Outgoing) {
        let mut state = self.shared.lock();
        if state.peer.generation() != Some(self.generation) {
            return;
        }
        state.peer.fill(Instant::now(), out);
        if let Some(link) = state.links.get_mut(&self.generation) {
            link.idle = out.is_empty();
        }
    }

    /// What the connection has brought, of which `raw` bytes came over the wire: see
    /// [`Peer::receive`](crate::engine::peer::Peer::receive). Ignored if it is not in use.
    pub(crate) fn receive(&self, bytes: &mut &[u8], raw: Option<u64>) -> Result<usize, Violation> {
        let mut state = self.shared.lock();
        if state.peer.generation() != Some(self.generation) {
            *bytes = &[];
            return Ok(0);
        }
        let received = state.peer.receive(bytes, Instant::now());
        let overhead = raw.map_or(Ok(()), |raw| state.peer.check_overhead(raw));
        received.and_then(|work| overhead.map(|()| work))
    }

    /// A payload that was written, or will not be.
    pub(crate) fn discard(&self, payload: Bytes) {
        self.shared.host.hook_panics.call(Hook::Payload, || drop(payload));
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let now = Instant::now();
        {
            let mut state = self.shared.lock();
            let link = state.links.remove(&self.generation);
            state.peer.after.replaced.extend(link.and_then(|link| link.waker));
            state.slots.ended(self.generation);
            state.follow_slots(now);
        }
        self.registry.changed(self.shared.peer);
    }
}

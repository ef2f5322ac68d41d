//! The inner transport. It dials for the Swarm and listens for the door, and both ask it one at a
//! time.

use libp2p_core::Transport;
use libp2p_core::transport::{ListenerId, TransportEvent};
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

/// Limit on the polls that let a closed listener drop its socket. An inner transport polls its
/// listeners in turn, so this suffices for as many listeners.
const SETTLING: usize = 64;

type Event<T> = TransportEvent<<T as Transport>::ListenerUpgrade, <T as Transport>::Error>;

/// See the module. A clone asks the same transport.
pub(crate) struct Inner<T: Transport>(Arc<Mutex<Held<T>>>);

struct Held<T: Transport> {
    /// Gone once [`Inner::close`] was called.
    transport: Option<T>,
    /// Its events that the door has not heard yet, oldest first.
    said: VecDeque<Event<T>>,
}

impl<T: Transport> Clone for Inner<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Transport> Inner<T> {
    pub(crate) fn new(transport: T) -> Self {
        Self(Arc::new(Mutex::new(Held {
            transport: Some(transport),
            said: VecDeque::new(),
        })))
    }

    /// Asks for something. `None` after [`Inner::close`].
    pub(crate) fn ask<R>(&self, ask: impl FnOnce(&mut T) -> R) -> Option<R> {
        self.lock().transport.as_mut().map(ask)
    }

    /// Drops the transport, its listeners, and its events.
    pub(crate) fn close(&self) {
        let mut held = self.lock();
        let (transport, said) = (held.transport.take(), std::mem::take(&mut held.said));
        drop(held);
        drop((transport, said));
    }

    fn lock(&self) -> MutexGuard<'_, Held<T>> {
        // A panic of the transport has reached its caller, and leaves no state of ours half
        // changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Transport + Unpin> Inner<T> {
    /// Its next event. Reports a listener as closed once the listener's socket is closed: an inner
    /// transport reports first, and drops the socket when it is polled again.
    pub(crate) fn poll(&self, cx: &mut Context<'_>) -> Poll<Event<T>> {
        let mut held = self.lock();
        if let Some(event) = held.said.pop_front() {
            return Poll::Ready(event);
        }
        let event = ready!(held.poll(cx));
        if let TransportEvent::ListenerClosed { .. } = event {
            held.settle(cx);
        }
        Poll::Ready(event)
    }

    /// Polls it until a removed listener has closed its socket, and keeps the events for the door.
    /// Returns whether it is closed. The door's waker is lost by this: have the door poll again.
    #[cfg(feature = "tokio")]
    pub(crate) fn settle(&self, removed: ListenerId) -> bool {
        let mut held = self.lock();
        held.settle(&mut Context::from_waker(Waker::noop()));
        held.said.iter().any(|event| match event {
            TransportEvent::ListenerClosed { listener_id, .. } => *listener_id == removed,
            _ => false,
        })
    }

    /// Removes these listeners, and drops its events. Returns the listeners that it may still
    /// report as closed.
    pub(crate) fn abandon(&self, mut listeners: Vec<ListenerId>) -> Vec<ListenerId> {
        let mut held = self.lock();
        if let Some(transport) = &mut held.transport {
            for listener in &listeners {
                transport.remove_listener(*listener);
            }
        }
        let mut unheard = Vec::new();
        // Each says that it closes, and then closes.
        for _ in 0..=listeners.len() {
            unheard.extend(held.said.drain(..));
            held.settle(&mut Context::from_waker(Waker::noop()));
        }
        unheard.extend(held.said.drain(..));
        drop(held);
        for event in unheard {
            if let TransportEvent::ListenerClosed { listener_id, .. } = event {
                listeners.retain(|listener| *listener != listener_id);
            }
        }
        listeners
    }
}

impl<T: Transport + Unpin> Held<T> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Event<T>> {
        match &mut self.transport {
            Some(transport) => Pin::new(transport).poll(cx),
            None => Poll::Pending,
        }
    }

    fn settle(&mut self, cx: &mut Context<'_>) {
        while self.said.len() < SETTLING
            && let Poll::Ready(event) = self.poll(cx)
        {
            self.said.push_back(event);
        }
    }
}

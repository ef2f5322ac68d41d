//! The two kinds of streams.

use crate::engine::peer::{Outbound, Ticket};
use crate::engine::responses::ResponsePolicy;
use crate::error::UpdateError;
use crate::limits::Limits;
use crate::message::{Inbound, Payload, RequestHandle, Sent};
use crate::peers::{Registry, Shared};
use bytes::Bytes;
use libp2p_identity::PeerId;
use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

/// A named stream of messages to one peer and back.
///
/// Best effort: a message arrives whole, unmodified, once and in order, or not at all. It is lost when it falls out of a full
/// buffer, is over one of the receiver's limits, or was being written when a connection broke. What waits while the peer is
/// away goes out when it returns.
///
/// Every method may be called from any thread and at the same time as the others; share a stream in an `Arc`. Dropping it
/// closes it.
#[derive(Debug)]
pub struct Stream(Stream2);

impl Stream {
    pub(crate) fn new(stream: Stream2) -> Self {
        Self(stream)
    }

    /// The other end.
    pub fn peer(&self) -> PeerId {
        self.0.peer()
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        self.0.name()
    }

    /// Queues a message, text or bytes, and returns at once. The oldest one falls out of a full
    /// buffer; a message that is too long, and one on a closed stream, is dropped: what happened is
    /// returned, and may be ignored. Bytes with an owner of their own ([`Bytes::from_owner`]) are
    /// dropped in this call, in another one on the stream, or on the task of the connection. The
    /// owner may call the stream then; a panic in it is caught
    /// ([`Hook::Payload`](crate::Hook::Payload)).
    pub fn send(&self, message: impl Into<Payload>) -> Sent {
        self.0.send(message)
    }

    /// The next message; none once the stream is closed.
    ///
    /// Cancel safe: a future that is dropped has taken nothing. Of several that wait at the same time each gets messages of
    /// its own.
    pub fn recv(&self) -> impl Future<Output = Option<Bytes>> + Send + '_ {
        poll_fn(|cx| self.poll_recv(cx))
    }

    /// As [`Stream::recv`]. The task that polled last is woken, and every other that still waits,
    /// under no lock: a waker may call the stream. A panic in one is caught
    /// ([`Hook::Waker`](crate::Hook::Waker)).
    pub fn poll_recv(&self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        loop {
            match self.0.poll_recv(cx) {
                Poll::Ready(Some(Inbound::Plain(message))) => return Poll::Ready(Some(message)),
                // The other end opened it as a `Stream2`.
                Poll::Ready(Some(Inbound::Request { .. } | Inbound::Response(_))) => {}
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Closes it: whoever waits to receive gets nothing, and the name may be opened again. What waits to be sent or received
    /// is lost. Harmless on a closed stream.
    pub fn close(&self) {
        self.0.close();
    }

    /// Whether neither [`Stream::close`] nor the end of the host has closed it.
    pub fn is_open(&self) -> bool {
        self.0.is_open()
    }
}

/// A stream with requests and responses, a priority, and limits that can be changed. Otherwise as [`Stream`].
///
/// Responses are held to the [`ResponsePolicy`] of their request and not to the stream's limits. Only the newer stack of the
/// Go original knows requests; its v1 closes the connection at the first.
pub struct Stream2 {
    registry: Arc<Registry>,
    shared: Arc<Shared>,
    ticket: Ticket,
    name: Box<str>,
}

impl Stream2 {
    pub(crate) fn new(registry: Arc<Registry>, shared: Arc<Shared>, ticket: Ticket, name: Box<str>) -> Self {
        Self {
            registry,
            shared,
            ticket,
            name,
        }
    }

    /// The other end.
    pub fn peer(&self) -> PeerId {
        self.shared.peer
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// As [`Stream::send`].
    pub fn send(&self, message: impl Into<Payload>) -> Sent {
        self.put(Outbound::Plain, message.into())
    }

    /// Queues a request. One response is let in, as `policy` says; the time runs from now on, whenever the request goes out.
    /// Otherwise as [`Stream::send`].
    pub fn request(&self, message: impl Into<Payload>, policy: ResponsePolicy) -> Sent {
        self.put(Outbound::Request(policy), message.into())
    }

    /// Queues the response to a request that came on this stream. May be longer than the stream's maximum message length; the
    /// other end drops it if it is longer than what it asked for.
    /// Otherwise as [`Stream::send`].
    pub fn respond(&self, request: RequestHandle, message: impl Into<Payload>) -> Sent {
        self.put(Outbound::Response(request.0), message.into())
    }

    fn put(&self, outbound: Outbound, payload: Payload) -> Sent {
        self.shared.send(self.ticket, outbound, payload.into())
    }

    /// As [`Stream::recv`], of all kinds.
    pub fn recv(&self) -> impl Future<Output = Option<Inbound>> + Send + '_ {
        poll_fn(|cx| self.poll_recv(cx))
    }

    /// As [`Stream::poll_recv`], of all kinds.
    pub fn poll_recv(&self, cx: &mut Context<'_>) -> Poll<Option<Inbound>> {
        self.shared.poll_recv(self.ticket, cx)
    }

    /// Changes the limits from now on, in both directions. A buffer that shrinks loses its oldest messages; buckets keep what
    /// is in them.
    ///
    /// # Errors
    ///
    /// See [`UpdateError`]. Nothing has changed then.
    pub fn update_limits(&self, limits: Limits) -> Result<(), UpdateError> {
        self.shared.update(self.ticket, limits)
    }

    /// As [`Stream::close`].
    pub fn close(&self) {
        self.registry.close(&self.shared, self.ticket);
    }

    /// As [`Stream::is_open`].
    pub fn is_open(&self) -> bool {
        self.shared.is_open(self.ticket)
    }
}

impl Drop for Stream2 {
    fn drop(&mut self) {
        self.close();
    }
}

impl fmt::Debug for Stream2 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream2")
            .field("peer", &self.shared.peer)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

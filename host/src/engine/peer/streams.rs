//! The application's side: opening, sending, receiving, closing.

use super::{Entry, Notice, Outbound, Peer, Ticket};
use crate::after::Note;
use crate::engine::bucket::{TokenBucket, millis};
use crate::engine::id::StreamId;
use crate::error::OpenError;
use crate::limits::{Limits, MAX_MESSAGE_LENGTH, MAX_STREAMS_PER_PEER, Priority, Rate};
use crate::message::{Inbound, Sent};
use bytes::Bytes;
use libp2p_identity::PeerId;
use std::collections::VecDeque;
use std::collections::hash_map::Entry as Slot;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

/// A stream that was closed.
#[derive(Debug)]
pub(crate) struct Closed {
    pub(crate) limits: Limits,
    /// It was the last one.
    pub(crate) last: bool,
}

impl Peer {
    /// `peer` is for the error.
    pub(crate) fn open(
        &mut self,
        peer: &PeerId,
        name: &str,
        priority: Priority,
        limits: Limits,
        now: Instant,
    ) -> Result<Ticket, OpenError> {
        let id = StreamId::new(&self.local, &self.remote, name.as_bytes());
        let count = self.streams.len();
        let Slot::Vacant(slot) = self.streams.entry(id) else {
            let (peer, name) = (*peer, name.to_owned());
            return Err(OpenError::AlreadyOpen { peer, name });
        };
        if count >= MAX_STREAMS_PER_PEER {
            return Err(OpenError::TooManyStreams(*peer));
        }
        self.opened += 1;
        let name: Arc<str> = name.into();
        let number = self.opened;
        slot.insert(Entry {
            number,
            name: name.clone(),
            priority,
            limits,
            outgoing: VecDeque::new(),
            incoming: VecDeque::new(),
            messages: TokenBucket::of(limits.messages, now),
            bytes: TokenBucket::of(limits.bytes, now),
            ready: None,
            waiting: Vec::new(),
        });
        if let Some(connection) = &mut self.connection {
            connection.notices.push_back(Notice::Open(id, name));
        }
        self.sum_limits(&limits, true);
        Ok(Ticket { id, number })
    }

    fn entry(&mut self, ticket: Ticket) -> Option<&mut Entry> {
        self.streams
            .get_mut(&ticket.id)
            .filter(|entry| entry.number == ticket.number)
    }

    pub(crate) fn is_open(&self, ticket: Ticket) -> bool {
        let entry = self.streams.get(&ticket.id);
        entry.is_some_and(|entry| entry.number == ticket.number)
    }

    /// None if it is closed already.
    pub(crate) fn close(&mut self, ticket: Ticket) -> Option<Closed> {
        self.entry(ticket)?;
        self.not_ready(&ticket.id);
        let mut entry = self.streams.remove(&ticket.id)?;
        self.give_back(entry.incoming.iter().map(Inbound::len).sum());
        self.responses.forget_stream(&ticket.id);
        if let Some(connection) = &mut self.connection {
            connection.notices.push_back(Notice::Close(ticket.id));
        }
        self.sum_limits(&entry.limits, false);
        self.after.wake.append(&mut entry.waiting);
        self.after
            .spent
            .extend(entry.outgoing.into_iter().map(|(_, payload)| payload));
        Some(Closed {
            limits: entry.limits,
            last: self.streams.is_empty(),
        })
    }

    /// All of them.
    pub(crate) fn close_all(&mut self) {
        let tickets = self.streams.iter().map(|(id, entry)| Ticket {
            id: *id,
            number: entry.number,
        });
        let tickets: Vec<Ticket> = tickets.collect();
        for ticket in tickets {
            self.close(ticket);
        }
    }

    /// Queues a message; the oldest one falls out of a full buffer. Closed streams and messages that are too long drop it.
    pub(crate) fn send(&mut self, ticket: Ticket, outbound: Outbound, payload: Bytes) -> Sent {
        let counters = self.counters.clone();
        // Not by `entry`, as `after` is looked at beside it.
        let entry = self.streams.get_mut(&ticket.id);
        let Some(entry) = entry.filter(|entry| entry.number == ticket.number) else {
            self.after.spent.push(payload);
            return Sent::Closed;
        };
        let longest = match outbound {
            // Bounded by the policy of whoever asked.
            Outbound::Response(_) => MAX_MESSAGE_LENGTH,
            Outbound::Plain | Outbound::Request(_) => entry.limits.max_message,
        };
        if payload.len() > longest {
            counters.dropped_oversize.one();
            let (stream, bytes) = (entry.name.clone(), payload.len());
            self.after.notes.push(Note::TooLong { stream, bytes, longest });
            self.after.spent.push(payload);
            return Sent::TooLong { bytes, longest };
        }
        let mut sent = Sent::Queued;
        if entry.outgoing.len() >= entry.limits.outgoing {
            let oldest = entry.outgoing.pop_front();
            self.after.spent.extend(oldest.map(|(_, payload)| payload));
            counters.dropped_outgoing.one();
            sent = Sent::Displaced;
        }
        entry.outgoing.push_back((outbound, payload));
        self.check_ready(&ticket.id);
        sent
    }

    /// The next message; none if the stream is closed.
    pub(crate) fn poll_recv(&mut self, ticket: Ticket, cx: &Context<'_>) -> Poll<Option<Inbound>> {
        let Some(entry) = self.entry(ticket) else {
            return Poll::Ready(None);
        };
        if let Some(message) = entry.incoming.pop_front() {
            if entry.incoming.is_empty() {
                // An idle stream holds no buffer.
                entry.incoming = VecDeque::new();
            }
            self.give_back(message.len());
            return Poll::Ready(Some(message));
        }
        if !entry.waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            entry.waiting.push(cx.waker().clone());
        }
        Poll::Pending
    }

    /// The limits it had; none if it is closed. Buffers that shrink lose their oldest messages; the levels of the buckets stay.
    pub(crate) fn update(&mut self, ticket: Ticket, limits: Limits, now: Instant) -> Option<Limits> {
        let entry = self.streams.get_mut(&ticket.id);
        let entry = entry.filter(|entry| entry.number == ticket.number)?;
        let old = std::mem::replace(&mut entry.limits, limits);
        let set = |bucket: &mut TokenBucket, rate: Rate| bucket.set(millis(rate.per_second), rate.capacity.into(), now);
        set(&mut entry.messages, limits.messages);
        set(&mut entry.bytes, limits.bytes);
        let outgoing = entry.outgoing.len().saturating_sub(limits.outgoing);
        let spent = entry.outgoing.drain(..outgoing).map(|(_, payload)| payload);
        self.after.spent.extend(spent);
        let incoming = entry.incoming.len().saturating_sub(limits.incoming);
        let freed = entry.incoming.drain(..incoming).map(|message| message.len()).sum();
        self.counters.dropped_outgoing.add(outgoing as u64);
        self.counters.dropped_incoming.add(incoming as u64);
        self.give_back(freed);
        self.sum_limits(&old, false);
        self.sum_limits(&limits, true);
        Some(old)
    }

    /// Exact, as streams with any limits come and go: what is left when they have gone shows what
    /// there is.
    fn sum_limits(&mut self, limits: &Limits, grow: bool) {
        let counters = &self.counters;
        let gauges = [
            (&counters.messages_rate_limit_rate, limits.messages.per_second),
            (&counters.messages_rate_limit_capacity, limits.messages.capacity.into()),
            (&counters.bytes_rate_limit_rate, limits.bytes.per_second),
            (&counters.bytes_rate_limit_capacity, limits.bytes.capacity.into()),
        ];
        for (sum, (gauge, value)) in self.sums.iter_mut().zip(gauges) {
            let billionths = (value.min(HIGHEST) * BILLION).round() as u128;
            *sum = if grow {
                *sum + billionths
            } else {
                sum.saturating_sub(billionths)
            };
            gauge.set(*sum as f64 / BILLION);
        }
    }
}

const BILLION: f64 = 1e9;

/// No rate counts for more in a sum.
const HIGHEST: f64 = 1e19;

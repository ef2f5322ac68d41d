//! Hard caps and rates, as the rules name them.

use crate::address::TransportKind;
use crate::context::Direction;
use std::num::NonZeroU32;
use std::time::Duration;

/// Ceilings for the number of connections. None by default; a connection at the ceiling is refused, and none is closed to
/// make room.
///
/// They count what the Swarm has, so they hold where the gate's behaviour is installed. What the allow list admits is
/// counted and is never refused. Loading more than fits, or lowering a ceiling, closes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Caps {
    pub(super) total: Option<u32>,
    pub(super) inbound: Option<u32>,
    pub(super) outbound: Option<u32>,
    pub(super) pending_inbound: Option<u32>,
    pub(super) pending_outbound: Option<u32>,
    pub(super) per_peer: Option<u32>,
    pub(super) per_ip: Option<u32>,
    pub(super) per_prefix: Option<(u32, Prefixes)>,
    pub(super) per_transport: [Option<u32>; TransportKind::ALL.len()],
}

/// How many bits of an address say where somebody stands: who has one address of such a block usually has all of it.
/// The default is 24 and 48.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Prefixes {
    pub(super) v4: u8,
    pub(super) v6: u8,
}

impl Default for Prefixes {
    fn default() -> Self {
        Self::new(24, 48)
    }
}

impl Prefixes {
    /// So many bits of IPv4 and so many of IPv6. More than 32 and 128 are 32 and 128; 0 puts the whole family under one.
    pub const fn new(v4: u8, v6: u8) -> Self {
        Self {
            v4: if v4 > 32 { 32 } else { v4 },
            v6: if v6 > 128 { 128 } else { v6 },
        }
    }
}

impl Caps {
    /// No ceiling.
    pub fn new() -> Self {
        Self::default()
    }

    /// Established connections in all.
    pub const fn with_total(mut self, most: u32) -> Self {
        self.total = Some(most);
        self
    }

    /// Established connections in one direction.
    pub const fn with_direction(mut self, direction: Direction, most: u32) -> Self {
        match direction {
            Direction::Inbound => self.inbound = Some(most),
            Direction::Outbound => self.outbound = Some(most),
        }
        self
    }

    /// Attempts in one direction that are not connections yet.
    pub const fn with_pending(mut self, direction: Direction, most: u32) -> Self {
        match direction {
            Direction::Inbound => self.pending_inbound = Some(most),
            Direction::Outbound => self.pending_outbound = Some(most),
        }
        self
    }

    /// Established connections with any one peer.
    pub const fn with_per_peer(mut self, most: u32) -> Self {
        self.per_peer = Some(most);
        self
    }

    /// Established connections with any one IP. Relayed ones do not count: the IP is the relay's.
    pub const fn with_per_ip(mut self, most: u32) -> Self {
        self.per_ip = Some(most);
        self
    }

    /// Established connections with any one block of addresses. Relayed ones do not count.
    pub const fn with_per_prefix(mut self, most: u32, prefixes: Prefixes) -> Self {
        self.per_prefix = Some((most, prefixes));
        self
    }

    /// Established connections over one transport.
    pub fn with_transport(mut self, transport: TransportKind, most: u32) -> Self {
        if let Some(cap) = self.per_transport.get_mut(index(transport)) {
            *cap = Some(most);
        }
        self
    }
}

/// Where a kind stands in [`TransportKind::ALL`].
pub(super) fn index(transport: TransportKind) -> usize {
    let at = TransportKind::ALL.iter().position(|kind| *kind == transport);
    at.unwrap_or(TransportKind::ALL.len())
}

/// How often a block of addresses may connect, or may be dialled: a bucket of `burst` tokens for each block, which gains
/// one each `interval`.
///
/// At most 65,536 buckets are kept for all rates together, those used last: forgetting one fills it. An address without an
/// IP of its own (memory, a relay's circuit) shares one bucket with all others such.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    pub(super) direction: Direction,
    pub(super) interval: Duration,
    pub(super) burst: NonZeroU32,
    pub(super) prefixes: Prefixes,
}

/// In microseconds.
const DAY: u64 = 86_400_000_000;

impl Rate {
    /// Of what is accepted. `interval` is a whole number of microseconds, at least one and at most a day.
    pub fn accepts(interval: Duration, burst: NonZeroU32) -> Self {
        Self::new(Direction::Inbound, interval, burst)
    }

    /// Of the addresses that are dialled. `interval` is a whole number of microseconds, at least one and at most a day.
    pub fn dials(interval: Duration, burst: NonZeroU32) -> Self {
        Self::new(Direction::Outbound, interval, burst)
    }

    fn new(direction: Direction, interval: Duration, burst: NonZeroU32) -> Self {
        Self {
            direction,
            // A file has no finer unit.
            interval: Duration::from_micros(u64::try_from(interval.as_micros()).unwrap_or(u64::MAX).clamp(1, DAY)),
            burst,
            prefixes: Prefixes::default(),
        }
    }

    /// For blocks of this size.
    pub const fn per_prefix(mut self, prefixes: Prefixes) -> Self {
        self.prefixes = prefixes;
        self
    }
}

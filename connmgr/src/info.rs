//! What the manager tells about a peer, and about all of them.

use libp2p_core::Multiaddr;
use libp2p_identity::PeerId;
use libp2p_swarm::ConnectionId;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;
use web_time::Instant;

/// What is known of one peer, at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TagInfo {
    /// When the peer was first connected; of one that never was, when it was first tagged or
    /// protected. A reconnect within the grace period, or within the retention if that is longer,
    /// does not change it. `None` only from [`NullConnMgr`](crate::NullConnMgr).
    pub first_seen: Option<Instant>,
    /// The sum of all tags, plain and decaying; beyond `i64` it stays at its end.
    pub value: i64,
    /// Plain tags.
    pub tags: BTreeMap<String, i64>,
    /// Decaying tags, decayed up to now. One may have the name of a plain one: both count.
    pub decaying: BTreeMap<String, i64>,
    /// What protects the peer.
    pub protections: Vec<String>,
    /// Its connections, oldest first.
    pub connections: Vec<ConnectionInfo>,
}

/// One connection.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionInfo {
    /// The Swarm's name for it.
    pub id: ConnectionId,
    /// Where the peer is.
    pub remote_address: Multiaddr,
    /// When it was established.
    pub opened: Instant,
    /// Whether we dialled.
    pub outbound: bool,
    /// Whether a relay carries it.
    pub relayed: bool,
    /// Whether a trim is closing it.
    pub closing: bool,
    /// Open streams, both directions; `None` if nobody counts: see [`Manager::count`](crate::Manager::count).
    pub streams: Option<u32>,
    /// When it last carried anything, to the second; `None` if nobody counts.
    pub last_activity: Option<Instant>,
}

/// A peer as the order of trimming sees it. The one that comes first is closed first.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Candidate {
    /// Who it is.
    pub peer: PeerId,
    /// The sum of its tags.
    pub value: i64,
    /// For how long it has been known.
    pub age: Duration,
    /// Connections that are not being closed already, of both directions.
    pub connections: usize,
    /// How many of them the peer dialled.
    pub inbound: usize,
    /// How many of them a relay carries.
    pub relayed: usize,
    /// Open streams on all of them; `None` if they are not counted for each.
    pub streams: Option<u64>,
    /// How long ago one of them carried anything, to the second; `None` if that is not counted for each.
    pub idle: Option<Duration>,
}

/// Why a peer is trimmed, or is not. When several apply, the one that comes first here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Class {
    /// Protected under a tag, or in use: not trimmed.
    Protected,
    /// Too new to be trimmed.
    InGrace,
    /// Has a tag.
    Tagged,
    /// Has none.
    Plain,
}

/// Peers and connections of each class.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Protected or in use.
    pub protected: Count,
    /// In grace.
    pub in_grace: Count,
    /// With a tag.
    pub tagged: Count,
    /// Without one.
    pub plain: Count,
    /// Connections that a trim is closing; in none of the classes.
    pub closing: usize,
    /// Peers without a connection that were tagged, until their tags' time is over.
    pub early: usize,
    /// Peers that had one, and are remembered.
    pub gone: usize,
}

/// How many peers, and how many connections they have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Count {
    /// Peers.
    pub peers: usize,
    /// Their connections.
    pub connections: usize,
}

impl Counts {
    /// Connections of all classes; those that are being closed are not among them.
    pub fn connections(&self) -> usize {
        [self.protected, self.in_grace, self.tagged, self.plain]
            .iter()
            .map(|count| count.connections)
            .sum()
    }

    /// Peers of all classes.
    pub fn peers(&self) -> usize {
        [self.protected, self.in_grace, self.tagged, self.plain]
            .iter()
            .map(|count| count.peers)
            .sum()
    }

    pub(crate) fn of(&mut self, class: Class) -> &mut Count {
        match class {
            Class::Protected => &mut self.protected,
            Class::InGrace => &mut self.in_grace,
            Class::Tagged => &mut self.tagged,
            Class::Plain => &mut self.plain,
        }
    }
}

/// The manager's settings and state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Info {
    /// The low watermark, 0 when the manager never trims.
    pub low: usize,
    /// The high watermark, 0 when the manager never trims.
    pub high: usize,
    /// When a trim last ran, whether or not it closed anything.
    pub last_trim: Option<Instant>,
    /// The grace period.
    pub grace: Duration,
    /// Established connections that are not being closed.
    pub connections: usize,
    /// Connections that a trim has told to close and that are not closed yet.
    pub closing: usize,
    /// How often a tag was not set, as its peer had as many as it may have.
    pub refused_tags: u64,
}

/// Why a peer would be closed by the next trim, or would not. Text for people comes from `Display`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Explanation {
    /// Whom it is about.
    pub peer: PeerId,
    /// What the peer counts as; `None` if it has no connection that is not being closed.
    pub class: Option<Class>,
    /// The sum of its tags.
    pub value: i64,
    /// Under which tags it is protected.
    pub protections: Vec<String>,
    /// How many [`InUse`](crate::InUse) guards hold it.
    pub in_use: usize,
    /// Whether a dial to it is in flight, which spares it.
    pub dialing: bool,
    /// What is left of its grace.
    pub grace_left: Duration,
    /// Its connections that are not being closed.
    pub connections: usize,
    /// Its connections that are.
    pub closing: usize,
    /// Connections of candidates that a trim would close before this peer's; `None` if the peer is no candidate.
    pub ahead: Option<usize>,
    /// How many connections a trim would have to close now.
    pub excess: usize,
}

impl Explanation {
    /// Whether a trim would close it, as things are.
    pub fn would_be_closed(&self) -> bool {
        self.ahead.is_some_and(|ahead| ahead < self.excess)
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.peer)?;
        match self.class {
            None if self.closing > 0 => return write!(f, "is being closed"),
            None => return write!(f, "is not connected; its tags come to {}", self.value),
            Some(Class::Protected) => {
                write!(f, "stays: ")?;
                match (self.protections.is_empty(), self.in_use) {
                    (true, guards) => write!(f, "in use by {guards}")?,
                    (false, 0) => write!(f, "protected as {}", self.protections.join(", "))?,
                    (false, guards) => {
                        write!(f, "protected as {}, in use by {guards}", self.protections.join(", "))?;
                    }
                }
            }
            Some(Class::InGrace) => write!(f, "stays: in grace for another {:.1?}", self.grace_left)?,
            Some(Class::Tagged | Class::Plain) if self.dialing => write!(f, "stays: a dial to it is in flight")?,
            Some(Class::Tagged | Class::Plain) if self.would_be_closed() => {
                write!(f, "would be closed: {} too many connections", self.excess)?;
            }
            Some(Class::Tagged | Class::Plain) if self.excess == 0 => write!(f, "stays: nothing is to be closed")?,
            Some(Class::Tagged | Class::Plain) => write!(
                f,
                "stays: {} connections would go first, and {} are too many",
                self.ahead.unwrap_or(0),
                self.excess
            )?,
        }
        write!(f, "; value {}, {} connections", self.value, self.connections)
    }
}

//! A knock that was not answered: what its dialer knows, and what the reason may be.
//!
//! A listener tells no stranger why it is silent, so a dialer mostly cannot know either. What it
//! can know is in [`Unanswered`]: what came back, by when, and what other dials say of its own
//! clock.
//!
//! ```
//! use libp2p_knock::unanswered::{Cause, Heard};
//! use libp2p_knock::{Error, Failure};
//!
//! /// Whether it is of no use to knock there again.
//! fn is_another_protocol(error: &(dyn std::error::Error + 'static)) -> bool {
//!     let Some(Error::Unanswered(unanswered)) = Failure::find(error) else { return false };
//!     *unanswered.heard() == Heard::Multistream || unanswered.causes() == [Cause::OtherProtocol]
//! }
//! ```

pub use crate::bearings::OwnClock;

use crate::bearings::Known;
use crate::identity::Key;
use crate::knock::Version;
use crate::knock::v3::MAX_SKEW_MS;
use crate::silence::limits::SHORTEST_CLOSE_TIME;
use libp2p_identity::PeerId;
use std::fmt;
use std::time::Duration;

/// Bytes kept of what came back.
const KEPT: usize = 24;
/// So many peers in a row that are silent make our own clock suspect.
const MANY: usize = 3;

/// What came back in place of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Heard {
    /// Nothing, until the handshake timeout. A listener of this crate is as silent as that to every
    /// knock that it refuses, whatever the reason.
    Nothing,
    /// The end of the connection, without a byte. A listener of this crate closes a refused
    /// connection only after two minutes or more, unless it is full or ends.
    Closed,
    /// A reset of the connection, without a byte. See [`Heard::Closed`].
    Reset,
    /// The first message of multistream-select: stock libp2p listens there.
    Multistream,
    /// An answer in HTTP.
    Http,
    /// An alert of TLS, by its number (RFC 8446, section 6). A listener of this crate sends none.
    Alert(u8),
    /// Other bytes that are no TLS: the first of them, 24 at most.
    Other(Vec<u8>),
}

impl Heard {
    /// Whether a listener of this crate that refuses the knock is heard so, `after` the knock.
    pub(crate) fn is_silence(&self, after: Duration) -> bool {
        match self {
            Self::Nothing => true,
            Self::Closed => after >= SHORTEST_CLOSE_TIME,
            _ => false,
        }
    }
}

/// What the reason may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cause {
    /// Another peer listens at the address.
    WrongPeer,
    /// The peer's admission rule refuses us.
    NotAdmitted,
    /// The peer is in another network, a private one or another private one.
    OtherNetwork,
    /// The peer is configured to be knocked at with another version, or to speak another mode.
    OtherVersion,
    /// The peer's clock and ours differ by more than 120 s.
    Clock,
    /// The peer is at one of its limits, or was started after our knock by its clock.
    Busy,
    /// What listens there does not speak the knock at all, as the port of a stock libp2p transport.
    OtherProtocol,
}

/// A knock that was not answered. Its text says what is known and what the reason may be, each
/// once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unanswered {
    pub(crate) peer: PeerId,
    pub(crate) version: Version,
    /// Of our private network.
    pub(crate) network: Option<String>,
    pub(crate) heard: Heard,
    /// From the connected socket on.
    pub(crate) after: Duration,
    pub(crate) known: Known,
}

impl Unanswered {
    /// The peer that we knocked at.
    pub fn peer(&self) -> &PeerId {
        &self.peer
    }

    /// The version of our knock.
    pub fn version(&self) -> Version {
        self.version
    }

    /// What came back.
    pub fn heard(&self) -> &Heard {
        &self.heard
    }

    /// How long the connection had been there when the dial failed.
    pub fn after(&self) -> Duration {
        self.after
    }

    /// What other knocks say of our own clock.
    pub fn own_clock(&self) -> OwnClock {
        self.known.own_clock
    }

    /// How long ago this peer answered another knock of ours. `None` if it is not among the last
    /// 1,024 peers that did since the process started.
    pub fn last_answer(&self) -> Option<Duration> {
        self.known.answered
    }

    /// How many peers in a row were silent, this one included if it was; 32 at most. Silent is a
    /// peer of which nothing came, not even an end of the connection within two minutes.
    pub fn silent_peers(&self) -> usize {
        self.known.silent
    }

    /// By how many seconds this peer's clock was ahead of ours when the peer itself knocked here;
    /// negative for behind. `None` if it did not within the last ten minutes. A knock that is
    /// played back shows an old time.
    pub fn its_seconds_ahead(&self) -> Option<i64> {
        self.known.skew_ms.map(|skew| skew / 1000)
    }

    /// With which version this peer itself knocked here within the last ten minutes, if it is
    /// configured otherwise here.
    pub fn its_version(&self) -> Option<Version> {
        self.known.theirs.map(|theirs| theirs.version)
    }

    /// The peer that last answered a knock of ours at this address, if that is another one.
    pub fn answered_there(&self) -> Option<PeerId> {
        let (holder, _) = self.known.holder?;
        Key::check(&holder).ok().map(|key| key.peer_id())
    }

    /// What the reason may be, the likeliest first. What is left out cannot be: version 2 knows of
    /// no clocks and no networks, for instance.
    pub fn causes(&self) -> Vec<Cause> {
        let sealed = self.version == Version::V3;
        match self.heard {
            Heard::Closed if self.heard.is_silence(self.after) => self.of_silence(sealed),
            Heard::Multistream | Heard::Http | Heard::Alert(_) | Heard::Other(_) => vec![Cause::OtherProtocol],
            // Go's ragep2p closes at once what is not a knock of version 2 that it wants.
            Heard::Closed | Heard::Reset if sealed && self.known.theirs.is_some() => {
                vec![Cause::OtherVersion, Cause::OtherProtocol, Cause::Busy]
            }
            Heard::Closed | Heard::Reset if sealed => {
                vec![Cause::OtherProtocol, Cause::OtherVersion, Cause::Busy]
            }
            Heard::Closed | Heard::Reset => {
                vec![Cause::OtherProtocol, Cause::WrongPeer, Cause::NotAdmitted, Cause::Busy]
            }
            Heard::Nothing => self.of_silence(sealed),
        }
    }

    fn of_silence(&self, sealed: bool) -> Vec<Cause> {
        let known = &self.known;
        let agreed = matches!(known.own_clock, OwnClock::Agreed { .. });
        let suspect = known.own_clock.is_suspect() || (known.silent >= MANY && !agreed) || self.is_skewed();
        // What there is a sign of.
        let mut causes = Vec::with_capacity(7);
        causes.extend(known.theirs.map(|_| Cause::OtherVersion));
        causes.extend(suspect.then_some(Cause::Clock));
        causes.extend(known.holder.map(|_| Cause::WrongPeer));
        let elsewhere = [Cause::WrongPeer, Cause::OtherNetwork, Cause::OtherVersion];
        let here = [Cause::NotAdmitted, Cause::Busy];
        // A peer that answered before is there, in our network and with our version.
        let likely = match known.answered {
            Some(_) => [&here[..], &elsewhere],
            None => [&elsewhere[..], &here],
        };
        let unlikely = [Cause::Clock, Cause::OtherProtocol];
        for cause in likely.concat().into_iter().chain(unlikely) {
            if !causes.contains(&cause) {
                causes.push(cause);
            }
        }
        causes.retain(|cause| sealed || !matches!(cause, Cause::Clock | Cause::OtherNetwork));
        causes
    }

    /// Whether the peer's own knock showed a time that is near the limit, or beyond it.
    fn is_skewed(&self) -> bool {
        let skew = self.known.skew_ms.map(i64::unsigned_abs);
        skew.is_some_and(|skew| skew >= MAX_SKEW_MS / 2)
    }

    fn say(&self, cause: Cause, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = &self.known;
        match (cause, known.own_clock) {
            (Cause::WrongPeer, _) => {
                f.write_str("another peer listens there")?;
                match (self.answered_there(), known.holder) {
                    (Some(peer), Some((_, ago))) => {
                        write!(f, " ({peer} answered at this address {:?} ago)", rounded(ago))
                    }
                    _ => Ok(()),
                }
            }
            (Cause::NotAdmitted, _) => f.write_str("it does not admit us"),
            (Cause::OtherNetwork, _) => match &self.network {
                Some(ours) => write!(f, "it is not in our network {ours:?}"),
                None => f.write_str("it is in a private network"),
            },
            (Cause::OtherVersion, _) => match (known.theirs, self.version, &self.heard) {
                (Some(theirs), ..) => {
                    write!(f, "it is configured otherwise: it knocks here with {theirs}")?;
                    f.write_str(match theirs.version {
                        Version::V2 => ", as Go's ragep2p does (`Config::ragep2p_compatible`)",
                        Version::V3 => "",
                    })
                }
                (None, Version::V3, Heard::Nothing) => f.write_str("it expects another knock than version 3"),
                (None, Version::V3, _) => f.write_str(
                    "it expects version 2 of the knock, as Go's ragep2p does (`Config::ragep2p_compatible`)",
                ),
                (None, Version::V2, _) => f.write_str("it expects another knock than version 2"),
            },
            (Cause::Clock, OwnClock::Set { seconds, .. }) => {
                write!(
                    f,
                    "our clock is wrong: it was set by {seconds:+} s since a peer last answered"
                )
            }
            (Cause::Clock, OwnClock::Differs { seconds_ahead, callers }) => {
                let (seconds, side) = (seconds_ahead.unsigned_abs(), side(seconds_ahead));
                write!(
                    f,
                    "our clock is wrong: it is {seconds} s {side} those of {callers} callers"
                )
            }
            (Cause::Clock, _) if self.is_skewed() => {
                let skew = self.its_seconds_ahead().unwrap_or_default();
                let (seconds, side) = (skew.unsigned_abs(), side(skew));
                write!(
                    f,
                    "its clock and ours differ: its own knock here was {seconds} s {side} our clock"
                )
            }
            (Cause::Clock, OwnClock::Unknown) if known.silent >= MANY => {
                let silent = known.silent;
                write!(
                    f,
                    "our clock is off by more than 120 s: {silent} peers in a row have not answered"
                )
            }
            (Cause::Clock, OwnClock::Unknown) => f.write_str("its clock and ours differ by more than 120 s"),
            (Cause::Clock, OwnClock::Agreed { ago }) if known.answered == Some(ago) => {
                f.write_str("its clock was set since then")
            }
            (Cause::Clock, OwnClock::Agreed { ago }) => {
                let ago = rounded(ago);
                write!(
                    f,
                    "its clock is off by more than 120 s (ours agreed with another peer's {ago:?} ago)"
                )
            }
            (Cause::Busy, _) => f.write_str("it is at a limit or has just been started"),
            (Cause::OtherProtocol, _) => match self.heard {
                Heard::Nothing => f.write_str("the port is not that of a knock"),
                _ => f.write_str("the port is not that of a knock but of stock libp2p or another protocol"),
            },
        }
    }
}

fn side(ahead: i64) -> &'static str {
    if ahead < 0 { "behind" } else { "ahead of" }
}

/// To be read by people.
fn rounded(time: Duration) -> Duration {
    if time < Duration::from_secs(1) {
        Duration::from_millis(u64::try_from(time.as_millis()).unwrap_or(0))
    } else {
        Duration::from_secs(time.as_secs())
    }
}

impl fmt::Display for Unanswered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the knock at {} was not answered: ", self.peer)?;
        let after = rounded(self.after);
        match &self.heard {
            Heard::Nothing => write!(f, "no byte came within {:?}", self.after)?,
            Heard::Closed => write!(f, "the other end closed the connection after {after:?}")?,
            Heard::Reset => write!(f, "the other end reset the connection after {after:?}")?,
            Heard::Multistream => f.write_str("stock libp2p listens there, and answered with multistream-select")?,
            Heard::Http => f.write_str("an HTTP server answered")?,
            Heard::Alert(alert) => write!(f, "a TLS server answered, with alert {alert}")?,
            Heard::Other(bytes) => write!(f, "bytes came that are no TLS, \"{}\"", bytes.escape_ascii())?,
        }
        let causes = self.causes();
        if let [Cause::OtherProtocol] = causes[..] {
            return f.write_str("; the port of a knock is another one");
        }
        let last = causes.len() - 1;
        if let Some(ago) = self.known.answered {
            write!(f, "; it last answered {:?} ago", rounded(ago))?;
        }
        for (n, cause) in causes.into_iter().enumerate() {
            f.write_str(match n {
                0 => "; perhaps ",
                n if n == last => ", or ",
                _ => ", ",
            })?;
            self.say(cause, f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Unanswered {}

/// The first bytes that came back, and how it ended if none did.
#[derive(Debug, Default)]
pub(crate) struct First {
    bytes: Vec<u8>,
    reset: bool,
}

impl First {
    /// These came.
    pub(crate) fn take(&mut self, bytes: &[u8]) {
        let room = KEPT - self.bytes.len();
        self.bytes.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    /// The connection broke.
    pub(crate) fn broke(&mut self, error: &std::io::Error) {
        use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
        self.reset |= matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset);
    }

    /// What was heard, unless it is TLS or its beginning: then the knock was answered. `ended`: by
    /// the other end, before the time was over.
    pub(crate) fn heard(&self, ended: bool) -> Option<Heard> {
        const ALERT: u8 = 21;
        const OTHER_RECORDS: [u8; 3] = [20, 22, 23];
        let bytes = &self.bytes[..];
        Some(match bytes {
            [] if !ended => Heard::Nothing,
            [] if self.reset => Heard::Reset,
            [] => Heard::Closed,
            [ALERT, 3, _, 0, 2, _, alert, ..] => Heard::Alert(*alert),
            [kind] | [kind, 3, ..] if OTHER_RECORDS.contains(kind) => return None,
            _ if contains(bytes, b"/multistream/") => Heard::Multistream,
            _ if bytes.starts_with(b"HTTP/") => Heard::Http,
            _ => Heard::Other(bytes.to_vec()),
        })
    }
}

fn contains(bytes: &[u8], text: &[u8]) -> bool {
    bytes.windows(text.len()).any(|window| window == text)
}

#[cfg(test)]
mod tests;

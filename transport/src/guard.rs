//! What is remembered about knocks: one [`Guard`] for each identity. Every clone of its configuration, every listener,
//! every address and every hole-punched socket asks the same one, or a knock answered here could be played back there.

use crate::bearings::{Bearings, Known as KnownOfPeer};
use crate::clock::{Clock, NoTime};
use crate::config::{Dialect, Theirs};
use crate::identity::Key;
use crate::knock::v3::{self, Gate, HEAD, Opened};
use crate::knock::{Caller, Refusal, v2};
use crate::known_prefixes::Known;
use crate::silence::budget::{Budget, Handshakes, Verifications};
use crate::silence::known::VerifiedKnocks;
use crate::silence::prefix::Prefix;
use crate::silence::replay::{self, Moment, ReplaySet};
use crate::silence::summary::{Cause, Counts, Notice, Notices};
use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use libp2p_core::Multiaddr;
use libp2p_identity::PeerId;
use std::fmt;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use web_time::Instant;

/// See the module.
pub(crate) struct Guard {
    clock: Clock,
    state: Mutex<State>,
    known: Arc<Known>,
}

/// Heads that look like a knock of version 2 where that is not spoken and that are looked at in a
/// second, at most. Each costs a signature check, and is worth no more than a line in the log.
const LOOKS: u32 = 16;

/// Why a knock is refused, and who made it, where that is known. It may have been played back.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) refusal: Refusal,
    pub(crate) peer: Option<PeerId>,
}

impl Refused {
    fn by(caller: Caller, refusal: impl Into<Refusal>) -> Self {
        Self {
            refusal: refusal.into(),
            peer: Some(caller.peer()),
        }
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, peer: None }
    }
}

impl From<v3::Refused> for Refused {
    fn from(refused: v3::Refused) -> Self {
        Self {
            refusal: refused.refusal,
            peer: refused.late.map(|late| late.peer),
        }
    }
}

/// What a line at `debug` is about. One a minute is written about the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Told {
    /// A socket is not answered.
    Refused(Cause),
    /// A knock was answered.
    Answered,
    /// It was, and TLS has failed.
    Failed,
}

struct State {
    replays: ReplaySet,
    openings: Budget,
    verifications: Verifications,
    verified: VerifiedKnocks,
    handshakes: Handshakes,
    counts: Counts,
    notices: Notices<(Notice, [u8; 32])>,
    /// Lines about sockets that did not become connections, and about those that may.
    told: Notices<(Told, Prefix, Option<PeerId>)>,
    answered: Notices<(Prefix, Option<PeerId>)>,
    bearings: Bearings,
    /// See [`LOOKS`]: since when, and how many.
    looks: (Instant, u32),
}

impl Guard {
    /// `known` is not forgotten with all else when a configuration gets a new guard.
    pub(crate) fn new(clock: Clock, openings_per_second: NonZeroU32, known: Arc<Known>) -> Self {
        let now = clock.now().monotonic;
        let mut key = [0; 32];
        // Should there be no randomness, nothing else here will work either, and will say so.
        let _ = SystemRandom::new().fill(&mut key);
        let per_second = openings_per_second.get();
        Self {
            clock,
            state: Mutex::new(State {
                replays: ReplaySet::new(key, per_second, now),
                openings: Budget::new(per_second, now),
                verifications: Verifications::new(per_second, now),
                verified: VerifiedKnocks::new(),
                handshakes: Handshakes::new(per_second),
                counts: Counts::default(),
                notices: Notices::new(),
                told: Notices::new(),
                answered: Notices::new(),
                bearings: Bearings::new(),
                looks: (now, 0),
            }),
            known,
        }
    }

    pub(crate) fn known(&self) -> &Arc<Known> {
        &self.known
    }

    /// See [`Config::with_known_prefixes_file`](crate::Config::with_known_prefixes_file).
    pub(crate) fn keep_known_prefixes(&self, path: PathBuf) {
        self.known.keep_at(path, &self.clock);
    }

    /// How long our first knock has to wait. A listener refuses knocks as old as its process, and times are whole
    /// milliseconds: one in this very process would refuse what was made in its first two.
    pub(crate) fn too_young(&self) -> Option<Duration> {
        const GROWN: u64 = 2;
        let now = self.clock.now();
        let age = now.wall.saturating_sub(now.boot);
        (age < GROWN).then(|| Duration::from_millis(GROWN - age))
    }

    /// Our clock for knocks of our own, Unix time in milliseconds.
    pub(crate) fn now_ms(&self) -> Result<u64, NoTime> {
        match self.clock.now().wall {
            0 => Err(NoTime),
            wall => Ok(wall),
        }
    }

    /// Opens the head of a sealed knock: first what costs nothing, then what is remembered, then what costs two
    /// Diffie-Hellman.
    pub(crate) fn open_head(&self, gate: &Gate, head: &[u8; HEAD], prefix: Prefix) -> Result<Opened, Refused> {
        let boxed = gate.open_box(head)?;
        let now = self.clock.now();
        let known = self.known.contains(now.monotonic, prefix);
        let allowed = self.state().may_open(&boxed.ephemeral(), now, prefix, known);
        if let Err(Refusal::Replayed) = allowed {
            // By whom it was made is not known before it is opened, and it is not opened.
            self.tell_of_replay(now.monotonic, None);
        }
        allowed?;
        let opened = boxed.open(gate, now.wall, now.boot).inspect_err(|refused| {
            if let Some(late) = refused.late {
                self.tell_of_skew(now, late);
            }
        })?;
        // Of a time that is forgotten, as after a clock was set back: asked again when its flight is there.
        let in_time = self.state().replays.check_time(opened.time_ms(), now);
        in_time.map_err(|refused| Refused::by(opened.caller(), refused))?;
        Ok(opened)
    }

    /// Takes a knock whose flight is in order too, once and never again.
    pub(crate) fn remember(&self, opened: &Opened, prefix: Prefix) -> Result<(), Refused> {
        let now = self.clock.now();
        let known = self.known.contains(now.monotonic, prefix);
        let taken = self
            .state()
            .replays
            .insert(&opened.ephemeral(), opened.time_ms(), now, prefix, known);
        let Err(refused) = taken else {
            return Ok(());
        };
        if refused == replay::Refused::Replayed {
            self.tell_of_replay(now.monotonic, Some(opened.caller()));
        }
        Err(Refused::by(opened.caller(), refused))
    }

    /// Opens a v2 knock. One that was verified before, byte for byte, costs no signature check.
    ///
    /// `peers`: how many are configured for version 2. `None` if all are.
    pub(crate) fn open_v2(
        &self,
        own: &Key,
        knock: &[u8; v2::SIZE],
        prefix: Prefix,
        peers: Option<usize>,
    ) -> Result<Caller, Refused> {
        let own = own.bytes();
        let key = v2::claimed(knock, &own)?;
        let now = self.clock.now().monotonic;
        let remembered = {
            let mut state = self.state();
            let remembered = state.verified.contains(&key.bytes(), knock);
            if !remembered && !state.verifications.charge(now, prefix, peers) {
                return Err(Refusal::Budget.into());
            }
            remembered
        };
        let caller = if remembered {
            v2::known(key)
        } else {
            let caller = v2::verify(knock, key, &own)?;
            self.state().verified.insert(key.bytes(), *knock);
            caller
        };
        // It may be a replay, and behind it stands a TLS flight of ours.
        if !self.state().handshakes.charge(now, &key.bytes(), prefix) {
            return Err(Refused::by(caller, Refusal::Budget));
        }
        Ok(caller)
    }

    /// Who has made the knock of version 2 that a head begins with, where version 2 is not what is
    /// expected. `None` if it is not known: no such knock begins there, or there was enough to look
    /// at in this second.
    pub(crate) fn v2_in(&self, own: &Key, head: &[u8; HEAD]) -> Option<Caller> {
        let knock = head
            .first_chunk::<{ v2::SIZE }>()
            .filter(|knock| knock[0] == v2::VERSION)?;
        let now = Instant::now();
        {
            let mut state = self.state();
            let (since, looks) = &mut state.looks;
            if now.saturating_duration_since(*since) >= Duration::from_secs(1) {
                (*since, *looks) = (now, 0);
            }
            *looks += 1;
            if *looks > LOOKS {
                return None;
            }
        }
        let own = own.bytes();
        let key = v2::claimed(knock, &own).ok()?;
        v2::verify(knock, key, &own).ok()
    }

    /// What is known about it now that `peer` has not answered our knock at `place`.
    pub(crate) fn not_answered_by(&self, peer: &Key, place: Option<&Multiaddr>, silent: bool) -> KnownOfPeer {
        let now = self.clock.now();
        self.state().bearings.on_unanswered(now, peer.bytes(), place, silent)
    }

    /// `peer` has answered our knock at `place`, in which there was a time if it was `timed`.
    pub(crate) fn answered_by(&self, peer: &Key, place: Option<Multiaddr>, timed: bool) {
        let now = self.clock.now();
        self.state().bearings.on_answered(now, peer.bytes(), place, timed);
    }

    /// A caller has authenticated whose clock was ahead of ours by so much.
    pub(crate) fn heard_clock_of(&self, caller: &Key, skew_ms: i64) {
        let now = self.clock.now();
        self.state().bearings.on_caller(now, caller.bytes(), skew_ms);
    }

    pub(crate) fn is_known(&self, prefix: Prefix) -> bool {
        self.known.contains(self.clock.now().monotonic, prefix)
    }

    /// A peer has authenticated from there: its certificate was verified, not just its knock.
    pub(crate) fn authenticated(&self, prefix: Prefix) {
        self.known.authenticated(&self.clock, prefix);
    }

    /// Counts one for the summary of the minute.
    pub(crate) fn count(&self, cause: Cause) {
        self.state().counts.count(Instant::now(), cause);
    }

    /// Says once a minute what became of the strangers of that minute, if there were any. Returns when to ask again.
    pub(crate) fn summarise(&self) -> Option<Instant> {
        let mut state = self.state();
        let summary = state.counts.pop(Instant::now());
        let next = state.counts.next_timeout();
        drop(state);
        if let Some(summary) = summary {
            tracing::info!(%summary, "sockets that did not become connections within a minute");
        }
        next
    }

    /// Logs what became of a socket at `debug`, unless there was enough of that.
    pub(crate) fn tell(&self, told: Told, prefix: Prefix, peer: Option<PeerId>, reason: &dyn fmt::Display) {
        if !tracing::enabled!(tracing::Level::DEBUG) {
            return;
        }
        let now = Instant::now();
        // Callers that are let in leave room for lines about the others.
        let passes = match told {
            Told::Answered => self.state().answered.pass(now, (prefix, peer)),
            Told::Refused(_) | Told::Failed => self.state().told.pass(now, (told, prefix, peer)),
        };
        if !passes {
            return;
        }
        let peer = peer.map(tracing::field::display);
        match told {
            Told::Refused(_) => tracing::debug!(peer, %prefix, %reason, "a socket is not answered"),
            Told::Answered => tracing::debug!(peer, %prefix, dialect = %reason, "a knock is answered"),
            Told::Failed => tracing::debug!(peer, %prefix, %reason, "a knock was answered, and the handshake failed"),
        }
    }

    /// Logs a knock of a caller that is configured otherwise here, unless there was enough of that.
    pub(crate) fn tell_of_configuration(&self, caller: Caller, theirs: Theirs, ours: Dialect) {
        let (now, key) = (Instant::now(), caller.key().bytes());
        let told = {
            let mut state = self.state();
            state.bearings.on_otherwise(now, key, theirs);
            state.notices.pass(now, (Notice::Configured, key))
        };
        if told {
            tracing::warn!(
                peer = %caller.peer(),
                %theirs,
                %ours,
                "a knock in order but for its version or mode: the two ends are configured differently"
            );
        }
    }

    /// Logs a knock of a wrong time, unless there was enough of that.
    fn tell_of_skew(&self, now: Moment, late: v3::Late) {
        let Ok(key) = Key::of_peer(&late.peer) else { return };
        let told = {
            let mut state = self.state();
            state.bearings.on_caller(now, key.bytes(), late.skew_ms);
            state.notices.pass(now.monotonic, (Notice::Skewed, key.bytes()))
        };
        // Not under the lock: a subscriber to the log may dial.
        if told {
            tracing::warn!(
                peer = %late.peer,
                seconds_ahead = late.skew_ms / 1000,
                "a knock in order but for its time: one of the clocks is wrong, or it is played back"
            );
        }
    }

    /// Logs a replay, unless there was enough of that.
    fn tell_of_replay(&self, now: Instant, caller: Option<Caller>) {
        let about = caller.map_or([0; 32], |caller| caller.key().bytes());
        let told = self.state().notices.pass(now, (Notice::Replayed, about));
        if told {
            let peer = caller.map(|caller| tracing::field::display(caller.peer()));
            tracing::warn!(peer, "a knock that was answered before: it is played back");
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing under the lock panics half way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether the Noise message with this ephemeral is worth the key work.
    fn may_open(&mut self, ephemeral: &[u8; 32], now: Moment, prefix: Prefix, known: bool) -> Result<(), Refusal> {
        if self.replays.contains(ephemeral) {
            return Err(Refusal::Replayed);
        }
        if !self.openings.charge(now.monotonic, prefix, known) {
            return Err(Refusal::Budget);
        }
        Ok(())
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.known.write(&self.clock);
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Guard")
    }
}

impl From<replay::Refused> for Refusal {
    fn from(refused: replay::Refused) -> Self {
        match refused {
            replay::Refused::Replayed => Self::Replayed,
            replay::Refused::TooOld => Self::Floor,
            replay::Refused::TooNew => Self::Time,
            replay::Refused::OverBudget => Self::Budget,
        }
    }
}

impl From<Refusal> for Cause {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Version(_) | Refusal::Box => Self::NoKnock,
            Refusal::Replayed => Self::Replayed,
            Refusal::Budget => Self::OverBudget,
            Refusal::Time | Refusal::Floor => Self::Stale,
            Refusal::NotConfigured => Self::Denied,
            Refusal::Flight | Refusal::Hello | Refusal::TlsVersion | Refusal::KeyShare => Self::BadFlight,
            Refusal::Noise
            | Refusal::Reserved
            | Refusal::Mode(_)
            | Refusal::FlightLength(_)
            | Refusal::SelfDial
            | Refusal::Key
            | Refusal::Signature => Self::Forged,
        }
    }
}

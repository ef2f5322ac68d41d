//! What a listener makes of the bytes of a knock: who may be answered, and who is turned away.

use crate::config::{Dialect, Theirs};
use crate::error::Error;
use crate::guard::{Refused, Told};
use crate::identity::Key;
use crate::knock::reader::{Gathered, Reader};
use crate::knock::v3::{HEAD, Opened};
use crate::knock::{Caller, Refusal, Version, v2};
use crate::metrics::KnockOutcome;
use crate::silence::prefix::Prefix;
use crate::silence::summary::Cause;
use crate::upgrade::Shared;
use crate::user_code::Hook;
use libp2p_core::ConnectedPoint;
use libp2p_identity::PeerId;
use std::fmt;

/// What a right head leads to.
pub(crate) enum Judged {
    /// The caller may be answered.
    Invited(Invited),
    /// So it may once its flight is here.
    Awaited(Box<Opened>),
    /// What looked like a v2 knock is none, and may be the beginning of a sealed one: see
    /// [`Reader::go_on`].
    Undecided,
}

/// Who may be answered, and the bytes of TLS that came with the knock.
pub(crate) struct Invited {
    pub(crate) caller: Caller,
    pub(crate) dialect: Dialect,
    pub(crate) flight: Vec<u8>,
    /// Of the knock on the wire.
    pub(crate) size: usize,
    /// How far the caller's clock was ahead of ours in milliseconds, if the knock had a time in it.
    pub(crate) skew_ms: Option<i64>,
}

/// That a caller is not answered, and who it is, where that is known.
pub(crate) struct Turned {
    pub(crate) why: Why,
    pub(crate) peer: Option<PeerId>,
}

/// Why a caller is not answered.
pub(crate) enum Why {
    Refused(Refusal),
    Denied(crate::Denial),
    /// Its socket has gone meanwhile.
    Gone,
}

impl Turned {
    pub(crate) const GONE: Self = Self {
        why: Why::Gone,
        peer: None,
    };

    fn by(caller: &Caller, refusal: Refusal) -> Self {
        Self {
            why: Why::Refused(refusal),
            peer: Some(caller.peer()),
        }
    }
}

impl From<Refusal> for Turned {
    fn from(refusal: Refusal) -> Self {
        Refused::from(refusal).into()
    }
}

impl From<Refused> for Turned {
    fn from(refused: Refused) -> Self {
        Self {
            why: Why::Refused(refused.refusal),
            peer: refused.peer,
        }
    }
}

impl From<Turned> for Error {
    fn from(turned: Turned) -> Self {
        match turned.why {
            Why::Refused(refusal) => Self::Knock(refusal),
            Why::Denied(denial) => Self::Denied(denial),
            Why::Gone => Self::Closed,
        }
    }
}

impl Shared {
    /// A reader for whatever may be knocked with.
    pub(crate) fn reader(&self) -> Reader {
        Reader::new(self.v2_peers != Some(0))
    }

    /// Whether this key may knock with version 2.
    pub(crate) fn may_v2(&self, claimed: &[u8; 32]) -> bool {
        Key::check(claimed).is_ok_and(|key| self.config.dialect(&key).version == Version::V2)
    }

    /// Opens what was gathered and asks whether its sender may come in.
    pub(crate) fn judge_head(
        &self,
        gathered: Gathered<'_>,
        prefix: Prefix,
        point: &ConnectedPoint,
    ) -> Result<Judged, Turned> {
        let config = &self.config;
        match gathered {
            Gathered::V2(knock) => {
                let caller = match config.guard.open_v2(&config.key, knock, prefix, self.v2_peers) {
                    Err(refused) if self.ambiguous && refused.refusal == Refusal::Signature => {
                        return Ok(Judged::Undecided);
                    }
                    opened => opened?,
                };
                let dialect = config.dialect(&caller.key());
                if !self.speaks(dialect) {
                    return Err(Turned::by(&caller, Refusal::NotConfigured));
                }
                self.admit(&caller, point)?;
                Ok(Judged::Invited(Invited {
                    caller,
                    dialect,
                    flight: Vec::new(),
                    size: v2::SIZE,
                    skew_ms: None,
                }))
            }
            Gathered::V3(head) => {
                let sealed = config.sealed.as_ref().ok_or(Refusal::Version(head[0]))?;
                let opened = config.guard.open_head(&sealed.gate, head, prefix);
                let opened = opened.map_err(|refused| self.perhaps_v2(head, refused))?;
                let (version, mode) = (Version::V3, opened.mode());
                let (theirs, caller) = (Dialect { version, mode }, opened.caller());
                let ours = config.dialect(&caller.key());
                if ours != theirs || !self.speaks(theirs) {
                    config.guard.tell_of_configuration(caller, theirs.into(), ours);
                    return Err(Turned::by(&caller, Refusal::NotConfigured));
                }
                self.admit(&caller, point)?;
                Ok(Judged::Awaited(Box::new(opened)))
            }
        }
    }

    /// A head whose box does not open may begin with a knock of version 2, in order, of a peer that
    /// is configured for version 3. It is refused all the same; the log says so.
    fn perhaps_v2(&self, head: &[u8; HEAD], refused: Refused) -> Refused {
        let config = &self.config;
        let caller = match refused.refusal {
            Refusal::Box => config.guard.v2_in(&config.key, head),
            _ => None,
        };
        let Some(caller) = caller else { return refused };
        let ours = config.dialect(&caller.key());
        let theirs = Theirs {
            version: Version::V2,
            mode: None,
        };
        config.guard.tell_of_configuration(caller, theirs, ours);
        Refused {
            peer: Some(caller.peer()),
            ..refused
        }
    }

    /// Opens the flight that belongs to a head, and takes the knock once and never again.
    pub(crate) fn judge_flight(&self, opened: &Opened, sealed: &[u8], prefix: Prefix) -> Result<Invited, Turned> {
        let (caller, guard) = (opened.caller(), &self.config.guard);
        let flight = opened.open_flight(sealed, &self.groups);
        let flight = flight.map_err(|refusal| Turned::by(&caller, refusal))?;
        guard.remember(opened, prefix)?;
        let (version, mode) = (Version::V3, opened.mode());
        Ok(Invited {
            caller,
            dialect: Dialect { version, mode },
            flight,
            size: HEAD + sealed.len(),
            // Without a clock there would be no knock that opens.
            skew_ms: guard.now_ms().ok().map(|now| opened.skew_ms(now)),
        })
    }

    /// Asks the admission hook.
    fn admit(&self, caller: &Caller, point: &ConnectedPoint) -> Result<(), Turned> {
        let Some(hook) = &self.config.admission else {
            return Ok(());
        };
        let said = self
            .config
            .user_code
            .ask(Hook::Admission, || hook(&caller.peer(), point));
        said.map_err(|denial| Turned {
            why: Why::Denied(denial),
            peer: Some(caller.peer()),
        })
    }

    /// Counts what became of a knock, and logs it at `debug`.
    pub(crate) fn count(&self, judged: Result<&Invited, &Turned>, prefix: Prefix) {
        let guard = &self.config.guard;
        let said = match judged {
            Err(turned) if tracing::enabled!(tracing::Level::DEBUG) => self.said_by_hook(turned),
            _ => String::new(),
        };
        let (outcome, cause, peer, reason): (_, _, _, &dyn fmt::Display) = match judged {
            Ok(invited) => {
                self.config.metrics.knock(KnockOutcome::Accepted);
                return guard.tell(Told::Answered, prefix, Some(invited.caller.peer()), &invited.dialect);
            }
            Err(Turned { why, peer }) => match why {
                Why::Refused(refusal) => (KnockOutcome::Refused(*refusal), Cause::from(*refusal), peer, refusal),
                Why::Denied(_) => (KnockOutcome::Denied, Cause::Denied, peer, &said),
                Why::Gone => return,
            },
        };
        self.config.metrics.knock(outcome);
        guard.count(cause);
        guard.tell(Told::Refused(cause), prefix, *peer, reason);
    }

    /// The same for a socket that left without a knock in order.
    pub(crate) fn left(&self, prefix: Prefix, outcome: KnockOutcome, cause: Cause) {
        self.config.metrics.knock(outcome);
        self.config.guard.count(cause);
        self.config
            .guard
            .tell(Told::Refused(cause), prefix, None, &cause.name());
    }

    /// The text of a denial, which is the user's code.
    fn said_by_hook(&self, turned: &Turned) -> String {
        let Why::Denied(denial) = &turned.why else {
            return String::new();
        };
        let said = self.config.user_code.run(Hook::Admission, || denial.to_string());
        format!("denied: {}", said.unwrap_or_default())
    }
}

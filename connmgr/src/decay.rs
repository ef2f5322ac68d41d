//! Decaying tags: values that sink by themselves unless they are bumped.

use crate::core::Definition;
use crate::shared::Shared;
use libp2p_identity::PeerId;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use web_time::Instant;

type DecayFn = Arc<dyn Fn(&DecayingValue) -> Option<i64> + Send + Sync>;
type BumpFn = Arc<dyn Fn(&DecayingValue, i64) -> i64 + Send + Sync>;

/// What happens to a value each time its tag ticks.
#[derive(Clone)]
pub struct Decay(pub(crate) DecayKind);

#[derive(Clone)]
pub(crate) enum DecayKind {
    None,
    Fixed(i64),
    Linear(f64),
    ExpireWhenInactive(Duration),
    Custom(DecayFn),
}

impl Decay {
    /// Nothing.
    pub fn none() -> Self {
        Self(DecayKind::None)
    }

    /// Becomes less by `amount`, and is removed when that leaves nothing above zero. Registering
    /// one with a negative amount is an error.
    pub fn fixed(amount: i64) -> Self {
        Self(DecayKind::Fixed(amount))
    }

    /// Is multiplied by `coefficient` and rounded down, and is removed when that leaves nothing
    /// above zero. Registering one with a coefficient that is not from 0 to 1 is an error. Exact
    /// for the first 4,096 ticks between two reads; what lies beyond is taken in one power.
    pub fn linear(coefficient: f64) -> Self {
        Self(DecayKind::Linear(coefficient))
    }

    /// Stays, and is removed at the first tick at least `after` behind its last bump.
    pub fn expire_when_inactive(after: Duration) -> Self {
        Self(DecayKind::ExpireWhenInactive(after))
    }

    /// Becomes what the closure says; `None` removes it.
    ///
    /// The closure is asked when somebody reads the peer's value or a trim comes by, once for each tick since the last
    /// time and at most 4,096 times in a row: ticks beyond that are left out. It may be asked twice for the same tick when
    /// two threads read at once.
    ///
    /// It runs on the thread that reads, or in the Swarm's task if a trim does, under no lock: a
    /// slow one holds up that reader, or the Swarm. It may call the manager, and then sees every
    /// value as it last was. If it panics the value stays as it was.
    pub fn custom(decay: impl Fn(&DecayingValue) -> Option<i64> + Send + Sync + 'static) -> Self {
        Self(DecayKind::Custom(Arc::new(decay)))
    }

    /// A value that grows by itself is no decay. What a closure makes of it is the user's affair.
    pub(crate) fn check(&self) -> Result<(), RegisterError> {
        match self.0 {
            DecayKind::Linear(coefficient) if !(0.0..=1.0).contains(&coefficient) => {
                Err(RegisterError::Coefficient(coefficient))
            }
            DecayKind::Fixed(amount) if amount < 0 => Err(RegisterError::Amount(amount)),
            _ => Ok(()),
        }
    }
}

/// What a bump makes of a value.
#[derive(Clone)]
pub struct Bump(pub(crate) BumpKind);

#[derive(Clone)]
pub(crate) enum BumpKind {
    SumUnbounded,
    SumBounded { min: i64, max: i64 },
    Overwrite,
    Custom(BumpFn),
}

impl Bump {
    /// Adds the two, saturating at the ends of `i64`.
    pub fn sum_unbounded() -> Self {
        Self(BumpKind::SumUnbounded)
    }

    /// Adds the two and clamps the result to `min..=max`. Registering one with `min > max` is an error.
    pub fn sum_bounded(min: i64, max: i64) -> Self {
        Self(BumpKind::SumBounded { min, max })
    }

    /// Takes the new one.
    pub fn overwrite() -> Self {
        Self(BumpKind::Overwrite)
    }

    /// Takes what the closure makes of the value, 0 if there is none yet, and the amount.
    ///
    /// Called on the thread that bumps, under no lock, and again if the value changed meanwhile, up
    /// to 1,024 times: the last answer stands. It may call the manager; a bump of the same peer
    /// under the same tag is [`BumpError::Recursive`]. If it panics the value stays as it was and
    /// the bump is [`BumpError::Panicked`].
    pub fn custom(bump: impl Fn(&DecayingValue, i64) -> i64 + Send + Sync + 'static) -> Self {
        Self(BumpKind::Custom(Arc::new(bump)))
    }

    pub(crate) fn check(&self) -> Result<(), RegisterError> {
        match self.0 {
            BumpKind::SumBounded { min, max } if min > max => Err(RegisterError::Bounds { min, max }),
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for Decay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            DecayKind::None => f.write_str("None"),
            DecayKind::Fixed(by) => f.debug_tuple("Fixed").field(by).finish(),
            DecayKind::Linear(by) => f.debug_tuple("Linear").field(by).finish(),
            DecayKind::ExpireWhenInactive(after) => f.debug_tuple("ExpireWhenInactive").field(after).finish(),
            DecayKind::Custom(_) => f.write_str("Custom"),
        }
    }
}

impl fmt::Debug for Bump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            BumpKind::SumUnbounded => f.write_str("SumUnbounded"),
            BumpKind::SumBounded { min, max } => f.debug_tuple("SumBounded").field(&(min..=max)).finish(),
            BumpKind::Overwrite => f.write_str("Overwrite"),
            BumpKind::Custom(_) => f.write_str("Custom"),
        }
    }
}

/// What a decay or bump function sees.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DecayingValue {
    /// The tag's name.
    pub tag: String,
    /// Whose value it is.
    pub peer: PeerId,
    /// The value before the change.
    pub value: i64,
    /// When the peer was first bumped under this tag.
    pub added: Instant,
    /// When the value last ticked or was bumped.
    pub last_visit: Instant,
}

/// A registered tag: bumps, removes, and ends it. A clone is the same tag; dropping all of them ends nothing.
///
/// Everything takes effect before the call returns, in the order of the calls. Works without a connection: a bump makes an
/// early tag, as [`tag_peer`](crate::Manager::tag_peer) does. After [`Manager::close`](crate::Manager::close) nothing changes any more.
#[derive(Clone)]
pub struct DecayingTag {
    pub(crate) definition: Arc<Definition>,
    pub(crate) shared: Arc<Shared>,
}

impl DecayingTag {
    /// Under which it was registered.
    pub fn name(&self) -> &str {
        &self.definition.name
    }

    /// Between two ticks: what was asked for, or the resolution if that is longer.
    pub fn interval(&self) -> Duration {
        self.definition.interval()
    }

    /// Changes the peer's value by the bump function. A peer with as many tags as it may have gets no new one.
    ///
    /// # Errors
    ///
    /// [`BumpError::Closed`] after [`Self::close`]; [`BumpError::Panicked`] if the bump function
    /// did; [`BumpError::Recursive`] if the bump function makes this call for its own peer.
    pub fn bump(&self, peer: &PeerId, delta: i64) -> Result<(), BumpError> {
        if self.shared.is_closed() {
            return Err(BumpError::Closed);
        }
        self.shared.book.bump(&self.definition, peer, delta)
    }

    /// Removes the peer's value. A peer that has none is no error, and one that is not known stays
    /// unknown.
    ///
    /// # Errors
    ///
    /// [`BumpError::Closed`] after [`Self::close`].
    pub fn remove(&self, peer: &PeerId) -> Result<(), BumpError> {
        if self.shared.is_closed() {
            return Err(BumpError::Closed);
        }
        self.shared.book.remove_decaying(&self.definition, peer)
    }

    /// Ends the tag: every peer's value is void at once, and the name is free. A second time nothing happens.
    pub fn close(&self) {
        if !self.shared.is_closed() {
            self.shared.book.close_tag(&self.definition);
        }
    }
}

impl fmt::Debug for DecayingTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.definition.fmt(f)
    }
}

/// Why a decaying tag was not registered.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RegisterError {
    /// The amount of [`Decay::fixed`] is negative: the value would grow.
    #[error("invalid amount {0} of a fixed decay: expected 0 or more")]
    Amount(i64),
    /// The bounds of [`Bump::sum_bounded`] are the wrong way round.
    #[error("invalid bounds {min} to {max} of a bounded sum: expected the smaller one first")]
    Bounds {
        /// The first.
        min: i64,
        /// The second.
        max: i64,
    },
    /// The manager is closed.
    #[error("the connection manager is closed")]
    Closed,
    /// The coefficient of [`Decay::linear`] is no number, negative, or above 1, which would let the
    /// value grow.
    #[error("invalid coefficient {0} of a linear decay: expected 0 to 1")]
    Coefficient(f64),
    /// A decaying tag of this name is registered.
    #[error("a decaying tag {0:?} is registered already")]
    Taken(String),
}

/// Why a value was not changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BumpError {
    /// The tag or the manager is closed.
    #[error("the decaying tag is closed")]
    Closed,
    /// The bump function panicked.
    #[error("the bump function panicked")]
    Panicked,
    /// The bump function bumped the same peer under the same tag.
    #[error("the bump function bumped the peer that it was called for")]
    Recursive,
}

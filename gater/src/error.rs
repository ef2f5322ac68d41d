//! The error of whatever a gate stands round.

use crate::verdict::Denied;
use std::error;
use std::fmt;

/// What went wrong in a transport or an upgrade that a gate stands round.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error<E> {
    /// The policy said no. [`Denied::find`] finds it however deep a Swarm hides this.
    Denied(Box<Denied>),
    /// What stands inside failed.
    Inner(E),
}

impl<E> From<Denied> for Error<E> {
    fn from(denied: Denied) -> Self {
        Self::Denied(Box::new(denied))
    }
}

impl<E: fmt::Display> fmt::Display for Error<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Denied(denied) => denied.fmt(f),
            Self::Inner(error) => error.fmt(f),
        }
    }
}

impl<E: error::Error + 'static> error::Error for Error<E> {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            // Itself, for whoever walks the chain: from outside, an enum over transports hides what is in it.
            Self::Denied(denied) => Some(&**denied),
            Self::Inner(error) => error.source(),
        }
    }
}

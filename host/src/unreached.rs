//! Why a peer that there is a stream to has no connection, for the log: once a minute and peer.

use crate::engine::unreached::Warnings;
use crate::peers::{Need, Registry};
use crate::user_code::Hook;
use libp2p_core::Multiaddr;
use libp2p_identity::PeerId;
use libp2p_knock::{Failure, Stage};
use libp2p_swarm::DialError;
use std::error::Error;
use std::sync::Arc;
use std::time::Instant;

/// Why no address of a round led to a connection.
#[derive(Debug)]
pub(crate) struct Reason {
    text: String,
    /// The peer's machine was reached there. That says more than that another address was not.
    reached: bool,
}

impl Reason {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            reached: false,
        }
    }

    /// Why a dial of the knock failed.
    pub(crate) fn of(failure: &Failure) -> Self {
        Self {
            text: whole(failure.error()),
            reached: !matches!(failure.stage(), Stage::Address | Stage::Inner),
        }
    }

    /// With the address in front.
    pub(crate) fn at(mut self, address: &Multiaddr) -> Self {
        self.text = format!("{address}: {}", self.text);
        self
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Why a dial of a Swarm failed; nothing if there was none.
    pub(crate) fn of_swarm(error: &DialError) -> Option<Self> {
        match error {
            DialError::DialPeerConditionFalse(_) => None,
            DialError::NoAddresses => Some(Self::new(NO_ADDRESS)),
            DialError::Transport(errors) => {
                let each = errors.iter().map(|(address, error)| {
                    let text = whole(error);
                    // Of a failed connect a knock says no more than any other transport.
                    let reached =
                        Failure::find(error).is_some_and(|error| !matches!(error, libp2p_knock::Error::Inner(_)));
                    Self { text, reached }.at(address)
                });
                each.reduce(Self::or)
            }
            error => Some(Self::new(whole(error))),
        }
    }

    /// The one of the two that says more; the later one if both say as much.
    pub(crate) fn or(self, later: Self) -> Self {
        if self.reached && !later.reached { self } else { later }
    }
}

/// Nothing that finds peers knows where this one is.
pub(crate) const NO_ADDRESS: &str = "no address of the peer is known";

/// An error and its sources. One that shows the text of its source itself is not followed by it.
fn whole(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let said = source.to_string();
        if !text.ends_with(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        next = source.source();
    }
    text
}

/// See the module.
pub(crate) struct Unreached {
    registry: Arc<Registry>,
    warnings: Warnings,
}

impl Unreached {
    pub(crate) fn new(registry: Arc<Registry>) -> Self {
        Self {
            registry,
            warnings: Warnings::default(),
        }
    }

    /// `peer` was not reached, for the reason that `why` gives. `why` may run the user's code: what
    /// its errors say of themselves.
    pub(crate) fn warn(&mut self, peer: PeerId, why: impl FnOnce() -> Option<Reason>) {
        if self.registry.need(&peer) != Need::Connection {
            return;
        }
        let panics = &self.registry.counters.hook_panics;
        let Some(Some(reason)) = panics.call(Hook::Handshake, why) else {
            return;
        };
        if self.warnings.pass(peer, Instant::now()) {
            let reason = reason.text;
            tracing::warn!(%peer, reason, "not connected to a peer that there is a stream to");
        }
    }

    /// There is no stream to `peer` any more.
    pub(crate) fn forget(&mut self, peer: &PeerId) {
        self.warnings.forget(peer);
    }
}

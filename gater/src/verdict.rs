//! What a policy answers, and what an application finds of it.

use crate::rules::{Cidr, Rule};
use libp2p_core::Multiaddr;
use libp2p_identity::PeerId;
use libp2p_swarm::{ConnectionDenied, ConnectionId, DialError, ListenError};
use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// The rule that a range is one of.
const BLOCK_NETWORK: &str = "block_network";

/// The stages of a connection's life, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Stage {
    /// A peer is about to be dialled; its addresses are not looked at yet.
    PeerDial,
    /// One address is about to be dialled, after resolution.
    AddrDial,
    /// A transport has accepted something.
    Accept,
    /// A valid knock has come; TLS has not begun.
    Knock,
    /// The peer is proven; there is no muxer yet.
    Secured,
    /// The connection is ready for use.
    Upgraded,
    /// The connection, or the attempt at one, met a rule that has been tightened since.
    Live,
}

impl Stage {
    /// All of them, in their order.
    pub const ALL: [Self; 7] = [
        Self::PeerDial,
        Self::AddrDial,
        Self::Accept,
        Self::Knock,
        Self::Secured,
        Self::Upgraded,
        Self::Live,
    ];

    /// In lower case with underscores, for labels.
    pub const fn name(self) -> &'static str {
        match self {
            Self::PeerDial => "peer_dial",
            Self::AddrDial => "addr_dial",
            Self::Accept => "accept",
            Self::Knock => "knock",
            Self::Secured => "secured",
            Self::Upgraded => "upgraded",
            Self::Live => "live",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A policy's answer.
#[derive(Debug, Clone)]
#[must_use]
pub enum Verdict {
    /// Yes, whatever policies behind this one think.
    Allow,
    /// No, and why.
    Deny(Reason),
    /// Not mine to decide. What every policy passes is allowed.
    Pass,
}

impl Verdict {
    /// Whether this is a no.
    pub fn is_deny(&self) -> bool {
        matches!(self, Self::Deny(_))
    }

    /// Of a policy that panicked.
    #[cold]
    pub(crate) fn panicked() -> Self {
        static PANICKED: Said = Said::new("policy_panicked", "the policy panicked");
        Self::Deny(Reason::fixed(&PANICKED))
    }

    /// In lower case, for labels.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny(_) => "deny",
            Self::Pass => "pass",
        }
    }
}

/// Why not: the rule that said so, and whatever it has to add. Cheap to clone; a rule that says no often keeps one ready.
#[derive(Clone)]
pub struct Reason(Repr);

#[derive(Clone)]
enum Repr {
    /// Said so often, on so many threads, that counting who has it would be felt.
    Fixed(&'static Said),
    Own(Arc<Said>),
    /// A range that blocks: what a flood meets, with nothing to allocate.
    Network(Cidr),
    /// Said as often, and of many rules each.
    Line(Arc<Line<dyn fmt::Display + Send + Sync>>),
}

/// A line of rules that said no. It becomes text when it is read: of what is refused in a flood,
/// hardly anything is.
struct Line<D: ?Sized> {
    rule: &'static str,
    retry_after: Option<Duration>,
    line: D,
}

#[derive(Clone)]
pub(crate) struct Said {
    rule: Cow<'static, str>,
    detail: Option<Cow<'static, str>>,
    retry_after: Option<Duration>,
    payload: Option<Arc<dyn Error + Send + Sync>>,
}

impl Said {
    /// For [`Reason::fixed`].
    pub(crate) const fn new(rule: &'static str, detail: &'static str) -> Self {
        Self {
            rule: Cow::Borrowed(rule),
            detail: Some(Cow::Borrowed(detail)),
            retry_after: None,
            payload: None,
        }
    }
}

impl Reason {
    /// A reason that names the rule, and nothing else. The name becomes a label of the metrics: take few, and never one
    /// that holds an address or a peer.
    pub fn new(rule: impl Into<Cow<'static, str>>) -> Self {
        Self(Repr::Own(Arc::new(Said {
            rule: rule.into(),
            detail: None,
            retry_after: None,
            payload: None,
        })))
    }

    /// One that is ready. Cloning it counts nothing.
    pub(crate) const fn fixed(said: &'static Said) -> Self {
        Self(Repr::Fixed(said))
    }

    /// The range blocks.
    pub(crate) const fn of_network(range: Cidr) -> Self {
        Self(Repr::Network(range))
    }

    /// One whose detail is `line`, which is displayed when the detail is asked for.
    pub(crate) fn of_line<D>(rule: &'static str, retry_after: Option<Duration>, line: D) -> Self
    where
        D: fmt::Display + Send + Sync + 'static,
    {
        Self(Repr::Line(Arc::new(Line {
            rule,
            retry_after,
            line,
        })))
    }

    /// A reason that carries `error`, for [`Reason::downcast_ref`].
    pub fn with_error<E>(rule: impl Into<Cow<'static, str>>, error: E) -> Self
    where
        E: Error + Send + Sync + 'static,
    {
        Self::with_boxed(rule, Box::new(error))
    }

    pub(crate) fn with_boxed(rule: impl Into<Cow<'static, str>>, error: Box<dyn Error + Send + Sync>) -> Self {
        Self::new(rule).changed(|said| said.payload = Some(error.into()))
    }

    /// Adds a sentence for people: which entry of the rule, which figure.
    pub fn with_detail(self, detail: impl Into<Cow<'static, str>>) -> Self {
        self.changed(|said| said.detail = Some(detail.into()))
    }

    /// Adds for how long it is no use to try again. Sent along where a reason can be sent.
    pub fn with_retry_after(self, retry_after: Duration) -> Self {
        self.changed(|said| said.retry_after = Some(retry_after))
    }

    /// The rule that said no.
    pub fn rule(&self) -> &str {
        match &self.0 {
            Repr::Fixed(said) => &said.rule,
            Repr::Own(said) => &said.rule,
            Repr::Network(_) => BLOCK_NETWORK,
            Repr::Line(line) => line.rule,
        }
    }

    /// The sentence, if there is one. That of [`Rules`](crate::Rules) is, or ends with, the line of
    /// the rules' file that said no, its note included.
    pub fn detail(&self) -> Option<Cow<'_, str>> {
        match &self.0 {
            Repr::Fixed(said) => said.detail.as_deref().map(Cow::Borrowed),
            Repr::Own(said) => said.detail.as_deref().map(Cow::Borrowed),
            Repr::Network(range) => Some(Cow::Owned(Rule::block().network(*range).to_string())),
            Repr::Line(line) => Some(Cow::Owned(line.line.to_string())),
        }
    }

    /// For how long it is no use to try again, if the rule knows.
    pub fn retry_after(&self) -> Option<Duration> {
        match &self.0 {
            Repr::Fixed(said) => said.retry_after,
            Repr::Own(said) => said.retry_after,
            Repr::Network(_) => None,
            Repr::Line(line) => line.retry_after,
        }
    }

    /// The policy's own error, if it gave one and it is an `E`.
    pub fn downcast_ref<E: Error + 'static>(&self) -> Option<&E> {
        self.payload()?.downcast_ref()
    }

    fn payload(&self) -> Option<&(dyn Error + Send + Sync + 'static)> {
        match &self.0 {
            Repr::Own(said) => said.payload.as_deref(),
            Repr::Fixed(_) | Repr::Network(_) | Repr::Line(_) => None,
        }
    }

    fn changed(self, change: impl FnOnce(&mut Said)) -> Self {
        let mut own = match self.0 {
            Repr::Fixed(said) => Arc::new(said.clone()),
            Repr::Own(said) => said,
            Repr::Network(range) => Arc::new(Said {
                rule: Cow::Borrowed(BLOCK_NETWORK),
                detail: Some(Cow::Owned(Rule::block().network(range).to_string())),
                retry_after: None,
                payload: None,
            }),
            Repr::Line(line) => Arc::new(Said {
                rule: Cow::Borrowed(line.rule),
                detail: Some(Cow::Owned(line.line.to_string())),
                retry_after: line.retry_after,
                payload: None,
            }),
        };
        change(Arc::make_mut(&mut own));
        Self(Repr::Own(own))
    }
}

impl fmt::Debug for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reason({self})")
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.rule())?;
        if let Some(detail) = self.detail() {
            write!(f, ": {detail}")?;
        }
        if let Some(payload) = self.payload() {
            write!(f, ": {payload}")?;
        }
        Ok(())
    }
}

/// What an application finds in an error of its Swarm when a gate said no.
///
/// [`DialError::Denied`] and [`ListenError::Denied`] can be downcast to it, if the gate's behaviour denied the connection for
/// the policy; to [`BackedOff`](crate::goodbye::BackedOff) if the peer had asked not to be dialled. What the gate's other parts refuse is hidden deeper, in as many layers as there are transports round
/// them: [`Denied::in_dial`], [`Denied::in_listen`] and [`Denied::find`] look there too.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Denied {
    /// Where.
    pub stage: Stage,
    /// Why.
    pub reason: Reason,
    /// Whom, if it was known. Before [`Stage::Secured`] nobody has proven it.
    pub peer: Option<PeerId>,
    /// The remote address, if it was known.
    pub address: Option<Multiaddr>,
    /// Which connection, where that was known.
    pub connection: Option<ConnectionId>,
}

impl Denied {
    /// At `stage`, for `reason`.
    pub fn new(stage: Stage, reason: Reason) -> Self {
        Self {
            stage,
            reason,
            peer: None,
            address: None,
            connection: None,
        }
    }

    /// What denied the dial that failed with `error`. When several addresses were denied, the first of them.
    pub fn in_dial(error: &DialError) -> Option<&Self> {
        match error {
            DialError::Denied { cause } => Self::in_cause(cause),
            DialError::Transport(errors) => errors.iter().find_map(|(_, error)| Self::find(error)),
            _ => None,
        }
    }

    /// What denied the inbound connection that failed with `error`.
    pub fn in_listen(error: &ListenError) -> Option<&Self> {
        match error {
            ListenError::Denied { cause } => Self::in_cause(cause),
            ListenError::Transport(error) => Self::find(error),
            _ => None,
        }
    }

    /// What stands behind `error`, however deep.
    pub fn find<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(this) = error.downcast_ref::<Self>() {
                return Some(this);
            }
            next = match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
                // Its `source` is that of the error inside, which would be skipped.
                Some(inside) => Some(inside),
                None => error.source(),
            };
        }
        None
    }

    fn in_cause(cause: &ConnectionDenied) -> Option<&Self> {
        cause.downcast_ref()
    }
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "denied at {}: {}", self.stage, self.reason)
    }
}

impl Error for Denied {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(self.reason.payload()?)
    }
}

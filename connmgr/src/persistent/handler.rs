//! One connection's part: kept alive and asked, or watched until it is of no use to anybody.

use super::config::Probes;
use crate::alive::{Accept, Alive, Ask, Schedule, Told};
use futures::future::FutureExt as _;
use futures_timer::Delay;
use libp2p_swarm::handler::ConnectionEvent;
use libp2p_swarm::{ConnectionHandler, ConnectionHandlerEvent, ConnectionId, SubstreamProtocol};
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// Keeps a connection alive at both ends while its peer is wanted, asks whether it answers, and
/// notices when a second one is not used.
#[derive(Debug)]
pub struct Handler {
    alive: Alive,
    spare: Option<Spare>,
}

/// A second connection: for how long it has to have carried no stream, and when to look.
#[derive(Debug)]
struct Spare {
    unused: Duration,
    timer: Delay,
}

/// From the behaviour to its connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// The connection is kept alive and asked.
    Keep,
    /// The connection is not kept, nor asked.
    LetGo,
    /// The connection is one too many. It is not kept, and [`Reply::Unused`] tells when it has
    /// carried no stream for so long.
    Spare {
        /// For how long.
        unused: Duration,
    },
    /// If the connection is kept, it is asked now. [`Reply::Answered`] or [`Reply::Unresponsive`]
    /// follows.
    Ask,
}

/// From a connection to the behaviour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    /// A question was answered that [`Command::Ask`] has asked.
    Answered,
    /// A question was not answered in time.
    Unresponsive,
    /// A connection that is one too many has carried no stream for long enough.
    Unused,
}

impl Handler {
    pub(crate) fn new(connection: ConnectionId, keep: bool, every: Option<Duration>, probes: Option<Probes>) -> Self {
        let mut alive = Alive::new(connection, Schedule::new(every, probes), true);
        alive.keep(keep);
        Self { alive, spare: None }
    }

    /// Ready when a connection that is one too many has carried no stream for long enough.
    fn poll_spare(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while let Some(spare) = &mut self.spare {
            ready!(spare.timer.poll_unpin(cx));
            let quiet = self.alive.quiet_since().map(|since| since.elapsed());
            if quiet.is_some_and(|quiet| quiet >= spare.unused) {
                self.spare = None;
                return Poll::Ready(());
            }
            *spare = Spare {
                timer: Spare::new(spare.unused.saturating_sub(quiet.unwrap_or_default())).timer,
                ..*spare
            };
        }
        Poll::Pending
    }
}

impl Spare {
    /// What a timer takes for granted; it is simply set again.
    const LONGEST: Duration = Duration::from_secs(86_400);

    fn new(unused: Duration) -> Self {
        let timer = Delay::new(unused.min(Self::LONGEST));
        Self { unused, timer }
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Command;
    type ToBehaviour = Reply;
    type InboundProtocol = Accept;
    type OutboundProtocol = Ask;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<Accept> {
        self.alive.listen_protocol()
    }

    fn connection_keep_alive(&self) -> bool {
        self.alive.connection_keep_alive()
    }

    fn on_behaviour_event(&mut self, command: Command) {
        let (keep, spare) = match command {
            Command::Keep => (true, None),
            Command::LetGo => (false, None),
            Command::Spare { unused } => (false, Some(Spare::new(unused))),
            Command::Ask => return self.alive.ask_now(),
        };
        self.alive.keep(keep);
        self.alive.watch(spare.is_some());
        self.spare = spare;
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ConnectionHandlerEvent<Ask, (), Reply>> {
        let reply = match self.alive.poll(cx) {
            Poll::Ready(Told::Open(protocol)) => {
                return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
            }
            Poll::Ready(Told::Answered) => Reply::Answered,
            Poll::Ready(Told::Silent) => Reply::Unresponsive,
            Poll::Pending => {
                ready!(self.poll_spare(cx));
                Reply::Unused
            }
        };
        Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(reply))
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, Accept, Ask>) {
        self.alive.on_connection_event(event);
    }
}

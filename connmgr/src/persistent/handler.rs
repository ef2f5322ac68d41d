//! One connection's part: kept alive, and asked whether it answers.

use super::config::Probes;
use futures::future::{BoxFuture, FutureExt as _};
use futures::io::AsyncReadExt as _;
use futures_timer::Delay;
use libp2p_core::upgrade::ReadyUpgrade;
use libp2p_core::{OutboundUpgrade, UpgradeInfo};
use libp2p_swarm::handler::{ConnectionEvent, DialUpgradeError};
use libp2p_swarm::{
    ConnectionHandler, ConnectionHandlerEvent, Stream, StreamProtocol, StreamUpgradeError, SubstreamProtocol,
};
use std::convert::Infallible;
use std::iter;
use std::task::{Context, Poll};

/// What is asked for. Nobody needs to have it: a refusal is an answer.
const PROTOCOL: StreamProtocol = StreamProtocol::new("/libp2p-connmgr/alive/1.0.0");

/// Keeps a connection alive past the Swarm's idle timeout while its peer is wanted, and probes it.
#[derive(Debug)]
pub struct Handler {
    keep: bool,
    probes: Option<Probes>,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Until the next question.
    Resting(Delay),
    /// To be asked.
    Due,
    Asked,
    /// There was no answer.
    Silent,
    /// Not probed, or given up.
    Off,
}

/// From the behaviour to its connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Whether the connection is kept alive and probed.
    Keep(bool),
}

/// From a connection to the behaviour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    /// A probe was not answered in time.
    Unresponsive,
}

impl Handler {
    pub(crate) fn new(keep: bool, probes: Option<Probes>) -> Self {
        let mut this = Self {
            keep,
            probes,
            state: State::Off,
        };
        this.rest();
        this
    }

    /// Nothing is asked for an interval.
    fn rest(&mut self) {
        self.state = match self.probes {
            Some(probes) if self.keep => State::Resting(Delay::new(probes.interval)),
            _ => State::Off,
        };
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Command;
    type ToBehaviour = Reply;
    type InboundProtocol = ReadyUpgrade<StreamProtocol>;
    type OutboundProtocol = Probe;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        SubstreamProtocol::new(ReadyUpgrade::new(PROTOCOL), ())
    }

    fn connection_keep_alive(&self) -> bool {
        self.keep
    }

    fn on_behaviour_event(&mut self, Command::Keep(keep): Command) {
        if keep != self.keep {
            self.keep = keep;
            self.rest();
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, (), Reply>> {
        if let State::Resting(delay) = &mut self.state {
            futures::ready!(delay.poll_unpin(cx));
            self.state = State::Due;
        }
        match (&self.state, self.probes) {
            (State::Due, Some(probes)) => {
                self.state = State::Asked;
                Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest {
                    protocol: SubstreamProtocol::new(Probe, ()).with_timeout(probes.timeout),
                })
            }
            (State::Silent, _) => {
                self.state = State::Off;
                Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(Reply::Unresponsive))
            }
            _ => Poll::Pending,
        }
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, Self::InboundProtocol, Self::OutboundProtocol, (), ()>,
    ) {
        // A probe that was asked before the peer was let go of, or wanted again, says nothing any more.
        if !matches!(self.state, State::Asked) {
            return;
        }
        match event {
            ConnectionEvent::DialUpgradeError(DialUpgradeError {
                error: StreamUpgradeError::Timeout,
                ..
            }) => self.state = State::Silent,
            // A refusal is an answer. A connection that is broken ends without us.
            ConnectionEvent::DialUpgradeError(_) | ConnectionEvent::FullyNegotiatedOutbound(_) => self.rest(),
            _ => {}
        }
    }
}

/// Asks for the protocol and waits for what comes back.
#[derive(Debug, Clone, Copy)]
pub struct Probe;

impl UpgradeInfo for Probe {
    type Info = StreamProtocol;
    type InfoIter = iter::Once<StreamProtocol>;

    fn protocol_info(&self) -> Self::InfoIter {
        iter::once(PROTOCOL)
    }
}

impl OutboundUpgrade<Stream> for Probe {
    type Output = ();
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<(), Infallible>>;

    fn upgrade_outbound(self, mut stream: Stream, _: Self::Info) -> Self::Future {
        async move {
            // Negotiated lazily, the protocol is a hope until something is read, be it the end or an error.
            let _ = stream.read(&mut [0]).await;
            Ok(())
        }
        .boxed()
    }
}

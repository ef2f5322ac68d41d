//! Streams in use: one over each direct connection to a peer that accepts it, for a while or for as
//! long as the test takes. A byte goes there and back five times a second. A relay ends a circuit
//! at its own limit, which the data of one question of AutoNAT 2 can reach.

use futures::future::{BoxFuture, FutureExt as _};
use futures::io::{AsyncReadExt as _, AsyncWriteExt as _};
use futures::stream::{FuturesUnordered, StreamExt as _};
use libp2p::PeerId;
use libp2p::core::transport::PortUse;
use libp2p::core::upgrade::ReadyUpgrade;
use libp2p::core::{Endpoint, Multiaddr};
use libp2p::swarm::handler::{ConnectionEvent, FullyNegotiatedInbound, FullyNegotiatedOutbound};
use libp2p::swarm::{
    ConnectionClosed, ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm,
    NetworkBehaviour, Stream, StreamProtocol, SubstreamProtocol, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use std::collections::{HashMap, HashSet, VecDeque};
use std::convert::Infallible;
use std::io;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, sleep};

const PROTOCOL: StreamProtocol = StreamProtocol::new("/in-use/1");

/// How long streams over further connections to a peer are used, in turn. The first one is used to
/// the end.
const USES: [Duration; 3] = [Duration::from_secs(2), Duration::from_secs(5), Duration::from_secs(9)];

#[derive(Debug)]
pub(crate) enum Event {
    /// A stream ended before its time.
    Broken { peer: PeerId, connection: ConnectionId },
}

/// Opens streams, or only accepts them.
pub(crate) struct Behaviour {
    opens: bool,
    met: HashSet<PeerId>,
    further: usize,
    /// Streams that are in use.
    open: HashMap<ConnectionId, PeerId>,
    opened: usize,
    events: VecDeque<Event>,
}

impl Behaviour {
    pub(crate) fn new(opens: bool) -> Self {
        Self {
            opens,
            met: HashSet::new(),
            further: 0,
            open: HashMap::new(),
            opened: 0,
            events: VecDeque::new(),
        }
    }

    pub(crate) fn opened(&self) -> usize {
        self.opened
    }

    fn handler(&mut self, peer: PeerId, relayed: bool) -> Handler {
        let time = (self.opens && !relayed).then(|| {
            if self.met.insert(peer) {
                Duration::from_secs(3600)
            } else {
                self.further += 1;
                USES[self.further % USES.len()]
            }
        });
        Handler {
            open: time,
            time,
            streams: FuturesUnordered::new(),
            told: VecDeque::new(),
        }
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Event;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(peer, is_relayed(local)))
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(peer, is_relayed(address)))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        if let FromSwarm::ConnectionClosed(ConnectionClosed { connection_id, .. }) = event
            && let Some(peer) = self.open.remove(&connection_id)
        {
            let connection = connection_id;
            self.events.push_back(Event::Broken { peer, connection });
        }
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, connection: ConnectionId, told: THandlerOutEvent<Self>) {
        match told {
            Told::Opened => {
                self.opened += 1;
                self.open.insert(connection, peer);
            }
            Told::Done => {
                self.open.remove(&connection);
            }
            Told::Broken => {
                if self.open.remove(&connection).is_some() {
                    self.events.push_back(Event::Broken { peer, connection });
                }
            }
        }
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Event, THandlerInEvent<Self>>> {
        // What fills this comes from the Swarm, which polls afterwards.
        match self.events.pop_front() {
            Some(event) => Poll::Ready(ToSwarm::GenerateEvent(event)),
            None => Poll::Pending,
        }
    }
}

fn is_relayed(address: &Multiaddr) -> bool {
    address
        .iter()
        .any(|part| part == libp2p::multiaddr::Protocol::P2pCircuit)
}

#[derive(Debug)]
pub(crate) enum Told {
    Opened,
    Done,
    Broken,
}

pub(crate) struct Handler {
    /// To be opened.
    open: Option<Duration>,
    time: Option<Duration>,
    streams: FuturesUnordered<BoxFuture<'static, Option<io::Result<()>>>>,
    told: VecDeque<Told>,
}

/// A byte there and back until the time is over.
async fn used(mut stream: Stream, time: Duration) -> io::Result<()> {
    let end = Instant::now() + time;
    while Instant::now() < end {
        stream.write_all(&[7]).await?;
        stream.flush().await?;
        stream.read_exact(&mut [0]).await?;
        sleep(Duration::from_millis(200)).await;
    }
    stream.close().await
}

async fn echoed(mut stream: Stream) -> io::Result<()> {
    let mut byte = [0];
    while stream.read(&mut byte).await? > 0 {
        stream.write_all(&byte).await?;
        stream.flush().await?;
    }
    stream.close().await
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Infallible;
    type ToBehaviour = Told;
    type InboundProtocol = ReadyUpgrade<StreamProtocol>;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        SubstreamProtocol::new(ReadyUpgrade::new(PROTOCOL), ())
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, (), Told>> {
        if self.open.take().is_some() {
            let protocol = SubstreamProtocol::new(ReadyUpgrade::new(PROTOCOL), ());
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        while let Poll::Ready(Some(end)) = self.streams.poll_next_unpin(cx) {
            match end {
                Some(Ok(())) => self.told.push_back(Told::Done),
                Some(Err(_)) => self.told.push_back(Told::Broken),
                None => {}
            }
        }
        match self.told.pop_front() {
            Some(told) => Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(told)),
            None => Poll::Pending,
        }
    }

    fn on_behaviour_event(&mut self, event: Infallible) {
        match event {}
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, Self::InboundProtocol, Self::OutboundProtocol>) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol, .. }) => {
                // Its fate is told by the other end.
                self.streams.push(echoed(protocol).map(|_| None).boxed());
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol, .. }) => {
                let time = self.time.unwrap_or_default();
                self.told.push_back(Told::Opened);
                self.streams.push(used(protocol, time).map(Some).boxed());
            }
            _ => {}
        }
    }
}

//! Both worlds in one program while a network moves from stock libp2p to the knock, and the word that says where it is.
//!
//! This is the file to copy. It goes when the network has moved.

use clap::ValueEnum;
use futures::future::{BoxFuture, FutureExt as _};
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::{Boxed, DialOpts, ListenerId, Transport, TransportError, TransportEvent};
use libp2p::core::upgrade::Version;
use libp2p::identity::Keypair;
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId, noise, tcp, yamux};
use libp2p_knock::is_knock_address;
use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::watch;

/// How long a stock dial waits for a knock at the same peer to succeed or to fail. A knock takes two round trips; the
/// rest of the ten seconds that libp2p gives the whole dial is for the stock transport.
const HEAD_START: Duration = Duration::from_secs(3);

/// Which connections a node makes and takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Stage {
    /// Stock TCP and Noise alone, as before: the way back.
    Stock,
    /// Both: whoever can be reached by knock is, everybody else as before. Neither silent nor safe from a downgrade.
    Prefer,
    /// The knock alone, as if the stock transport were not there.
    Require,
}

impl Stage {
    fn admits(self, address: &Multiaddr) -> bool {
        match self {
            Self::Stock => !is_knock_address(address),
            Self::Prefer => true,
            Self::Require => is_knock_address(address),
        }
    }

    /// Those of `addresses` to listen on. The others stay in the configuration, for the way back.
    pub(crate) fn admitted(self, mut addresses: Vec<Multiaddr>) -> Vec<Multiaddr> {
        addresses.retain(|address| {
            let admits = self.admits(address);
            if !admits {
                eprintln!("not listening on {address}: the stage is {self:?}");
            }
            admits
        });
        addresses
    }
}

/// Both transports, as `stage` allows.
pub(crate) fn both(key: &Keypair, stage: Stage) -> Result<Both, Box<dyn std::error::Error + Send + Sync>> {
    Ok(Both {
        stage,
        // What `SwarmBuilder::with_tcp` makes. What you gave to that goes here.
        stock: tcp::tokio::Transport::new(tcp::Config::default())
            .upgrade(Version::V1Lazy)
            .authenticate(noise::Config::new(key)?)
            .multiplex(yamux::Config::default())
            .boxed(),
        knock: libp2p_knock::tokio::Transport::new(libp2p_knock::Config::new(key)?)
            .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)))
            .boxed(),
        knocking: Knocking::default(),
    })
}

type Connection = (PeerId, StreamMuxerBox);

/// Stock TCP and the knock. libp2p starts all dials to a peer at once and takes the first that succeeds: side by side,
/// that is as often as not the stock one. Here a stock dial waits for the knocks at its peer.
pub(crate) struct Both {
    stage: Stage,
    stock: Boxed<Connection>,
    knock: Boxed<Connection>,
    knocking: Knocking,
}

impl Transport for Both {
    type Output = Connection;
    type Error = io::Error;
    type ListenerUpgrade = <Boxed<Connection> as Transport>::ListenerUpgrade;
    type Dial = BoxFuture<'static, io::Result<Connection>>;

    fn listen_on(&mut self, id: ListenerId, address: Multiaddr) -> Result<(), TransportError<io::Error>> {
        match (self.stage.admits(&address), is_knock_address(&address)) {
            (false, _) => Err(TransportError::MultiaddrNotSupported(address)),
            (true, true) => self.knock.listen_on(id, address),
            (true, false) => self.stock.listen_on(id, address),
        }
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.knock.remove_listener(id) || self.stock.remove_listener(id)
    }

    fn dial(&mut self, address: Multiaddr, opts: DialOpts) -> Result<Self::Dial, TransportError<io::Error>> {
        // Here and not where the program dials: behaviours dial too, whatever address they have heard of.
        if !self.stage.admits(&address) {
            return Err(TransportError::MultiaddrNotSupported(address));
        }
        let peer = match address.iter().last() {
            Some(Protocol::P2p(peer)) => Some(peer),
            _ => None,
        };
        if is_knock_address(&address) {
            let dial = self.knock.dial(address, opts)?;
            let under_way = peer.map(|peer| self.knocking.begin(peer));
            return Ok(async move {
                let result = dial.await;
                drop(under_way);
                result
            }
            .boxed());
        }
        let dial = self.stock.dial(address, opts)?;
        let knocking = self.knocking.clone();
        Ok(async move {
            // Asked when it is first polled, by when the Swarm has handed us every address of the peer.
            if let Some(peer) = peer {
                knocking.settled(&peer).await;
            }
            dial.await
        }
        .boxed())
    }

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<TransportEvent<Self::ListenerUpgrade, io::Error>> {
        let this = self.get_mut();
        match Pin::new(&mut this.knock).poll(cx) {
            Poll::Pending => Pin::new(&mut this.stock).poll(cx),
            ready => ready,
        }
    }
}

/// The peers that are being knocked at. Each dial holds its peer's sender; when the last one is gone, none is left.
#[derive(Clone, Default)]
struct Knocking(Arc<Mutex<HashMap<PeerId, Weak<watch::Sender<()>>>>>);

impl Knocking {
    fn begin(&self, peer: PeerId) -> Arc<watch::Sender<()>> {
        let mut peers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        peers.retain(|_, dials| dials.strong_count() > 0);
        if let Some(dials) = peers.get(&peer).and_then(Weak::upgrade) {
            return dials;
        }
        let dials = Arc::new(watch::Sender::new(()));
        peers.insert(peer, Arc::downgrade(&dials));
        dials
    }

    /// Waits until nobody knocks at `peer`, or until the head start is used up.
    async fn settled(&self, peer: &PeerId) {
        let dials = {
            let peers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            peers.get(peer).and_then(Weak::upgrade).map(|dials| dials.subscribe())
        };
        if let Some(mut dials) = dials {
            // Nothing is ever sent: this ends when the senders are gone.
            let _ = tokio::time::timeout(HEAD_START, dials.changed()).await;
        }
    }
}

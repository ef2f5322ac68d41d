//! This crate's manager, driven by hand as a Swarm would, on a clock that the test owns.

use crate::go::port;
use crate::history::PEERS;
use crate::naive::{DECAYING, INTERVALS, Link, Op, Reason, SECOND, Setting, TAGS, Time, Trimmed};
use futures::future::{Ready, ready};
use futures::io::Cursor;
use futures::task::noop_waker;
use libp2p::core::muxing::{StreamMuxer, StreamMuxerEvent};
use libp2p::core::transport::{DialOpts, ListenerId, PortUse, TransportError, TransportEvent};
use libp2p::core::{ConnectedPoint, Endpoint, Transport};
use libp2p::swarm::behaviour::{ConnectionClosed, ConnectionEstablished};
use libp2p::swarm::{CloseConnection, ConnectionId, DialError, DialFailure, FromSwarm, NetworkBehaviour as _, ToSwarm};
use libp2p::{Multiaddr, PeerId};
use libp2p_connmgr::count::{Muxer, Substream};
use libp2p_connmgr::{Behaviour, Bump, Config, Decay, DecayingTag, Event, InUse, Manager};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

pub(crate) struct Ours {
    behaviour: Behaviour,
    pub(crate) manager: Manager,
    start: Instant,
    /// Microseconds since the start.
    now: Arc<AtomicU64>,
    pub(crate) peers: Vec<PeerId>,
    tags: [DecayingTag; 2],
    transport: libp2p_connmgr::count::Transport<Stands>,
    /// By serial.
    pub(crate) conns: BTreeMap<usize, Conn>,
    told: BTreeSet<usize>,
    guards: Vec<Vec<InUse>>,
    dials: Vec<Vec<ConnectionId>>,
    next_dial: usize,
    slow: bool,
    pub(crate) trims: Vec<Trimmed>,
    /// Whether the last of them is still told of.
    goes_on: bool,
    woken: Arc<Woken>,
}

pub(crate) struct Conn {
    pub(crate) peer: usize,
    pub(crate) endpoint: ConnectedPoint,
    // Counted for as long as they live.
    _muxer: Muxer<Stand>,
    _streams: Vec<Substream<Cursor<Vec<u8>>>>,
}

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl Ours {
    pub(crate) fn new(setting: Setting) -> Self {
        let (start, now) = (Instant::now(), Arc::new(AtomicU64::new(0)));
        let time = now.clone();
        let config = Config::new(setting.low, setting.high)
            .unwrap()
            .with_grace_period(Duration::from_micros(setting.grace))
            .with_silence_period(Duration::from_micros(setting.silence))
            .unwrap()
            .with_close_deadline(Duration::from_micros(setting.close_deadline))
            .with_decay_resolution(Duration::from_micros(setting.resolution))
            .with_early_tags(Duration::from_micros(setting.early_for), 1_000_000)
            .with_clock(move || start + Duration::from_micros(time.load(Ordering::SeqCst)));
        let (behaviour, manager) = libp2p_connmgr::new(config);
        let tags = [0, 1].map(|tag| register(&manager, tag));
        Self {
            transport: manager.count(Stands::default()),
            behaviour,
            manager,
            start,
            now,
            peers: (0..PEERS).map(|_| PeerId::random()).collect(),
            tags,
            conns: BTreeMap::new(),
            told: BTreeSet::new(),
            guards: vec![Vec::new(); PEERS],
            dials: vec![Vec::new(); PEERS],
            next_dial: 1_000_000,
            slow: setting.slow,
            trims: Vec::new(),
            goes_on: false,
            woken: Arc::new(Woken(AtomicBool::new(false))),
        }
    }

    pub(crate) fn at(&self, instant: Instant) -> Time {
        u64::try_from((instant - self.start).as_micros()).unwrap()
    }

    pub(crate) fn pass(&mut self, time: Time) {
        self.now.fetch_add(time, Ordering::SeqCst);
        self.run();
    }

    /// What an unprotect returned, if it was one.
    pub(crate) fn apply(&mut self, serial: usize, op: Op) -> Option<bool> {
        let manager = self.manager.clone();
        let id = |peer: usize| self.peers[peer];
        match op {
            Op::Tag(peer, tag, value) => manager.tag_peer(&id(peer), TAGS[tag], value),
            Op::Untag(peer, tag) => manager.untag_peer(&id(peer), TAGS[tag]),
            Op::Upsert(peer, tag, by) => manager.upsert_tag(&id(peer), TAGS[tag], |old| old + by),
            Op::Protect(peer, tag) => manager.protect(&id(peer), TAGS[tag]),
            Op::Unprotect(peer, tag) => {
                let still = manager.unprotect(&id(peer), TAGS[tag]);
                self.run();
                return Some(still);
            }
            Op::Guard(peer) => {
                let guard = manager.in_use(&id(peer));
                self.guards[peer].push(guard);
            }
            Op::Unguard(peer) => drop(self.guards[peer].pop()),
            // After a close they say so.
            Op::Bump(peer, tag, by) => drop(self.tags[tag].bump(&id(peer), by)),
            Op::Remove(peer, tag) => drop(self.tags[tag].remove(&id(peer))),
            Op::Reset(tag) => {
                if let Some(again) = {
                    self.tags[tag].close();
                    try_register(&manager, tag)
                } {
                    self.tags[tag] = again;
                }
            }
            Op::Connect(peer, link) => self.connect(serial, peer, link),
            Op::Disconnect(peer) => {
                let oldest = self.conns.iter().find(|(_, conn)| conn.peer == peer);
                if let Some(serial) = oldest.map(|(serial, _)| *serial) {
                    self.gone(serial);
                }
            }
            Op::Release(connections) => {
                for _ in 0..connections {
                    if let Some(oldest) = self.told.first().copied() {
                        self.gone(oldest);
                        self.run();
                    }
                }
            }
            Op::BeginDial(peer) => {
                let dial = ConnectionId::new_unchecked(self.next_dial);
                self.next_dial += 1;
                self.behaviour
                    .handle_pending_outbound_connection(dial, Some(self.peers[peer]), &[], Endpoint::Dialer)
                    .unwrap();
                self.dials[peer].push(dial);
            }
            Op::EndDial(peer) => {
                if let Some(connection_id) = self.dials[peer].pop() {
                    self.behaviour.on_swarm_event(FromSwarm::DialFailure(DialFailure {
                        peer_id: Some(self.peers[peer]),
                        error: &DialError::Aborted,
                        connection_id,
                    }));
                }
            }
            Op::Trim => drop(manager.trim_open_conns()),
            Op::ForceTrim => drop(manager.force_trim()),
            Op::Close => manager.close(),
            Op::Wait(_) | Op::Jump(_) | Op::Back(_) => unreachable!("time passes elsewhere"),
        }
        self.run();
        None
    }

    fn connect(&mut self, serial: usize, peer: usize, link: Link) {
        let (id, peer_id) = (ConnectionId::new_unchecked(serial), self.peers[peer]);
        let address: Multiaddr = format!("/ip4/127.0.0.1/udp/{}", port(serial)).parse().unwrap();
        let endpoint = if link.dialled {
            ConnectedPoint::Dialer {
                address: address.clone(),
                role_override: Endpoint::Dialer,
                port_use: PortUse::Reuse,
            }
        } else {
            ConnectedPoint::Listener {
                local_addr: "/ip4/127.0.0.1/udp/9".parse().unwrap(),
                send_back_addr: address.clone(),
            }
        };
        let mut muxer = self.counted(peer_id, &endpoint, address);
        let mut cx = Context::from_waker(Waker::noop());
        let streams = (0..link.streams.unwrap_or(0)).map(|_| match Pin::new(&mut muxer).poll_outbound(&mut cx) {
            Poll::Ready(Ok(stream)) => stream,
            other => unreachable!("{other:?}"),
        });
        let streams = streams.collect();
        match &endpoint {
            ConnectedPoint::Dialer { address, .. } => drop(
                self.behaviour
                    .handle_established_outbound_connection(id, peer_id, address, Endpoint::Dialer, PortUse::Reuse)
                    .unwrap(),
            ),
            ConnectedPoint::Listener {
                local_addr,
                send_back_addr,
            } => drop(
                self.behaviour
                    .handle_established_inbound_connection(id, peer_id, local_addr, send_back_addr)
                    .unwrap(),
            ),
        }
        self.behaviour
            .on_swarm_event(FromSwarm::ConnectionEstablished(ConnectionEstablished {
                peer_id,
                connection_id: id,
                endpoint: &endpoint,
                failed_addresses: &[],
                other_established: 0,
            }));
        self.conns.insert(
            serial,
            Conn {
                peer,
                endpoint,
                _muxer: muxer,
                _streams: streams,
            },
        );
    }

    /// A connection that comes out of the transport that counts.
    fn counted(&mut self, peer: PeerId, endpoint: &ConnectedPoint, address: Multiaddr) -> Muxer<Stand> {
        let waker = noop_waker();
        let mut cx = Context::from_waker(&waker);
        let connected = if endpoint.is_dialer() {
            let dial = DialOpts {
                role: Endpoint::Dialer,
                port_use: PortUse::Reuse,
            };
            let address = address.with_p2p(peer).unwrap();
            let mut dial = self.transport.dial(address, dial).unwrap();
            Pin::new(&mut dial).poll(&mut cx)
        } else {
            // The inner transport reports what it listens at as having dialled.
            self.transport
                .listen_on(ListenerId::next(), address.with_p2p(peer).unwrap())
                .unwrap();
            match Pin::new(&mut self.transport).poll(&mut cx) {
                Poll::Ready(TransportEvent::Incoming { mut upgrade, .. }) => Pin::new(&mut upgrade).poll(&mut cx),
                other => unreachable!("{other:?}"),
            }
        };
        match connected {
            Poll::Ready(Ok((_, muxer))) => muxer,
            Poll::Ready(Err(never)) => match never {},
            Poll::Pending => unreachable!("a stand-in is there at once"),
        }
    }

    fn gone(&mut self, serial: usize) {
        self.told.remove(&serial);
        let Some(conn) = self.conns.remove(&serial) else { return };
        self.behaviour
            .on_swarm_event(FromSwarm::ConnectionClosed(ConnectionClosed {
                peer_id: self.peers[conn.peer],
                connection_id: ConnectionId::new_unchecked(serial),
                endpoint: &conn.endpoint,
                cause: None,
                remaining_established: 0,
            }));
    }

    fn tell(&mut self, serials: Vec<usize>) {
        for serial in serials {
            if self.slow {
                self.told.insert(serial);
            } else {
                self.gone(serial);
            }
        }
    }

    /// Polls until there is nothing to be done before the clock moves.
    pub(crate) fn run(&mut self) {
        loop {
            self.woken.0.store(false, Ordering::SeqCst);
            let waker = Waker::from(self.woken.clone());
            match self.behaviour.poll(&mut Context::from_waker(&waker)) {
                Poll::Pending if self.woken.0.load(Ordering::SeqCst) => {}
                Poll::Pending => return,
                Poll::Ready(ToSwarm::GenerateEvent(event)) => self.note(event),
                Poll::Ready(ToSwarm::CloseConnection { peer_id, connection }) => {
                    let peer = self.peers.iter().position(|known| *known == peer_id).unwrap();
                    let of = |serial: usize| match connection {
                        CloseConnection::All => true,
                        CloseConnection::One(id) => id == ConnectionId::new_unchecked(serial),
                    };
                    let all = self
                        .conns
                        .iter()
                        .filter(|(serial, conn)| conn.peer == peer && of(**serial));
                    let serials = all.map(|(serial, _)| *serial).collect();
                    self.tell(serials);
                }
                Poll::Ready(_) => {}
            }
        }
    }

    fn note(&mut self, event: Event) {
        let Event::Trimmed { peer, reason, .. } = event else {
            self.goes_on = false;
            return;
        };
        let peer = self.peers.iter().position(|known| *known == peer).unwrap();
        let at = self.now.load(Ordering::SeqCst);
        let reason = match reason {
            libp2p_connmgr::Reason::HighWatermark => Reason::HighWatermark,
            libp2p_connmgr::Reason::OnDemand => Reason::OnDemand,
            libp2p_connmgr::Reason::Pressure => Reason::Pressure,
            other => unreachable!("{other}"),
        };
        if !std::mem::replace(&mut self.goes_on, true) {
            let peers = Vec::new();
            self.trims.push(Trimmed { at, peers, reason });
        }
        self.trims.last_mut().unwrap().peers.push(peer);
    }
}

fn try_register(manager: &Manager, tag: usize) -> Option<DecayingTag> {
    let (decay, bump) = match tag {
        0 => (Decay::fixed(3), Bump::sum_unbounded()),
        _ => (Decay::linear(0.5), Bump::overwrite()),
    };
    let interval = Duration::from_micros(INTERVALS[tag]);
    manager.register_decaying_tag(DECAYING[tag], interval, decay, bump).ok()
}

fn register(manager: &Manager, tag: usize) -> DecayingTag {
    try_register(manager, tag).unwrap()
}

/// A transport whose connections stand in for real ones, as in go-libp2p's own tests. What listens
/// at an address has been dialled from there.
#[derive(Default)]
struct Stands(VecDeque<(ListenerId, Multiaddr)>);

fn stand(address: &Multiaddr) -> Ready<Result<(PeerId, Stand), Infallible>> {
    let peer = address.iter().find_map(|part| match part {
        libp2p::multiaddr::Protocol::P2p(peer) => Some(peer),
        _ => None,
    });
    ready(Ok((peer.unwrap(), Stand)))
}

impl Transport for Stands {
    type Output = (PeerId, Stand);
    type Error = Infallible;
    type ListenerUpgrade = Ready<Result<(PeerId, Stand), Infallible>>;
    type Dial = Self::ListenerUpgrade;

    fn listen_on(&mut self, id: ListenerId, address: Multiaddr) -> Result<(), TransportError<Infallible>> {
        self.0.push_back((id, address));
        Ok(())
    }

    fn remove_listener(&mut self, _: ListenerId) -> bool {
        false
    }

    fn dial(&mut self, address: Multiaddr, _: DialOpts) -> Result<Self::Dial, TransportError<Infallible>> {
        Ok(stand(&address))
    }

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<TransportEvent<Self::ListenerUpgrade, Infallible>> {
        let Some((listener_id, address)) = self.0.pop_front() else {
            return Poll::Pending;
        };
        Poll::Ready(TransportEvent::Incoming {
            listener_id,
            upgrade: stand(&address),
            local_addr: address.clone(),
            send_back_addr: address,
        })
    }
}

/// A muxer whose streams are empty.
struct Stand;

impl StreamMuxer for Stand {
    type Substream = Cursor<Vec<u8>>;
    type Error = Infallible;

    fn poll_inbound(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<Self::Substream, Infallible>> {
        Poll::Pending
    }

    fn poll_outbound(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<Self::Substream, Infallible>> {
        Poll::Ready(Ok(Cursor::new(Vec::new())))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<StreamMuxerEvent, Infallible>> {
        Poll::Pending
    }
}

/// Half a second: operations lie between the full ones.
pub(crate) const HALF: Time = SECOND / 2;

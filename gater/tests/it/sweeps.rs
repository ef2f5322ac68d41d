//! The behaviour by itself, called as a Swarm would call it.

use futures::task::{ArcWake, waker};
use libp2p::core::transport::{DialOpts, ListenerId, PortUse, TransportError, TransportEvent};
use libp2p::core::{ConnectedPoint, Endpoint};
use libp2p::swarm::behaviour::{AddressChange, ConnectionEstablished};
use libp2p::swarm::{ConnectionId, FromSwarm, NetworkBehaviour as _, ToSwarm};
use libp2p::{Multiaddr, PeerId, Transport as _};
use libp2p_gater::{Behaviour, Cidr, Event, Gate, Rules, Stage};
use std::collections::HashSet;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use crate::common::soon;
use crate::parts::{Endless, opts};
use crate::recorder::Recorder;

#[derive(Default)]
struct Woken(AtomicUsize);

impl ArcWake for Woken {
    fn wake_by_ref(this: &Arc<Self>) {
        this.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn dialled(address: &str) -> ConnectedPoint {
    ConnectedPoint::Dialer {
        address: address.parse().unwrap(),
        role_override: Endpoint::Dialer,
        port_use: PortUse::Reuse,
    }
}

fn establish(behaviour: &mut Behaviour, id: usize) -> PeerId {
    let (connection_id, peer_id) = (ConnectionId::new_unchecked(id), PeerId::random());
    let endpoint = dialled(&format!("/ip4/192.0.2.1/tcp/{}", 1 + id % 60_000));
    behaviour.on_swarm_event(FromSwarm::ConnectionEstablished(ConnectionEstablished {
        peer_id,
        connection_id,
        endpoint: &endpoint,
        failed_addresses: &[],
        other_established: 0,
    }));
    peer_id
}

#[test]
fn many_connections_are_judged_again_in_bounded_turns_and_each_is_closed_once() {
    let policy = Recorder::default();
    let mut behaviour = Gate::new(policy.clone()).behaviour();
    let peers: HashSet<_> = (0..1000).map(|id| establish(&mut behaviour, id)).collect();
    let woken = Arc::new(Woken::default());
    let waker = waker(woken.clone());
    let mut cx = Context::from_waker(&waker);
    assert!(behaviour.poll(&mut cx).is_pending());

    policy.tighten(|asked| asked.stage == Stage::Live);
    assert_eq!(woken.0.load(Ordering::SeqCst), 1, "whoever polls is woken");
    let (mut closing, mut most, mut before) = (HashSet::new(), 0, 0);
    loop {
        let polled = behaviour.poll(&mut cx);
        let asked = policy.asked().len();
        most = most.max(asked - before);
        before = asked;
        match polled {
            Poll::Ready(ToSwarm::GenerateEvent(Event::Closing { peer, .. })) => {
                assert!(closing.insert(peer), "announced twice");
            }
            Poll::Ready(_) => {}
            Poll::Pending => break,
        }
    }
    assert_eq!(closing, peers);
    assert_eq!(policy.asked().len(), 1000, "each is judged once");
    assert!(most <= 256, "{most} in one turn");

    // Nothing changes: nobody is asked again.
    assert!(behaviour.poll(&mut cx).is_pending());
    assert_eq!(policy.asked().len(), 1000);
    // Rung again, those that are being closed are not.
    policy.tighten(|_| true);
    while behaviour.poll(&mut cx).is_ready() {}
    assert_eq!(policy.asked().len(), 1000);
}

/// No transport of rust-libp2p 0.57 moves a connection, so no Swarm can be made to say that one has moved.
#[test]
fn a_connection_that_moves_to_a_blocked_address_is_closed() {
    let rules = Rules::new();
    rules
        .change(|change| change.block("198.51.100.0/24".parse::<Cidr>().unwrap()))
        .unwrap();
    let mut behaviour = Gate::new(rules).behaviour();
    let woken = waker(Arc::new(Woken::default()));
    let mut cx = Context::from_waker(&woken);
    let peers = [establish(&mut behaviour, 0), establish(&mut behaviour, 1)];
    let mut moves = |behaviour: &mut Behaviour, id: usize, to: &str| {
        behaviour.on_swarm_event(FromSwarm::AddressChange(AddressChange {
            peer_id: peers[id],
            connection_id: ConnectionId::new_unchecked(id),
            old: &dialled("/ip4/192.0.2.1/udp/1/quic-v1"),
            new: &dialled(to),
        }));
        let mut closing = Vec::new();
        while let Poll::Ready(action) = behaviour.poll(&mut cx) {
            if let ToSwarm::GenerateEvent(Event::Closing { peer, reason, .. }) = action {
                closing.push((peer, reason.rule().to_owned()));
            }
        }
        closing
    };
    assert_eq!(moves(&mut behaviour, 0, "/ip4/192.0.2.2/udp/1/quic-v1"), []);
    let blocked = "block_network".to_owned();
    assert_eq!(
        moves(&mut behaviour, 0, "/ip4/198.51.100.7/udp/1/quic-v1"),
        [(peers[0], blocked.clone())]
    );
    assert_eq!(
        moves(&mut behaviour, 0, "/ip4/198.51.100.8/udp/1/quic-v1"),
        [],
        "it is being closed"
    );
    assert_eq!(
        moves(&mut behaviour, 1, "/ip4/198.51.100.8/udp/1/quic-v1"),
        [(peers[1], blocked)]
    );
}

#[test]
fn a_gate_without_a_behaviour_keeps_nothing_and_one_whose_swarm_is_gone_neither() {
    let gate = Gate::new(Recorder::default());
    let (peer, id) = (PeerId::random(), ConnectionId::new_unchecked(1));
    gate.closer()(peer, id, "nobody is there");
    drop(gate.behaviour());
    gate.closer()(peer, id, "nobody is there any more");
    let woken = Arc::new(Woken::default());
    let waker = waker(woken);
    assert!(gate.behaviour().poll(&mut Context::from_waker(&waker)).is_pending());
}

/// Accepts without end.
struct Flood(Arc<AtomicUsize>);

impl libp2p::Transport for Flood {
    type Output = ();
    type Error = std::io::Error;
    type ListenerUpgrade = std::future::Ready<std::io::Result<()>>;
    type Dial = std::future::Ready<std::io::Result<()>>;

    fn listen_on(&mut self, _: ListenerId, address: Multiaddr) -> Result<(), TransportError<Self::Error>> {
        Err(TransportError::MultiaddrNotSupported(address))
    }

    fn remove_listener(&mut self, _: ListenerId) -> bool {
        false
    }

    fn dial(&mut self, address: Multiaddr, _: DialOpts) -> Result<Self::Dial, TransportError<Self::Error>> {
        Err(TransportError::MultiaddrNotSupported(address))
    }

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<TransportEvent<Self::ListenerUpgrade, Self::Error>> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Poll::Ready(TransportEvent::Incoming {
            listener_id: ListenerId::next(),
            upgrade: std::future::ready(Ok(())),
            local_addr: "/ip4/192.0.2.1/tcp/1".parse().unwrap(),
            send_back_addr: "/ip4/192.0.2.2/tcp/2".parse().unwrap(),
        })
    }
}

#[tokio::test]
async fn a_flood_of_refusals_gives_way_to_others_after_two_and_goes_on() {
    let policy = Recorder::default();
    policy.deny(|asked| asked.stage == Stage::Accept);
    let accepted = Arc::new(AtomicUsize::new(0));
    let mut transport = Gate::new(policy).transport(Flood(accepted.clone()));
    let (mut turns, mut most, mut before) = (0, 0, 0);
    soon(
        "twenty refusals",
        std::future::poll_fn(|cx| {
            assert!(Pin::new(&mut transport).poll(cx).is_pending(), "nothing is let in");
            let now = accepted.load(Ordering::SeqCst);
            turns += 1;
            most = most.max(now - before);
            before = now;
            // Nobody polls again but whoever is woken.
            if now < 20 { Poll::Pending } else { Poll::Ready(()) }
        }),
    )
    .await;
    assert_eq!(most, 2, "in {turns} turns");
}

/// A trim of many connections beside many handshakes.
#[test]
fn what_a_closer_closes_wakes_the_behaviour_and_none_of_the_handshakes() {
    const MANY: usize = 100;
    let gate = Gate::new(Recorder::default());
    let mut behaviour = gate.behaviour();
    let own = Arc::new(Woken::default());
    let (own_waker, count) = (waker(own.clone()), |woken: &Arc<Woken>| woken.0.load(Ordering::SeqCst));
    assert!(behaviour.poll(&mut Context::from_waker(&own_waker)).is_pending());

    let inner = Endless::default();
    let mut transport = gate.transport(inner.clone());
    let (mut dials, mut upgrades, mut woken) = (Vec::new(), Vec::new(), Vec::new());
    let nobody = futures::task::noop_waker();
    for n in 0..MANY {
        let (local, remote) = ("/ip4/192.0.2.1/tcp/1", format!("/ip4/198.51.100.1/tcp/{}", n + 1));
        let remote: Multiaddr = remote.parse().unwrap();
        dials.push(Box::pin(transport.dial(remote.clone(), opts()).unwrap()));
        inner.comes_in(&local.parse().unwrap(), &remote);
        let Poll::Ready(TransportEvent::Incoming { upgrade, .. }) =
            Pin::new(&mut transport).poll(&mut Context::from_waker(&nobody))
        else {
            panic!("not let in");
        };
        upgrades.push(Box::pin(upgrade));
    }
    for (dial, upgrade) in dials.iter_mut().zip(&mut upgrades) {
        let (out, inwards) = (Arc::new(Woken::default()), Arc::new(Woken::default()));
        assert!(
            dial.as_mut()
                .poll(&mut Context::from_waker(&waker(out.clone())))
                .is_pending()
        );
        assert!(
            upgrade
                .as_mut()
                .poll(&mut Context::from_waker(&waker(inwards.clone())))
                .is_pending()
        );
        woken.extend([out, inwards]);
    }

    let peers: Vec<_> = (0..MANY).map(|id| establish(&mut behaviour, id)).collect();
    let closer = gate.closer();
    for (id, peer) in peers.iter().enumerate() {
        closer(*peer, ConnectionId::new_unchecked(id), "watermark");
    }
    assert_eq!(
        woken.iter().map(count).sum::<usize>(),
        0,
        "handshakes have no part in it"
    );
    assert!((1..=MANY).contains(&count(&own)), "{}", count(&own));

    let before = count(&own);
    gate.recheck();
    assert!(
        woken.iter().all(|woken| count(woken) == 1),
        "a tightened rule wakes each once"
    );
    assert_eq!(count(&own), before + 1);
}

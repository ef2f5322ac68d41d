//! The README's table, cell by cell: at each stage that is denied, what had been sent by then. Each test reads its cell in
//! the README and shows that it is true, in both directions where the stage has two.

use crate::common::soon;
use crate::nodes::{Event, Node, Parts, Stack, behind_wire};
use crate::recorder::Asked;
use libp2p::relay;
use libp2p::swarm::{DialError, SwarmEvent};
use libp2p_gater::{Denied, Direction, Stage, TransportKind};
use std::time::Duration;

const README: &str = include_str!("../../README.md");

/// The stages, in the order of the table's columns.
const COLUMNS: [Stage; 6] = [
    Stage::PeerDial,
    Stage::AddrDial,
    Stage::Accept,
    Stage::Knock,
    Stage::Secured,
    Stage::Upgraded,
];

/// What the table says in the row of `stack` with `parts`, under `stage`.
fn cell(stack: Stack, parts: Parts, stage: Stage) -> String {
    let name = match stack {
        Stack::Knock => "knock",
        Stack::Tcp => "TCP + Noise",
        Stack::Quic => "QUIC",
        Stack::WebSocket => "WebSocket",
        Stack::Relay => "relay",
    };
    let installed = match (stack, parts.transport, parts.beneath, parts.hooks) {
        (_, false, false, false) => "behaviour",
        (Stack::Knock, false, false, true) => "behaviour, hooks",
        (Stack::Knock, true, false, true) => "behaviour, hooks, transport",
        (Stack::Knock, false, true, true) => "behaviour, hooks, transport beneath",
        (Stack::Relay, false, true, false) => "behaviour, transport behind it",
        (_, true, false, false) => "behaviour, transport",
        (_, false, false, true) => "behaviour, upgrade",
        (_, true, false, true) => "behaviour, upgrade, transport",
        _ => panic!("the table has no row for {parts:?}"),
    };
    let column = COLUMNS.iter().position(|&of| of == stage).expect("a column");
    let row = README
        .lines()
        .filter(|line| line.starts_with('|'))
        .map(|line| line.split('|').map(str::trim).collect::<Vec<_>>())
        .find(|row| row.get(1) == Some(&name) && row.get(2).is_some_and(|cell| cell.replace('`', "") == installed))
        .unwrap_or_else(|| panic!("the README has no row {name}, {installed}"));
    row[3 + column].to_owned()
}

fn kind(stack: Stack) -> TransportKind {
    match stack {
        Stack::Knock => TransportKind::Knock,
        Stack::Tcp => TransportKind::Tcp,
        Stack::Quic => TransportKind::Quic,
        Stack::WebSocket => TransportKind::WebSocket,
        Stack::Relay => TransportKind::Relayed,
    }
}

/// Two nodes, a relay between them where there is one, and a dial.
struct World {
    dialer: Node,
    listener: Node,
    relay: Option<Node>,
    /// Circuits that the relay has made.
    circuits: u64,
    wire: crate::wire::Wire,
    address: libp2p::Multiaddr,
    kind: TransportKind,
}

impl World {
    async fn new(stack: Stack, parts: Parts) -> Self {
        let (dialer, mut listener) = (Node::new(stack, parts), Node::new(stack, parts));
        let mut relay = None;
        let address = match stack {
            Stack::Relay => {
                let mut between = Node::relay();
                let at = between.listen().await;
                between.swarm.add_external_address(at.clone());
                let circuit = listener.reserve(&mut between, &at).await;
                relay = Some(between);
                circuit
            }
            _ => listener.listen().await,
        };
        let (address, wire) = match stack {
            // The dialer's connection to the relay is there in any case.
            Stack::Relay => (address.clone(), behind_wire(&address).await.1),
            _ => behind_wire(&address).await,
        };
        Self {
            dialer,
            listener,
            relay,
            circuits: 0,
            wire,
            address,
            kind: kind(stack),
        }
    }

    fn dial(&mut self) -> Result<(), DialError> {
        let target = self.listener.peer;
        self.dialer.dial(&self.address, target)
    }

    /// What happens next, at either end.
    async fn next(&mut self) -> (Direction, Event) {
        loop {
            let relay = async {
                match &mut self.relay {
                    Some(relay) => relay.next().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                event = self.dialer.next() => return (Direction::Outbound, event),
                event = self.listener.next() => return (Direction::Inbound, event),
                event = relay => if let SwarmEvent::Behaviour(crate::nodes::BehaviourEvent::Relay(
                    relay::Event::CircuitReqAccepted { .. },
                )) = event {
                    self.circuits += 1;
                }
            }
        }
    }

    /// What one end was asked about the connection that the test is about, and not about the one to a relay.
    fn asked(&self, direction: Direction) -> Vec<Asked> {
        let (node, other) = match direction {
            Direction::Outbound => (&self.dialer, self.listener.peer),
            Direction::Inbound => (&self.listener, self.dialer.peer),
        };
        let mut asked = node.policy.asked();
        asked.retain(|asked| asked.kind == self.kind || asked.stage == Stage::PeerDial && asked.peer == Some(other));
        asked.retain(|asked| asked.direction == direction);
        asked
    }
}

fn stages(asked: &[Asked]) -> Vec<Stage> {
    asked.iter().map(|asked| asked.stage).collect()
}

/// Nobody denies anything: every stage that the row has is asked once, at each end.
async fn all(stack: Stack, parts: Parts) {
    let mut world = World::new(stack, parts).await;
    world.dial().unwrap();
    let mut up = [false; 2];
    let about = kind(stack);
    while up != [true; 2] {
        let (direction, event) = soon("both ends connected", world.next()).await;
        if let SwarmEvent::ConnectionEstablished { endpoint, .. } = event
            && (about != TransportKind::Relayed || endpoint.is_relayed())
        {
            up[usize::from(direction == Direction::Inbound)] = true;
        }
    }
    let mut out = stages(&world.asked(Direction::Outbound));
    let mut inwards = stages(&world.asked(Direction::Inbound));
    let has = |stage| cell(stack, parts, stage) != "—";
    // What knocks is asked about before the transport round it yields it.
    out.sort();
    inwards.sort();
    let expected = |all: &[Stage]| all.iter().copied().filter(|&stage| has(stage)).collect::<Vec<_>>();
    assert_eq!(
        out,
        expected(&[Stage::PeerDial, Stage::AddrDial, Stage::Secured, Stage::Upgraded])
    );
    assert_eq!(
        inwards,
        expected(&[Stage::Accept, Stage::Knock, Stage::Secured, Stage::Upgraded])
    );
}

/// One end denies at one stage: the other end has seen what the cell says, and nothing is asked after that.
async fn denial(stack: Stack, parts: Parts, stage: Stage, direction: Direction) {
    let cell = cell(stack, parts, stage);
    let mut world = World::new(stack, parts).await;
    let about = kind(stack);
    let (denier, other) = match direction {
        Direction::Outbound => (&world.dialer, world.listener.peer),
        Direction::Inbound => (&world.listener, world.dialer.peer),
    };
    let policy = denier.policy.clone();
    policy.deny(move |asked| {
        asked.stage == stage
            && (asked.kind == about || stage == Stage::PeerDial && asked.peer == Some(other))
            && asked.direction == direction
    });
    let dialled = world.dial();
    if cell == "—" {
        // It is not asked there: the connection comes about.
        loop {
            let (at, event) = soon("connected, as nobody was asked", world.next()).await;
            if at == direction
                && matches!(event, SwarmEvent::ConnectionEstablished { endpoint, .. }
                    if about != TransportKind::Relayed || endpoint.is_relayed())
            {
                break;
            }
        }
        assert!(!policy.has_denied(), "{:?}", policy.asked());
        return;
    }
    // To whoever knocks in vain the port stays silent, for longer than a test wants to wait.
    let silent = stage == Stage::Knock;
    let mut over = dialled.is_err();
    let mut found = dialled.err().and_then(|error| Denied::in_dial(&error).cloned());
    while !(policy.has_denied() && (over || silent)) {
        // At whichever end: what follows a denial is that the dialer's attempt is over.
        let (at, event) = soon("a denial, and the end of the dial", world.next()).await;
        match event {
            SwarmEvent::ConnectionEstablished { endpoint, .. } if at == direction => {
                let other = about == TransportKind::Relayed && !endpoint.is_relayed();
                assert!(other, "the end that denies is connected");
            }
            SwarmEvent::OutgoingConnectionError { error, .. } if at == Direction::Outbound => {
                over = true;
                found = found.or_else(|| Denied::in_dial(&error).cloned());
            }
            SwarmEvent::IncomingConnectionError { error, .. } if at == Direction::Inbound => {
                found = found.or_else(|| Denied::in_listen(&error).cloned());
            }
            SwarmEvent::ConnectionClosed { endpoint, .. }
                if about != TransportKind::Relayed || endpoint.is_relayed() =>
            {
                over = true;
            }
            _ => {}
        }
    }
    let asked = world.asked(direction);
    let denied: Vec<_> = asked.iter().filter(|asked| asked.denied).collect();
    assert_eq!(denied.len(), 1, "{asked:?}");
    assert!(asked.last().is_some_and(|last| last.denied), "{asked:?}");
    if direction == Direction::Outbound {
        let found = found.expect("the error of the dial shows who denied it");
        assert_eq!((found.stage, found.reason.rule()), (stage, "told-to"));
    }
    let early = !denied[0].in_swarm;
    let sent = match direction {
        Direction::Outbound => world.wire.up(),
        Direction::Inbound => world.wire.down(),
    };
    match cell.as_str() {
        "nothing" => {
            // Whatever was begun in spite of it would be under way by then.
            let _ = tokio::time::timeout(Duration::from_millis(50), async {
                loop {
                    world.next().await;
                }
            })
            .await;
            assert_eq!((world.wire.connections(), world.circuits), (0, 0));
            assert_eq!(
                world
                    .dialer
                    .swarm
                    .network_info()
                    .connection_counters()
                    .num_connections(),
                0
            );
        }
        // A connection, to which this end has said nothing.
        "socket" => assert_eq!((world.wire.connections(), sent), (1, 0)),
        // The same, and the other end has knocked.
        "knock" => {
            assert_eq!((world.wire.connections(), sent), (1, 0));
            assert!(world.wire.up() > 0);
        }
        // QUIC's own: the listener may have answered already.
        "flight" => assert!(world.wire.up() > 0 && (early == parts.transport)),
        // The relay has asked, and has had no answer.
        "request" => assert_eq!(world.circuits, 0),
        // No muxer yet.
        "handshake" => assert!(early && (sent > 0 || world.circuits == 1), "{sent}"),
        "connection" => assert!(!early && (sent > 0 || world.circuits == 1), "{sent}"),
        other => panic!("the README's table says {other:?}"),
    }
}

macro_rules! rows {
    ($($(#[$doc:meta])* $row:ident: $stack:ident, { $($part:ident),* };)*) => {$(
        $(#[$doc])*
        mod $row {
            use super::{Direction, Parts, Stack, Stage, all, denial};

            const STACK: Stack = Stack::$stack;

            fn parts() -> Parts {
                #[allow(clippy::needless_update, reason = "some rows name every part")]
                Parts { $($part: true,)* ..Parts::default() }
            }

            #[tokio::test]
            async fn every_stage_is_asked_once() {
                all(STACK, parts()).await;
            }

            #[tokio::test]
            async fn denied_at_peer_dial() {
                denial(STACK, parts(), Stage::PeerDial, Direction::Outbound).await;
            }

            #[tokio::test]
            async fn denied_at_address_dial() {
                denial(STACK, parts(), Stage::AddrDial, Direction::Outbound).await;
            }

            #[tokio::test]
            async fn denied_at_accept() {
                denial(STACK, parts(), Stage::Accept, Direction::Inbound).await;
            }

            #[tokio::test]
            async fn denied_at_knock() {
                denial(STACK, parts(), Stage::Knock, Direction::Inbound).await;
            }

            #[tokio::test]
            async fn denied_at_secured_outbound() {
                denial(STACK, parts(), Stage::Secured, Direction::Outbound).await;
            }

            #[tokio::test]
            async fn denied_at_secured_inbound() {
                denial(STACK, parts(), Stage::Secured, Direction::Inbound).await;
            }

            #[tokio::test]
            async fn denied_at_upgraded_outbound() {
                denial(STACK, parts(), Stage::Upgraded, Direction::Outbound).await;
            }

            #[tokio::test]
            async fn denied_at_upgraded_inbound() {
                denial(STACK, parts(), Stage::Upgraded, Direction::Inbound).await;
            }
        }
    )*};
}

rows! {
    over_knock_with_the_behaviour_alone: Knock, {};
    over_knock_with_the_hooks: Knock, { hooks };
    over_knock_with_the_transport: Knock, { transport };
    over_knock_with_hooks_and_transport: Knock, { hooks, transport };
    over_knock_with_hooks_and_the_transport_beneath: Knock, { hooks, beneath };
    over_tcp_with_the_behaviour_alone: Tcp, {};
    over_tcp_with_the_upgrade: Tcp, { hooks };
    over_tcp_with_the_transport: Tcp, { transport };
    over_tcp_with_upgrade_and_transport: Tcp, { hooks, transport };
    over_quic_with_the_behaviour_alone: Quic, {};
    over_quic_with_the_transport: Quic, { transport };
    over_websocket_with_the_behaviour_alone: WebSocket, {};
    over_websocket_with_the_upgrade: WebSocket, { hooks };
    over_websocket_with_the_transport: WebSocket, { transport };
    over_websocket_with_upgrade_and_transport: WebSocket, { hooks, transport };
    through_a_relay_with_the_behaviour_alone: Relay, {};
    through_a_relay_in_front_of_the_transport: Relay, { beneath };
    through_a_relay_with_the_upgrade: Relay, { hooks };
    through_a_relay_inside_the_transport: Relay, { transport };
    through_a_relay_with_upgrade_inside_the_transport: Relay, { hooks, transport };
}

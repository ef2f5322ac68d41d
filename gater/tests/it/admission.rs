//! Hooks that a gate asks beside its policy, as a connection manager gives one.

use crate::common::soon;
use crate::nodes::{End, Node, Parts, Stack, connect, next_of};
use libp2p::PeerId;
use libp2p::core::ConnectedPoint;
use libp2p::swarm::{ListenError, SwarmEvent};
use libp2p_gater::{Denied, Gate, Reason, Rule, Stage};
use std::sync::{Arc, Mutex};

type Answer = Result<(), Box<dyn std::error::Error + Send + Sync>>;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no room for {0}")]
struct NoRoom(PeerId);

/// Says no to all, and remembers between which ends.
#[derive(Clone, Default)]
struct Full(Arc<Mutex<Vec<(PeerId, ConnectedPoint)>>>);

impl Full {
    fn hook(&self) -> impl Fn(&PeerId, &ConnectedPoint) -> Answer + Send + Sync + 'static + use<> {
        let asked = self.0.clone();
        move |peer, point| {
            asked.lock().unwrap().push((*peer, point.clone()));
            Err(NoRoom(*peer).into())
        }
    }

    fn asked(&self) -> Vec<(PeerId, ConnectedPoint)> {
        self.0.lock().unwrap().clone()
    }
}

/// What gates can have installed on each stack, and at which stage an admission hook is then asked first.
const ROWS: [(Stack, bool, Stage); 7] = [
    (Stack::Knock, true, Stage::Knock),
    (Stack::Knock, false, Stage::Secured),
    // A wrapped upgrade sees no addresses, so there is nothing to ask it about.
    (Stack::Tcp, true, Stage::Upgraded),
    (Stack::Tcp, false, Stage::Secured),
    (Stack::Quic, false, Stage::Secured),
    (Stack::WebSocket, true, Stage::Upgraded),
    (Stack::WebSocket, false, Stage::Secured),
];

fn node(stack: Stack, hooks: bool) -> Node {
    let parts = Parts {
        transport: true,
        hooks,
        beneath: false,
    };
    Node::new(stack, parts)
}

#[tokio::test]
async fn an_admission_hook_refuses_callers_over_every_transport_and_says_why() {
    for (stack, hooks, stage) in ROWS {
        let (mut dialer, mut listener) = (node(stack, hooks), node(stack, hooks));
        let full = Full::default();
        // A clone, after the parts were handed out.
        let _ = listener.gate.clone().with_admission(full.hook());
        // The policy's word for the caller does not outrank it.
        listener
            .rules
            .change(|c| c.insert(Rule::allow().peer(dialer.peer)))
            .unwrap();
        let at = listener.listen().await;
        dialer.dial(&at, listener.peer).unwrap();
        let (mut refused, mut over) = (None, false);
        soon("both ends to know", async {
            while !(over && (refused.is_some() || stage == Stage::Knock)) {
                match next_of(&mut dialer, &mut listener).await {
                    (End::Listener, SwarmEvent::IncomingConnectionError { error, .. }) => refused = Some(error),
                    (End::Listener, SwarmEvent::ConnectionEstablished { .. }) => panic!("{stack:?}: it is let in"),
                    (End::Dialer, SwarmEvent::OutgoingConnectionError { .. } | SwarmEvent::ConnectionClosed { .. }) => {
                        over = true;
                    }
                    _ => {}
                }
            }
        })
        .await;
        if let Some(ListenError::Denied { .. }) = &refused {
            let denied = Denied::in_listen(refused.as_ref().unwrap()).unwrap();
            assert_eq!((denied.stage, denied.reason.rule()), (stage, "admission"), "{stack:?}");
            let no_room = denied.reason.downcast_ref::<NoRoom>();
            assert_eq!(no_room, Some(&NoRoom(dialer.peer)), "{stack:?}");
            assert!(denied.to_string().ends_with(&format!("no room for {}", dialer.peer)));
        }
        // A dialer under the knock's listener knocks once, and every other is refused once it is asked about.
        let asked = full.asked();
        assert_eq!(asked.len(), 1, "{stack:?}, {hooks}: {asked:?}");
        assert_eq!(asked[0].0, dialer.peer);
        assert!(asked[0].1.is_listener(), "{stack:?}: {:?}", asked[0].1);
    }
}

#[tokio::test]
async fn an_admission_hook_is_not_asked_about_dials_of_ours() {
    for (stack, hooks, _) in ROWS {
        let (mut dialer, mut listener) = (node(stack, hooks), node(stack, hooks));
        let full = Full::default();
        let _ = dialer.gate.clone().with_admission(full.hook());
        connect(&mut dialer, &mut listener).await;
        assert_eq!(full.asked(), [], "{stack:?}");
    }
}

#[tokio::test]
async fn all_admission_hooks_have_to_allow_and_one_that_panics_has_denied() {
    let allow = |_: &PeerId, _: &ConnectedPoint| -> Answer { Ok(()) };
    let gate = || Gate::new(libp2p_gater::Rules::new()).with_admission(allow);
    let ask = |gate: &Gate| {
        let point = ConnectedPoint::Listener {
            local_addr: "/ip4/127.0.0.1/tcp/1/tls".parse().unwrap(),
            send_back_addr: "/ip4/127.0.0.1/tcp/2/tls".parse().unwrap(),
        };
        let answer = gate.knock()(&PeerId::random(), &point);
        answer.err().map(|error| Denied::find(&*error).unwrap().reason.clone())
    };
    assert!(ask(&gate()).is_none());
    let rule = |reason: Option<Reason>| reason.map(|reason| reason.rule().to_owned());
    let full = Full::default();
    assert_eq!(
        rule(ask(&gate().with_admission(full.hook()).with_admission(allow))).as_deref(),
        Some("admission")
    );
    let panics = |_: &PeerId, _: &ConnectedPoint| -> Answer { panic!("hook") };
    assert_eq!(
        rule(ask(&gate().with_admission(panics))).as_deref(),
        Some("policy_panicked")
    );
    // It may add another to its own gate.
    let own = gate();
    let again = own.clone();
    let own = own.with_admission(move |_, _| {
        let _ = again.clone().with_admission(allow);
        Ok(())
    });
    assert!(ask(&own).is_none());
    assert!(ask(&own).is_none());
}

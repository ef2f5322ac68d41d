//! A gate's behaviour says goodbye, and heeds it.

use crate::common::soon;
use crate::nodes::{BehaviourEvent, End, Node, Parts, Stack, connect, next_of};
use libp2p::swarm::{DialError, SwarmEvent};
use libp2p_gater::goodbye::{self, BackedOff, Code, Goodbye};
use libp2p_gater::{Event, Reason};
use std::time::Duration;

fn plain() -> Node {
    Node::new(Stack::Tcp, Parts::default())
}

/// Waits until `dialer` has heard, and both are apart.
async fn heard(dialer: &mut Node, listener: &mut Node) -> Goodbye {
    let (us, them) = (dialer.peer, listener.peer);
    soon("a goodbye", async {
        let mut said = None;
        loop {
            if let Some(said) = said.take_if(|_| !dialer.swarm.is_connected(&them) && !listener.swarm.is_connected(&us))
            {
                return said;
            }
            if let (
                End::Dialer,
                SwarmEvent::Behaviour(BehaviourEvent::Gate(Event::Goodbye(goodbye::Event::Heard { goodbye, .. }))),
            ) = next_of(dialer, listener).await
            {
                said = Some(goodbye);
            }
        }
    })
    .await
}

#[tokio::test]
async fn whoever_is_blocked_while_connected_is_told_so_and_does_not_dial_again() {
    let (mut dialer, mut listener) = (plain(), plain());
    connect(&mut dialer, &mut listener).await;
    let (us, them) = (dialer.peer, listener.peer);
    listener.change(|change| change.block(us));
    let goodbye = heard(&mut dialer, &mut listener).await;
    assert_eq!(goodbye.code(), Code::NotAllowed);
    let at = listener.swarm.listeners().next().cloned().unwrap();
    let Err(DialError::Denied { cause }) = dialer.dial(&at, them) else {
        panic!("it dials again");
    };
    assert_eq!(cause.downcast_ref::<BackedOff>().unwrap().goodbye, goodbye);
    dialer
        .swarm
        .behaviour_mut()
        .gate
        .as_mut()
        .unwrap()
        .goodbye_mut()
        .forgive(&them);
    dialer.dial(&at, them).unwrap();
}

#[tokio::test]
async fn whoever_trims_connections_has_them_closed_with_a_word() {
    let (mut dialer, mut listener) = (plain(), plain());
    let (_, theirs) = connect(&mut dialer, &mut listener).await;
    let closer = listener.gate.closer();
    closer(dialer.peer, theirs, "watermark");
    // Asked twice, it is said once.
    closer(dialer.peer, theirs, "watermark");
    let goodbye = heard(&mut dialer, &mut listener).await;
    assert_eq!((goodbye.code(), goodbye.text()), (Code::Trimmed, "watermark"));
    // It is gone: nothing happens.
    closer(dialer.peer, theirs, "watermark");
}

#[tokio::test]
async fn a_reason_goes_along_with_its_name_and_its_time_and_without_its_details() {
    let reason = Reason::new("caps")
        .with_detail("12 of 192.0.2.0/24")
        .with_retry_after(Duration::from_secs(7));
    let goodbye = Goodbye::from(&reason);
    assert_eq!((goodbye.code(), goodbye.text()), (Code::NotAllowed, "caps"));
    assert_eq!(goodbye.retry_after(), Some(Duration::from_secs(7)));
}

//! Goodbyes between real Swarms, over TCP on the loopback, and to one that knows nothing of them.

#[cfg(test)]
mod counted;
mod swarms;

use libp2p::swarm::dial_opts::DialOpts;
use libp2p::swarm::{DialError, SwarmEvent};
use libp2p_gater::goodbye::{BackedOff, Code, Config, Event, Goodbye, Said};
use std::time::{Duration, Instant};
use swarms::{Leaving, Mute, connected, listening, mute, swarm, until, until_either};

fn trimmed() -> Goodbye {
    Goodbye::new(Code::Trimmed)
        .with_text("no room")
        .with_retry_after(Duration::from_secs(600))
}

/// DisconnectReason of go-libp2p, which it never sends (go-libp2p 238).
#[tokio::test]
async fn the_other_side_is_told_why_before_the_connection_closes() {
    let (mut host, mut guest) = (swarm(Config::default()), swarm(Config::default()));
    let at = listening(&mut host).await;
    let (connection, _) = connected(&mut host, &mut guest, at).await;
    let guest_peer = *guest.local_peer_id();
    host.behaviour_mut().goodbye.close(guest_peer, connection, trimmed());

    let (mut told, mut said) = (None, None);
    let (mut closed_here, mut closed_there) = (false, false);
    until("both have heard and closed", async {
        while !(closed_here && closed_there && told.is_some() && said.is_some()) {
            match until_either(&mut host, &mut guest).await {
                (true, SwarmEvent::Behaviour(Leaving::Goodbye(Event::Said { said: how, .. }))) => said = Some(how),
                (true, SwarmEvent::ConnectionClosed { .. }) => closed_here = true,
                (false, SwarmEvent::Behaviour(Leaving::Goodbye(Event::Heard { goodbye, peer, .. }))) => {
                    assert!(!closed_there, "it is told first");
                    told = Some((peer, goodbye));
                }
                (false, SwarmEvent::ConnectionClosed { .. }) => closed_there = true,
                _ => {}
            }
        }
    })
    .await;
    assert_eq!(told, Some((*host.local_peer_id(), trimmed())));
    assert_eq!(said, Some(Said::Heard));
}

#[tokio::test]
async fn who_was_told_does_not_dial_again_until_it_is_time_or_forgiven() {
    let (mut host, mut guest) = (swarm(Config::default()), swarm(Config::default()));
    let at = listening(&mut host).await;
    let host_peer = *host.local_peer_id();
    say_goodbye(&mut host, &mut guest, &at, trimmed()).await;

    let dial = || DialOpts::peer_id(host_peer).addresses(vec![at.clone()]).build();
    let Err(DialError::Denied { cause }) = guest.dial(dial()) else {
        panic!("it was asked not to")
    };
    let backed_off: BackedOff = cause.downcast().expect("a back-off");
    assert_eq!(backed_off.goodbye, trimmed());
    assert!(backed_off.left <= Duration::from_secs(600), "{backed_off}");
    guest.behaviour_mut().goodbye.forgive(&host_peer);
    guest.dial(dial()).expect("forgiven");
    until("connected again", async {
        loop {
            if let (false, SwarmEvent::ConnectionEstablished { .. }) = until_either(&mut host, &mut guest).await {
                return;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn who_does_not_want_to_be_told_when_to_dial_is_not() {
    let mut host = swarm(Config::default());
    let mut guest = swarm(Config::default().with_longest_back_off(Duration::ZERO));
    let at = listening(&mut host).await;
    say_goodbye(&mut host, &mut guest, &at, trimmed()).await;
    let dial = DialOpts::peer_id(*host.local_peer_id()).addresses(vec![at]).build();
    guest.dial(dial).expect("no back-off");
}

#[tokio::test]
async fn who_dials_us_himself_is_forgiven() {
    let (mut host, mut guest) = (swarm(Config::default()), swarm(Config::default()));
    let (at, back) = (listening(&mut host).await, listening(&mut guest).await);
    let host_peer = *host.local_peer_id();
    say_goodbye(&mut host, &mut guest, &at, trimmed()).await;
    assert!(guest.behaviour_mut().goodbye.back_off(&host_peer).is_some());
    connected(&mut guest, &mut host, back).await;
    assert_eq!(guest.behaviour_mut().goodbye.back_off(&host_peer), None);
}

/// The other side has no such protocol: its "no" is all that is waited for, not the second.
#[tokio::test]
async fn a_peer_that_does_not_know_the_protocol_is_closed_without_waiting() {
    let (mut host, mut guest) = (swarm(Config::default()), mute(Mute::Unable));
    let at = listening(&mut host).await;
    let (connection, _) = connected(&mut host, &mut guest, at).await;
    let guest_peer = *guest.local_peer_id();
    host.behaviour_mut().goodbye.close(guest_peer, connection, trimmed());
    assert_eq!(closed(&mut host, &mut guest).await, Said::Unsupported);
}

/// It takes the stream and never reads it: a second, and the connection is closed.
#[tokio::test]
async fn a_peer_that_does_not_listen_is_closed_all_the_same() {
    let (mut host, mut guest) = (swarm(Config::default()), mute(Mute::Deaf));
    let at = listening(&mut host).await;
    let (connection, _) = connected(&mut host, &mut guest, at).await;
    let guest_peer = *guest.local_peer_id();
    let start = Instant::now();
    host.behaviour_mut().goodbye.close(guest_peer, connection, trimmed());
    let said = closed(&mut host, &mut guest).await;
    assert_eq!(said, Said::Unheard);
    assert!(start.elapsed() >= Duration::from_millis(900), "it was given its second");
}

/// One whose task stands still altogether: the second runs on ours.
#[tokio::test]
async fn a_peer_that_stands_still_is_closed_all_the_same() {
    let (mut host, mut guest) = (swarm(Config::default()), swarm(Config::default()));
    let at = listening(&mut host).await;
    let (connection, _) = connected(&mut host, &mut guest, at).await;
    let guest_peer = *guest.local_peer_id();
    host.behaviour_mut().goodbye.close(guest_peer, connection, trimmed());
    host.behaviour_mut().goodbye.close(guest_peer, connection, trimmed());
    // The guest's Swarm is not polled, though its connection's task may be.
    let mut said = 0;
    until("closed", async {
        loop {
            match futures::StreamExt::select_next_some(&mut host).await {
                SwarmEvent::Behaviour(Leaving::Goodbye(Event::Said { .. })) => said += 1,
                SwarmEvent::ConnectionClosed { .. } => return,
                _ => {}
            }
        }
    })
    .await;
    assert_eq!(said, 1, "a second goodbye is not said");
}

async fn say_goodbye(host: &mut swarms::Host, guest: &mut swarms::Host, at: &libp2p::Multiaddr, goodbye: Goodbye) {
    let (connection, _) = connected(host, guest, at.clone()).await;
    let guest_peer = *guest.local_peer_id();
    host.behaviour_mut().goodbye.close(guest_peer, connection, goodbye);
    let (mut heard, mut open) = (false, 2);
    until("heard and closed", async {
        while !heard || open > 0 {
            match until_either(host, guest).await {
                (false, SwarmEvent::Behaviour(Leaving::Goodbye(Event::Heard { .. }))) => heard = true,
                (_, SwarmEvent::ConnectionClosed { .. }) => open -= 1,
                _ => {}
            }
        }
    })
    .await;
}

async fn closed<B>(host: &mut swarms::Host, guest: &mut libp2p::Swarm<B>) -> Said
where
    B: libp2p::swarm::NetworkBehaviour,
{
    until("closed", async {
        let mut said = None;
        loop {
            tokio::select! {
                event = futures::StreamExt::select_next_some(&mut *host) => match event {
                    SwarmEvent::Behaviour(Leaving::Goodbye(Event::Said { said: how, .. })) => said = Some(how),
                    SwarmEvent::ConnectionClosed { .. } => return said.expect("it says how it went"),
                    _ => {}
                },
                _ = futures::StreamExt::select_next_some(&mut *guest) => {}
            }
        }
    })
    .await
}

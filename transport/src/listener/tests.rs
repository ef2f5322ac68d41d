use super::*;
use crate::config::{Config, Dialect};
use crate::identity::Key;
use crate::knock::{Mode, Version, v2};
use futures::io::Cursor;
use futures::task::noop_waker_ref;
use libp2p_identity::{Keypair, PeerId};
use std::time::Duration;

type Io = Cursor<Vec<u8>>;

fn lobby(close_time: Duration) -> Lobby<Io> {
    let key = Keypair::ed25519_from_bytes([1; 32]).expect("32 bytes");
    let mut config = Config::new(&key).expect("Ed25519");
    config.close_time = close_time;
    Lobby::new(Shared::new(config))
}

/// One more caller whose knock was opened, and that the Swarm has begun to answer.
fn answered(lobby: &mut Lobby<Io>) -> Knocked<Io> {
    let key = Keypair::ed25519_from_bytes([2; 32]).expect("32 bytes");
    let caller = Key::of_peer(&PeerId::from(key.public())).expect("Ed25519");
    let place = Place {
        listener: ListenerId::next(),
        local_addr: Multiaddr::empty(),
        send_back_addr: Multiaddr::empty(),
        prefix: Prefix::Unknown,
        counted: false,
        answering: None,
        signal: Arc::default(),
    };
    let (slot, evicted) = lobby.pool.on_accept(Instant::now(), Prefix::Unknown, false, place, 0);
    assert!(evicted.is_none());
    assert!(matches!(lobby.pool.on_event(slot, Event::Head), Action::Open));
    let invited = Invited {
        caller: v2::known(caller),
        dialect: Dialect {
            version: Version::V2,
            mode: Mode::Yamux,
        },
        flight: Vec::new(),
        size: v2::SIZE,
        skew_ms: None,
    };
    let mut knocked = lobby.answer(slot, Io::default(), invited).expect("it is answered");
    let _ = knocked.io.parts();
    knocked
}

#[test]
fn a_place_is_free_when_its_upgrade_is_dropped_in_the_turn_that_displaces_it() {
    // At once, the place is in overtime.
    for close_time in [Duration::ZERO, Duration::from_secs(600)] {
        let mut lobby = lobby(close_time);
        let mut cx = Context::from_waker(noop_waker_ref());
        let most = lobby.answering.most();
        let mut all: Vec<_> = (0..most).map(|_| answered(&mut lobby)).collect();
        assert!(lobby.go_on(&mut cx).is_pending());
        assert_eq!(lobby.pool.len(), most);
        drop(all.remove(0));
        // The first goes for it, and is gone.
        all.push(answered(&mut lobby));
        assert!(lobby.go_on(&mut cx).is_pending());
        assert_eq!(lobby.pool.len(), most, "{close_time:?}");
        drop(all);
        assert!(lobby.go_on(&mut cx).is_pending());
        assert_eq!(lobby.pool.len(), 0, "{close_time:?}");
    }
}

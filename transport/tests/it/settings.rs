//! Settings that would be without effect, and so are errors.

use crate::common::*;
use libp2p_core::Transport as _;
use libp2p_core::transport::{ListenerId, TransportError};
use libp2p_knock::unanswered::Heard;
use libp2p_knock::{ConfigError, Error, Failure, Mode, Network, Stage, Version};
use std::time::Duration;

fn refused<T>(result: Result<T, TransportError<Failure>>) -> Error {
    match result {
        Ok(_) => panic!("it was taken"),
        Err(TransportError::Other(failure)) => {
            assert_eq!(failure.stage(), Stage::Address);
            failure.into_error()
        }
        Err(TransportError::MultiaddrNotSupported(address)) => panic!("{address} is not supported"),
    }
}

fn somewhere() -> libp2p_core::Multiaddr {
    format!("/ip4/127.0.0.1/tcp/4001/tls/p2p/{}", peer(2)).parse().unwrap()
}

#[tokio::test]
async fn a_private_network_that_version_2_would_open_neither_listens_nor_dials() {
    let network = Network::private(b"a network", &[1; 32]).unwrap();
    let config = config(1).with_network(network).unwrap().ragep2p_compatible();
    let mut transport = authenticated(config);
    let listening = transport.listen_on(ListenerId::next(), "/ip4/127.0.0.1/tcp/0/tls".parse().unwrap());
    let dialling = transport.dial(somewhere(), dialer()).map(drop);
    for error in [refused(listening), refused(dialling)] {
        assert!(matches!(error, Error::Config(ConfigError::NetworkNeedsV3)), "{error:?}");
    }
}

#[tokio::test]
async fn frames_are_refused_where_a_muxer_follows() {
    // With no other peer there is nothing to listen for.
    let go = config(1).ragep2p_compatible();
    let mut transport = libp2p_knock::tokio::Transport::new(go);
    let listening = transport.listen_on(ListenerId::next(), "/ip4/127.0.0.1/tcp/0/tls".parse().unwrap());
    assert!(matches!(refused(listening), Error::NotMuxed { peer: None }));

    let frames = config(1).with_peer(peer(2), Version::V3, Mode::Frames).unwrap();
    let by_hand = authenticated(frames.clone()).muxed(libp2p_knock::yamux::Config::default());
    let mut by_hand = by_hand;
    let mut ready_made = libp2p_knock::tokio::Transport::new(frames);
    for error in [
        refused(by_hand.dial(somewhere(), dialer()).map(drop)),
        refused(ready_made.dial(somewhere(), dialer()).map(drop)),
    ] {
        assert!(
            matches!(error, Error::NotMuxed { peer: Some(named) } if named == peer(2)),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn a_knock_for_frames_meets_silence_where_a_muxer_follows() {
    let close = Duration::from_millis(300);
    for version in [Version::V3, Version::V2] {
        let listens = config(2).with_peer(peer(1), version, Mode::Frames).unwrap();
        let listens = listens.dangerous().with_close_time(close);
        let knocks = config(1).with_peer(peer(2), version, Mode::Frames).unwrap();

        let muxed = libp2p_knock::tokio::Transport::new(listens.clone());
        let mut listener = listen(muxed, peer(2), "/ip4/127.0.0.1/tcp/0/tls").await;
        let dial = authenticated(knocks.clone())
            .dial(listener.address.clone(), dialer())
            .unwrap();
        let failure = soon("the dial", dial).await.unwrap_err();
        assert_eq!(*unanswered(&failure).heard(), Heard::Closed);
        listener.nothing_for(Duration::from_millis(50)).await;

        // The same configuration without a muxer.
        let mut listener = victim(listens).await;
        let dial = authenticated(knocks).dial(listener.address.clone(), dialer()).unwrap();
        let (_, stream) = soon("the dial", dial).await.unwrap();
        assert_eq!(stream.mode(), Mode::Frames);
        listener.upgraded().await.unwrap();
    }
}

/// A program that depends on this crate alone can name what its signatures name.
mod foreign {
    #[cfg(feature = "tokio")]
    use libp2p_knock::libp2p_tcp::Config as Tcp;
    #[cfg(feature = "metrics")]
    use libp2p_knock::prometheus_client::registry::Registry;
    use libp2p_knock::{BoxFuture, Config, ConnectedPoint, Denial, Endpoint, KeyLog, Keypair, Multiaddr, PeerId};
    use std::sync::Arc;

    #[derive(Debug)]
    struct Log;

    impl KeyLog for Log {
        fn log(&self, _: &str, _: &[u8], _: &[u8]) {}
    }

    fn admit(_: &PeerId, point: &ConnectedPoint) -> Result<(), Denial> {
        match point.to_endpoint() {
            Endpoint::Listener => Ok(()),
            Endpoint::Dialer => Err("only callers are asked about".into()),
        }
    }

    fn spawn(task: BoxFuture<'static, ()>) {
        drop(task);
    }

    #[tokio::test]
    async fn types_of_other_crates_in_public_signatures_have_names_here() {
        let key = Keypair::generate_ed25519();
        let config = Config::new(&key).unwrap().with_admission(admit);
        #[cfg(feature = "metrics")]
        let config = config.with_metrics(&mut Registry::default()).unwrap();
        let config = config.dangerous().with_key_log(Arc::new(Log));
        let memory = libp2p_core::transport::MemoryTransport::default();
        drop(libp2p_knock::Transport::new(memory, config.clone()).with_executor(spawn));
        #[cfg(feature = "tokio")]
        drop(libp2p_knock::tokio::Transport::with_tcp(Tcp::default(), config));
        let address: Multiaddr = "/ip4/127.0.0.1/tcp/1/tls".parse().unwrap();
        assert!(libp2p_knock::is_knock_address(&address));
    }
}

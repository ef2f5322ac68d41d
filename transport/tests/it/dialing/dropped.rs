//! Dials that are dropped, and dials that meet another one.

use super::*;

#[tokio::test]
async fn a_dial_that_is_never_polled_does_nothing() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = at_peer_2(listener.local_addr().unwrap());
    let _dial = tcp(1).dial(address, dialer()).unwrap();
    let accepted = tokio::time::timeout(Duration::from_millis(200), listener.accept()).await;
    assert!(accepted.is_err(), "somebody connected");
}

#[tokio::test]
async fn a_dial_dropped_half_way_leaves_nothing_behind() {
    let mut listener = victim(config(2)).await;
    let mut transport = authenticated(config(1));
    for _ in 0..50 {
        let mut dial = transport.dial(listener.address.clone(), dialer()).unwrap();
        // Dropped wherever it happens to be when the listener sees the knock.
        loop {
            tokio::select! {
                biased;
                seen = listener.next() => if matches!(seen, Seen::Incoming { .. }) { break },
                _ = &mut dial => break,
            }
        }
        drop(dial);
        match listener.upgraded().await {
            Ok(_) => {}
            Err(failure) => assert!(matches!(failure.error(), Error::Closed), "{failure:?}"),
        }
    }
    let dial = transport.dial(listener.address.clone(), dialer()).unwrap();
    soon("one more dial", dial).await.expect("as if nothing had happened");
    listener.upgraded().await.unwrap();
}

/// As libp2p drops the dials that lost, of a transport that it polls.
#[tokio::test]
async fn a_dial_dropped_after_its_knock_is_a_handshake_that_succeeds_at_the_listener() {
    let mut listener = victim(config(2)).await;
    let mut transport = authenticated(config(1));
    for _ in 0..20 {
        let mut dial = transport.dial(listener.address.clone(), dialer()).unwrap();
        loop {
            let polled = futures::future::poll_fn(|cx| std::pin::Pin::new(&mut transport).poll(cx));
            tokio::select! {
                biased;
                seen = listener.next() => if matches!(seen, Seen::Incoming { .. }) { break },
                _ = &mut dial => break,
                _ = polled => {}
            }
        }
        drop(dial);
        let polled = futures::future::poll_fn(|cx| std::pin::Pin::new(&mut transport).poll(cx));
        tokio::select! {
            upgraded = listener.upgraded() => drop(upgraded.expect("a handshake that ends as it began")),
            _ = polled => panic!("nothing listens"),
        }
    }
}

/// As when the SYNs of two ends cross that dial each other from their listening ports: what answers is a knock, and no TLS.
#[tokio::test]
async fn a_dial_that_meets_another_dial_is_made_once_more_from_a_port_of_its_own() {
    let listener = victim(config(2)).await;
    let meeting = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = at_peer_2(meeting.local_addr().unwrap());
    let behind = listener.socket.unwrap();
    let crossing = async {
        let (mut crossed, first) = meeting.accept().await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut crossed, &knock(2, 1))
            .await
            .unwrap();
        let (mut near, second) = meeting.accept().await.unwrap();
        assert_ne!(first, second);
        let mut far = tokio::net::TcpStream::connect(behind).await.unwrap();
        let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
    };
    let mut transport = authenticated(config(1));
    let dial = transport.dial(address.clone(), dialer()).unwrap();
    tokio::select! {
        dialled = dial => drop(dialled.expect("the second try")),
        () = crossing => panic!("it ended first"),
    }

    // A dial that had a port of its own crosses none, and is not made again.
    let once = DialOpts {
        port_use: PortUse::New,
        ..dialer()
    };
    let dial = transport.dial(address, once).unwrap();
    let crossing = async {
        let (mut crossed, _) = meeting.accept().await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut crossed, &knock(2, 1))
            .await
            .unwrap();
        crossed
    };
    let (dialled, _crossed) = futures::future::join(dial, crossing).await;
    let failure = dialled.expect_err("no TLS");
    assert!(matches!(failure.error(), Error::Unanswered(_)), "{failure:?}");
}

/// As when libp2p drops it because another address was faster.
#[tokio::test]
async fn a_dial_that_is_dropped_and_then_meets_another_dial_is_not_made_again() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let meeting = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = at_peer_2(meeting.local_addr().unwrap());
    let mut transport = authenticated(config(1));
    let mut dial = transport.dial(address, dialer()).unwrap();
    let mut polled = futures::future::poll_fn(|cx| std::pin::Pin::new(&mut transport).poll(cx));
    let knocked = async {
        let (mut crossed, _) = meeting.accept().await.unwrap();
        crossed.read_u8().await.expect("a knock");
        crossed
    };
    let mut crossed = tokio::select! {
        crossed = knocked => crossed,
        _ = &mut dial => panic!("nothing has answered"),
        _ = &mut polled => panic!("nothing listens"),
    };
    drop(dial);
    let finished = async {
        crossed.write_all(&knock(2, 1)).await.unwrap();
        let _ = crossed.read_to_end(&mut Vec::new()).await;
        tokio::time::timeout(Duration::from_millis(500), meeting.accept()).await
    };
    tokio::select! {
        again = finished => assert!(again.is_err(), "dialled again for nothing"),
        _ = polled => panic!("nothing listens"),
    }
}

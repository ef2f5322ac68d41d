//! In pieces, and slowly.

use super::*;

/// What is sent after each other, each piece on its own.
async fn trickle(socket: &mut TcpStream, bytes: &[u8], pause: Duration) -> std::io::Result<()> {
    socket.set_nodelay(true)?;
    for byte in bytes {
        socket.write_all(&[*byte]).await?;
        tokio::time::sleep(pause).await;
    }
    Ok(())
}

#[tokio::test]
async fn a_flight_that_comes_a_byte_at_a_time_has_no_longer_than_anybody_else() {
    let target = Target::new(config(2)).await;
    let flight = catch(config(1), 2).await.flight;
    let started = std::time::Instant::now();
    let (mut reading, mut writing) = target.listener.connect().await.into_split();
    let sending = tokio::spawn(async move {
        writing.write_all(&flight[..HEAD]).await.unwrap();
        for byte in &flight[HEAD..] {
            // Until the other end has gone.
            if writing.write_all(&[*byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    let mut answer = Vec::new();
    let end = soon("the end", reading.read_to_end(&mut answer)).await;
    assert!(matches!(end, Ok(0)), "{end:?}");
    assert!(started.elapsed() >= CLOSE);
    until("its end", || target.knocks("timeout") == 1).await;
    sending.abort();
}

#[tokio::test]
async fn an_honest_head_in_204_pieces_and_its_flight_in_halves_are_answered() {
    let mut target = Target::closing_after(PATIENCE, config(2)).await;
    let caught = catch(config(1), 2).await;
    let mut onward = target.listener.connect().await;
    let (head, flight) = caught.flight.split_at(HEAD);
    trickle(&mut onward, head, Duration::from_millis(1)).await.unwrap();
    for half in flight.chunks(flight.len() / 2) {
        onward.write_all(half).await.unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let mut socket = caught.socket;
    tokio::spawn(async move { tokio::io::copy_bidirectional(&mut socket, &mut onward).await });
    let (found, _) = soon("the dial", caught.dial).await.unwrap().expect("an honest dial");
    assert_eq!(found, peer(2));
    assert_eq!(target.listener.upgraded().await.unwrap().0, peer(1));
}

/// The stack of `tokio::Transport` accepts and closes on a task of its own. Should another test keep this machine busy,
/// a close may come late for that reason; a Swarm that shows is late each time.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_swarm_that_does_not_poll_does_not_show_in_when_strangers_are_closed() {
    let mut latest = Vec::new();
    for _ in 0..5 {
        let config = config(2).dangerous().with_close_time(CLOSE);
        let mut transport = libp2p_knock::tokio::Transport::new(config);
        let id = libp2p_core::transport::ListenerId::next();
        transport
            .listen_on(id, "/ip4/127.0.0.1/tcp/0/tls".parse().unwrap())
            .unwrap();
        let event = futures::future::poll_fn(|cx| std::pin::Pin::new(&mut transport).poll(cx)).await;
        let address = socket_of(&event.into_new_address().expect("an address")).unwrap();
        // From before anybody connects until long after the close time, the task that has the transport is busy.
        let (until, free) = std::sync::mpsc::channel::<()>();
        let busy = tokio::task::spawn(async move {
            let _ = free.recv_timeout(4 * CLOSE);
            drop(transport);
        });
        let started = std::time::Instant::now();
        let mut socket = TcpStream::connect(address).await.unwrap();
        let end = soon("the end", socket.read(&mut [0; 1])).await;
        let after = started.elapsed();
        assert!(matches!(end, Ok(0)) && after >= CLOSE, "{end:?} after {after:?}");
        drop(until);
        busy.await.unwrap();
        latest.push(after - CLOSE);
        if after < CLOSE + Duration::from_millis(100) {
            return;
        }
    }
    panic!("closed late each time: {latest:?}");
}

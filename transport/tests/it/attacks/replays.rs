//! What was sent once is sent again, from wherever and to wherever.

use super::*;
use libp2p_knock::internals::rewrap;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Copies of a knock at one listener, the flights behind the heads when all of those have been let in by the admission
/// hook, which takes its time.
#[tokio::test]
async fn of_64_copies_at_once_one_is_answered_and_none_if_the_original_was() {
    const COPIES: usize = 64;
    let asked = Arc::new(AtomicUsize::new(0));
    let log = asked.clone();
    let slow = config(2).with_admission(move |_, _| {
        std::thread::sleep(Duration::from_millis(3));
        log.fetch_add(1, Ordering::Relaxed);
        Ok(())
    });
    let mut target = Target::closing_after(PATIENCE, slow.with_handshake_timeout(PATIENCE)).await;
    let caught = catch(config(1), 2).await;
    let mut sockets = Vec::new();
    for _ in 0..COPIES {
        let mut socket = target.listener.connect().await;
        socket.write_all(&caught.flight[..HEAD]).await.unwrap();
        sockets.push(socket);
    }
    until("their heads", || asked.load(Ordering::Relaxed) == COPIES).await;
    for socket in &mut sockets {
        socket.write_all(&caught.flight[HEAD..]).await.unwrap();
    }
    until("all but one", || target.knocks("refused_replayed") == COPIES - 1).await;
    assert_eq!(target.knocks("accepted"), 1);
    // Whoever is answered has something to read, sooner or later.
    let readable = sockets.iter().map(|socket| socket.readable().boxed());
    let (_, answered, _) = soon("an answer", futures::future::select_all(readable)).await;
    let heard = |socket: &TcpStream| socket.try_read(&mut [0; 1]).is_ok();
    assert!(heard(&sockets.swap_remove(answered)));
    assert!(!sockets.iter().any(heard));

    let flight = target.answers(config(1)).await;
    let accepted = target.knocks("accepted");
    let mut sockets = Vec::new();
    for _ in 0..COPIES {
        let mut socket = target.listener.connect().await;
        socket.write_all(&flight).await.unwrap();
        sockets.push(socket);
    }
    until("all of them", || target.knocks("refused_replayed") == 2 * COPIES - 1).await;
    assert_eq!(target.knocks("accepted"), accepted);
    assert!(!sockets.iter().any(heard));
}

#[tokio::test]
async fn two_thousand_replays_from_anywhere_to_any_of_its_addresses_and_wrapped_anew_get_no_byte() {
    rlimit::increase_nofile_limit(4096).expect("can raise the limit");
    const EACH: usize = 500;
    let open = config(2).with_max_openings(100_000.try_into().unwrap()).unwrap();
    let mut target = Target::new(open.with_max_waiting(8192.try_into().unwrap())).await;
    let flight = target.answers(config(1)).await;
    let accepted = target.knocks("accepted");
    // The same identity at two more addresses.
    let second = victim(target.config.clone()).await;
    let six = listen(authenticated(target.config.clone()), peer(2), "/ip6/::1/tcp/0/tls").await;

    let wrapped = |n: usize| {
        let mut nonce = [7; 12];
        nonce[..8].copy_from_slice(&n.to_le_bytes());
        let knock = rewrap(&callee(2), &Network::open(), nonce, &flight).expect("a knock at the target");
        assert_ne!(knock[..HEAD], flight[..HEAD]);
        knock
    };
    let mut answers = probe_all(&target.listener, vec![flight.clone(); EACH], EACH).await;
    answers.extend(probe_all(&second, vec![flight.clone(); EACH], EACH).await);
    answers.extend(probe_all(&six, vec![flight.clone(); EACH / 2], EACH).await);
    answers.extend(probe_all(&target.listener, (0..EACH).map(wrapped).collect(), EACH).await);
    answers.extend(probe_all(&six, (0..EACH / 2).map(wrapped).collect(), EACH).await);
    // From elsewhere.
    let elsewhere = (0..EACH / 2).map(async |n| {
        let from = SocketAddr::from(([127, 3, (n % 250) as u8, 9], 0));
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(from).unwrap();
        let mut socket = socket.connect(target.listener.socket.unwrap()).await.unwrap();
        socket.write_all(&flight).await.unwrap();
        let mut answer = Vec::new();
        soon("the end", socket.read_to_end(&mut answer))
            .await
            .expect("no reset");
        answer
    });
    answers.extend(futures::future::join_all(elsewhere).await);
    assert_eq!(answers.len(), 4 * EACH + EACH / 2);
    assert!(answers.iter().all(Vec::is_empty));
    assert_eq!(target.knocks("refused_replayed"), answers.len());
    assert_eq!(target.knocks("accepted"), accepted);
}

/// A listener that has forgotten everything goes by when it was started. Two clocks stand in for the time that a restart
/// takes: this process has run for some seconds, and by the second clock it began after the knock was made.
#[tokio::test]
async fn a_restart_does_not_open_the_door_to_what_was_answered_before_it() {
    let mut before = Target::new(config(2)).await;
    let flight = before.answers(config(1)).await;
    let later = || SystemTime::now() + Duration::from_secs(115);
    let mut after = Target::new(config(2).dangerous().with_clock(later).unwrap()).await;
    after.is_silent_to(&flight, "refused_floor").await;
    let wrapped = rewrap(&callee(2), &Network::open(), [1; 12], &flight).unwrap();
    after.is_silent_to(&wrapped, "refused_floor").await;
    assert_eq!(after.knocks("accepted"), 0);
    // Who knocks after the restart comes in.
    after.lets_in(config(1).dangerous().with_clock(later).unwrap()).await;
}

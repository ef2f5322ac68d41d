//! Somebody stands between dialer and listener: he sees, keeps, mixes and repeats what they send.

use super::*;
use libp2p_knock::Version;

#[tokio::test]
async fn another_client_hello_behind_a_live_knock_gets_no_byte_and_does_not_use_the_knock_up() {
    let target = Target::new(config(2)).await;
    let caught = catch(config(1), 2).await;
    let (head, sealed) = caught.flight.split_at(HEAD);
    let hello = client_hello();
    let mut fitted = hello.clone();
    fitted.resize(sealed.len(), 0);
    let under_his_own_key = sealed_at(3, 2, SystemTime::now(), &hello)[HEAD..].to_vec();
    let mut touched = sealed.to_vec();
    touched[0] ^= 1;
    let long = [&hello[..], &vec![0; sealed.len()]].concat();
    let whole = [&fitted, &touched, &long].map(|behind| [head, behind].concat());
    target.is_silent_to_all(&whole, "refused_flight").await;
    // Less than the head promised: it is waited for until there is no more time.
    let under_his_own_key = &under_his_own_key[..under_his_own_key.len().min(sealed.len() - 1)];
    let cut = [&hello[..50], under_his_own_key].map(|behind| [head, behind].concat());
    target.is_silent_to_all(&cut, "timeout").await;
    assert_eq!(target.knocks("accepted"), 0);
    let address = target.listener.socket.unwrap();
    let (found, _) = caught.let_go(address).await.expect("the original was never answered");
    assert_eq!(found, peer(2));
}

#[tokio::test]
async fn flights_swapped_between_two_dials_get_no_byte_whoever_dialled_and_for_which_mode() {
    let frames = config(2).with_peer(peer(3), Version::V3, Mode::Frames).unwrap();
    let target = Target::new(frames).await;
    let one = catch(config(1), 2).await;
    let again = catch(config(1), 2).await;
    let other = catch(config(3).with_mode(Mode::Frames), 2).await;
    let mut mixed = Vec::new();
    for (a, b) in [(&one, &again), (&one, &other), (&other, &again)] {
        assert_eq!(a.flight.len(), b.flight.len(), "or one would just wait for the rest");
        for (head, flight) in [(a, b), (b, a)] {
            mixed.push([&head.flight[..HEAD], &flight.flight[HEAD..]].concat());
        }
    }
    target.is_silent_to_all(&mixed, "refused_flight").await;
    assert_eq!(target.knocks("accepted"), 0);
    // So it was the mixing.
    for caught in [one, other] {
        caught
            .let_go(target.listener.socket.unwrap())
            .await
            .expect("as it was sent");
    }
}

#[tokio::test]
async fn when_a_copy_overtakes_the_original_the_dialers_next_attempt_gets_in() {
    let mut target = Target::closing_after(LATE, config(2).with_handshake_timeout(LATE)).await;
    let caught = catch(config(1), 2).await;
    let (answer, after) = target.listener.probe(&caught.flight).await;
    assert_eq!(answer[0], HANDSHAKE);
    assert!(!record_types(&answer).contains(&ALERT) && after >= LATE);
    assert!(target.listener.upgraded().await.is_err(), "a copy cannot finish TLS");

    let before = target.knocks("refused_replayed");
    let late = caught.let_go(target.listener.socket.unwrap()).await;
    assert!(late.is_err(), "the original is the replay now");
    assert_eq!(target.knocks("refused_replayed"), before + 1);
    target.lets_in(config(1)).await;
}

#[tokio::test]
async fn no_byte_of_the_old_knock_is_spoken_or_understood_where_the_sealed_one_is_configured() {
    // Nothing of a dial arrives: it is not tried again with the old one.
    let trap = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!(
        "/ip4/127.0.0.1/tcp/{}/tls/p2p/{}",
        trap.local_addr().unwrap().port(),
        peer(2)
    );
    let dial = authenticated(config(1).with_handshake_timeout(CLOSE))
        .dial(address.parse().unwrap(), dialer())
        .unwrap();
    let dial = tokio::spawn(dial);
    let (mut socket, _) = trap.accept().await.unwrap();
    let mut first = [0; HEAD];
    socket.read_exact(&mut first).await.unwrap();
    drop(socket);
    assert!(dial.await.unwrap().is_err());
    assert!(Gate::new(own(2), &Network::open()).open_box(&first).is_ok());
    assert!(trap.accept().now_or_never().is_none(), "there was a second attempt");

    // And what the attacker has from the days of the old one does not help him, with a listener that has just started too.
    let old = knock(1, 2).to_vec();
    let and_hello = [&old[..], &client_hello()].concat();
    for _ in 0..2 {
        let only_sealed = Target::new(config(2)).await;
        let old_for_another = Target::new(config(2).with_peer(peer(9), Version::V2, Mode::Yamux).unwrap()).await;
        for target in [&only_sealed, &old_for_another] {
            target.is_silent_to(&old, "timeout").await;
            target.is_silent_to(&and_hello, "refused_box").await;
            assert_eq!(target.knocks("accepted"), 0);
        }
    }
}

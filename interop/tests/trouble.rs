//! Peers that are killed, started again and stopped for a while, as processes really are.

#![cfg(unix)]

use anyhow::{Context as _, Result, ensure};
use interop::peer::{Peer, Transports, port};
use serde_json::json;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

/// Dropped, it is killed as `kill -9` does it.
fn peer(name: &str, seed: u64) -> Result<Peer> {
    Peer::spawn(env!("CARGO_BIN_EXE_peer"), Transports::Knock, name, seed, "ping")
}

fn connect(dialer: &mut Peer, listener: &Peer, target: &str) -> Result<()> {
    dialer.tell(&json!({"do": "dial", "address": target}))?;
    for (here, there) in [(&*dialer, listener), (listener, &*dialer)] {
        here.hear_with("connected", "peer", there.id)?;
        ensure!(here.hear_with("ping", "peer", there.id)?["ok"] == true);
    }
    Ok(())
}

/// Passes one connection on to `listener`, and returns what its dialer wrote before it had heard anything. Yields the
/// port to dial.
fn tap(listener: &Peer) -> Result<(u16, std::thread::JoinHandle<Result<Vec<u8>>>)> {
    let to = port(listener.knock()?).context("a port")?;
    let trap = TcpListener::bind("127.0.0.1:0")?;
    let at = trap.local_addr()?.port();
    let tapping = std::thread::spawn(move || {
        let (mut near, _) = trap.accept()?;
        let mut far = TcpStream::connect(("127.0.0.1", to))?;
        let (mut first, mut heard) = (vec![0; 8192], [0; 1]);
        let mut n = 0;
        // The dialer waits for the answer once it has written all of its flight.
        far.set_read_timeout(Some(Duration::from_millis(20)))?;
        near.set_read_timeout(Some(Duration::from_millis(20)))?;
        while far.peek(&mut heard).is_err() {
            if let Ok(more) = near.read(&mut first[n..]) {
                far.write_all(&first[n..n + more])?;
                n += more;
            }
        }
        first.truncate(n);
        for socket in [&near, &far] {
            socket.set_read_timeout(None)?;
        }
        for (mut from, mut to) in [(near.try_clone()?, far.try_clone()?), (far, near)] {
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut from, &mut to);
                let _ = to.shutdown(Shutdown::Write);
            });
        }
        Ok(first)
    });
    Ok((at, tapping))
}

/// Whether `bytes` are answered with nothing, neither a byte nor an end, for as long as an answer could take.
fn is_silence(listener: &Peer, bytes: &[u8]) -> Result<bool> {
    let mut socket = TcpStream::connect(("127.0.0.1", port(listener.knock()?).context("a port")?))?;
    socket.write_all(bytes)?;
    socket.set_read_timeout(Some(Duration::from_secs(1)))?;
    let read = socket.read(&mut [0]);
    Ok(matches!(read, Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)))
}

#[test]
fn whoever_is_killed_and_started_again_is_back_at_once_and_answers_nothing_that_was_answered_before() -> Result<()> {
    let listener = peer("listener", 2)?;
    let mut dialer = peer("dialer", 1)?;
    let (at, tapping) = tap(&listener)?;
    let through = format!("/ip4/127.0.0.1/tcp/{at}/tls/p2p/{}", listener.id);
    connect(&mut dialer, &listener, &through)?;
    let flight = tapping.join().expect("no panic")?;
    ensure!(flight.len() > 1000, "{} bytes are no first flight", flight.len());
    ensure!(is_silence(&listener, &flight)?, "it was answered twice");

    let id = listener.id;
    drop(listener);
    dialer.hear_with("closed", "peer", id)?;
    // What was answered is forgotten, and the knock is young enough to be answered by its time alone.
    let listener = peer("listener again", 2)?;
    ensure!(is_silence(&listener, &flight)?, "it was answered after the restart");
    let asked = Instant::now();
    connect(&mut dialer, &listener, &listener.knock_dial()?)?;
    ensure!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    ensure!(
        is_silence(&listener, &flight)?,
        "it was answered after a dial that was in order"
    );

    let id = dialer.id;
    drop(dialer);
    listener.hear_with("closed", "peer", id)?;
    let mut dialer = peer("dialer again", 1)?;
    connect(&mut dialer, &listener, &listener.knock_dial()?)
}

fn signal(peer: &Peer, name: &str) -> Result<()> {
    let sent = Command::new("kill")
        .args([name, &peer.process_id().to_string()])
        .status()?;
    ensure!(sent.success(), "kill {name}: {sent}");
    Ok(())
}

#[test]
fn a_listener_that_is_stopped_for_a_while_goes_on_where_it_was() -> Result<()> {
    let listener = peer("listener", 2)?;
    let (mut friend, mut other) = (peer("friend", 1)?, peer("other", 3)?);
    connect(&mut friend, &listener, &listener.knock_dial()?)?;

    signal(&listener, "-STOP")?;
    other.tell(&json!({"do": "dial", "address": listener.knock_dial()?}))?;
    // The kernel accepts for it, and then nothing comes.
    other.hear("dial_failed")?;
    signal(&listener, "-CONT")?;

    connect(&mut other, &listener, &listener.knock_dial()?)?;
    // The next one: the first is taken.
    friend.hear_that("ping", |event| event["ok"] == true)?;
    let closed = friend.told().iter().any(|event| event["event"] == "closed");
    ensure!(!closed, "the connection did not last");
    Ok(())
}

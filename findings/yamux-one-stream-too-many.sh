#!/usr/bin/env bash
# yamux 0.13.10, two ends with different limits.
#
# Behaviour: `max_num_streams` of the accepting end bounds the streams that the other end may have open. One more
# ends the whole connection with all its streams, and neither end is told why: streams and connection end as if
# closed in order.
#
# Seen, with 8 accepted and 16 allowed at the opener: the ninth stream opens and takes a write without an error;
# then both connections end without an error, and the opener's first stream reads Ok(0).
#
# For users: set the same bound at both ends, and take the end of a stream for what it is only after a mark of
# the protocol's own.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

mkdir -p finding/src
cat > finding/Cargo.toml <<'TOML'
[package]
name = "finding"
version = "0.0.0"
edition = "2024"

[dependencies]
yamux = "=0.13.10"
futures = "0.3"
tokio = { version = "1", features = ["full"] }
tokio-util = { version = "0.7", features = ["compat"] }
TOML
cat > finding/src/main.rs <<'RUST'
use futures::future::poll_fn;
use futures::{AsyncReadExt as _, AsyncWriteExt as _};
use std::time::Duration;
use tokio_util::compat::TokioAsyncReadCompatExt as _;
use yamux::{Config, Connection, Mode};

fn config(streams: usize) -> Config {
    let mut config = Config::default();
    config.set_max_num_streams(streams);
    config.set_max_connection_receive_window(None);
    config
}

#[tokio::main]
async fn main() {
    let (one, other) = tokio::io::duplex(1 << 16);
    let mut opener = Connection::new(one.compat(), config(16), Mode::Client);
    let mut acceptor = Connection::new(other.compat(), config(8), Mode::Server);
    let accepting = tokio::spawn(async move {
        let mut streams = Vec::new();
        loop {
            match poll_fn(|cx| acceptor.poll_next_inbound(cx)).await {
                Some(Ok(stream)) => streams.push(stream),
                Some(Err(error)) => return format!("{} streams, then {error}", streams.len()),
                None => return format!("{} streams, then the end", streams.len()),
            }
        }
    });
    let mut streams = Vec::new();
    for _ in 0..8 {
        streams.push(poll_fn(|cx| opener.poll_new_outbound(cx)).await.expect("opened"));
    }
    let (one_more, opened) = tokio::sync::oneshot::channel();
    let (ask, mut asked) = tokio::sync::oneshot::channel::<()>();
    let mut one_more = Some(one_more);
    let driving = tokio::spawn(async move {
        poll_fn(|cx| {
            if one_more.is_some() && std::pin::Pin::new(&mut asked).poll(cx).is_ready() {
                let std::task::Poll::Ready(stream) = opener.poll_new_outbound(cx) else { panic!("it has to wait") };
                let _ = one_more.take().expect("once").send(stream);
            }
            match opener.poll_next_inbound(cx) {
                std::task::Poll::Ready(Some(Err(error))) => std::task::Poll::Ready(format!("{error}")),
                std::task::Poll::Ready(None) => std::task::Poll::Ready("no error".to_owned()),
                _ => std::task::Poll::Pending,
            }
        })
        .await
    });
    for stream in &mut streams {
        stream.write_all(b"hello").await.expect("taken");
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut first = streams.swap_remove(0);
    let reading = tokio::spawn(async move { first.read(&mut [0; 16]).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    ask.send(()).expect("it runs");
    let mut ninth = opened.await.expect("it runs").expect("opens without an error");
    let written = ninth.write_all(b"hello").await;
    println!("the ninth stream opens, and its first write says {written:?}");
    println!("the acceptor: {}", accepting.await.unwrap());
    println!("the opener's first stream reads {:?}", reading.await.unwrap());
    println!("the opener's connection ends with {}", driving.await.unwrap());
}
RUST

expected='the ninth stream opens, and its first write says Ok(())
the acceptor: 8 streams, then the end
the opener'\''s first stream reads Ok(0)
the opener'\''s connection ends with no error'
seen=$(cd finding && cargo run --quiet)
printf '%s\n' "$seen"
[ "$seen" = "$expected" ] || {
    printf 'this has changed; expected:\n%s\n' "$expected" >&2
    exit 1
}

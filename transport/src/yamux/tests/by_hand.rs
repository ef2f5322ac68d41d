//! A connection that is polled by hand, over bytes that go out when they are flushed, as below TLS.

use crate::yamux::Config;
use crate::yamux::connection::Connection;
use crate::yamux::frame::{HEADER, Header, SYN};
use futures::FutureExt as _;
use futures::future::poll_fn;
use futures::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use futures::task::{ArcWake, noop_waker_ref, waker};
use libp2p_core::Endpoint;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

#[derive(Default)]
struct Wire {
    incoming: Vec<u8>,
    reader: Option<Waker>,
    held: Vec<u8>,
    sent: Vec<u8>,
    full: bool,
    writer: Option<Waker>,
}

#[derive(Clone, Default)]
struct Below(Arc<Mutex<Wire>>);

impl Below {
    fn set_full(&self, full: bool) {
        let mut wire = self.0.lock().expect("no panic");
        wire.full = full;
        if !full && let Some(writer) = wire.writer.take() {
            writer.wake();
        }
    }

    fn receive(&self, header: Header) {
        let mut wire = self.0.lock().expect("no panic");
        wire.incoming.extend(header.encode());
        if let Some(reader) = wire.reader.take() {
            reader.wake();
        }
    }

    fn sent(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.lock().expect("no panic").sent)
    }
}

impl AsyncRead for Below {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut wire = self.0.lock().expect("no panic");
        if wire.incoming.is_empty() {
            wire.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let n = buf.len().min(wire.incoming.len());
        buf[..n].copy_from_slice(&wire.incoming[..n]);
        wire.incoming.drain(..n);
        Poll::Ready(Ok(n))
    }
}

impl AsyncWrite for Below {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut wire = self.0.lock().expect("no panic");
        if wire.full {
            wire.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        wire.held.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let wire = &mut *self.0.lock().expect("no panic");
        wire.sent.append(&mut wire.held);
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(cx)
    }
}

/// The connection's task, and whether it has been woken.
struct Task {
    connection: Connection<Below>,
    woken: Arc<Flag>,
}

struct Flag(AtomicBool);

impl ArcWake for Flag {
    fn wake_by_ref(flag: &Arc<Self>) {
        flag.0.store(true, Ordering::SeqCst);
    }
}

impl Task {
    fn new(below: &Below) -> Self {
        Self {
            connection: Connection::new(below.clone(), Endpoint::Dialer, &Config::default()),
            woken: Arc::new(Flag(AtomicBool::new(true))),
        }
    }

    /// Runs for as long as it is woken: how many times.
    fn run(&mut self) -> usize {
        let waker = waker(self.woken.clone());
        let mut turns = 0;
        while self.woken.0.swap(false, Ordering::SeqCst) {
            assert!(self.connection.poll(&mut Context::from_waker(&waker)).is_pending());
            turns += 1;
            assert!(turns < 100, "it wakes itself for ever");
        }
        turns
    }
}

#[test]
fn what_was_flushed_goes_out_even_if_all_who_wait_to_write_have_given_up() {
    let below = Below::default();
    let mut task = Task::new(&below);
    let mut open = || {
        poll_fn(|cx| task.connection.poll_outbound(cx))
            .now_or_never()
            .expect("there is room")
            .expect("it is open")
    };
    let (mut writes, mut waiting) = (open(), [open(), open(), open()]);
    task.run();

    below.set_full(true);
    for stream in &mut waiting {
        let written = Pin::new(stream).poll_write(&mut Context::from_waker(noop_waker_ref()), b"never");
        assert!(written.is_pending());
    }
    below.set_full(false);
    assert_eq!(
        writes
            .write(b"hello")
            .now_or_never()
            .expect("there is room")
            .expect("writes"),
        5
    );
    writes
        .flush()
        .now_or_never()
        .expect("is done at once")
        .expect("flushes");
    assert_eq!(below.sent(), b"", "who flushes does not wait for it");

    task.run();
    let mut expected = Header::data(writes.id(), SYN, 5).encode().to_vec();
    expected.extend_from_slice(b"hello");
    assert_eq!(below.sent(), expected);
}

#[test]
fn a_connection_that_has_to_wait_for_the_socket_is_not_woken_by_what_its_streams_have_to_say() {
    let below = Below::default();
    let mut task = Task::new(&below);
    let stream = poll_fn(|cx| task.connection.poll_outbound(cx)).now_or_never();
    let mut stream = stream.expect("there is room").expect("it is open");
    assert_eq!(
        stream
            .write(b"hello")
            .now_or_never()
            .expect("there is room")
            .expect("writes"),
        5
    );
    task.run();
    below.set_full(true);
    drop(stream);
    assert_eq!(task.run(), 1, "to say that it was reset");
    below.receive(Header::ping(SYN, 7));
    assert_eq!(task.run(), 1, "to hear a question");
    let opened = poll_fn(|cx| task.connection.poll_outbound(cx)).now_or_never();
    assert_eq!((opened.is_some(), task.run()), (true, 0), "the answer has to wait");
    below.set_full(false);
    assert_eq!(task.run(), 1, "the socket wakes it");
    assert_eq!(below.sent().len(), HEADER + 5 + HEADER + HEADER);
}

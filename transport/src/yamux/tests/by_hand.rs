//! A connection that is polled by hand, over bytes that go out when they are flushed, as below TLS.

use crate::yamux::connection::Connection;
use crate::yamux::frame::{HEADER, Header, NORMAL, SYN};
use crate::yamux::{Config, Stream};
use futures::FutureExt as _;
use futures::future::poll_fn;
use futures::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
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
    /// The other end has closed.
    over: bool,
    /// We have.
    closed: bool,
    /// Nothing is taken any more.
    broken: bool,
    panics: bool,
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

    fn end(&self) {
        let mut wire = self.0.lock().expect("no panic");
        wire.over = true;
        if let Some(reader) = wire.reader.take() {
            reader.wake();
        }
    }

    fn is_closed(&self) -> bool {
        self.0.lock().expect("no panic").closed
    }

    fn sent(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.lock().expect("no panic").sent)
    }
}

impl AsyncRead for Below {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut wire = self.0.lock().expect("no panic");
        if wire.incoming.is_empty() && wire.over {
            return Poll::Ready(Ok(0));
        }
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
        let panics = wire.panics;
        if panics {
            drop(wire);
            panic!("the inner transport's own fault");
        }
        if wire.broken {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if wire.full {
            wire.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        wire.held.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let wire = &mut *self.0.lock().expect("no panic");
        if wire.full && !wire.held.is_empty() {
            wire.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        wire.sent.append(&mut wire.held);
        Poll::Ready(Ok(()))
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = self.as_mut().poll_flush(cx);
        self.0.lock().expect("no panic").closed |= flushed.is_ready();
        flushed
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

    fn open(&mut self) -> Stream<Below> {
        let opened = poll_fn(|cx| self.connection.poll_outbound(cx)).now_or_never();
        opened.expect("there is room").expect("it is open")
    }

    /// What the connection ends with, now that it was woken for it.
    fn ended(&mut self) -> io::Error {
        assert!(self.woken.0.swap(false, Ordering::SeqCst), "it was not woken");
        let waker = waker(self.woken.clone());
        match self.connection.poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(error) => error,
            Poll::Pending => panic!("it goes on"),
        }
    }
}

/// Writes without waiting.
fn put(stream: &mut Stream<Below>, bytes: &[u8]) {
    let written = stream.write(bytes).now_or_never().expect("there is room");
    assert_eq!(written.expect("writes"), bytes.len());
}

/// Closes without waiting.
fn shut(stream: &mut Stream<Below>) -> Result<(), io::ErrorKind> {
    let closed = stream.close().now_or_never().expect("is done at once");
    closed.map_err(|error| error.kind())
}

#[test]
fn a_stream_closes_after_the_other_end_has_closed_the_connection_in_order() {
    let farewells: [fn(&Below); 2] = [|below| below.receive(Header::go_away(NORMAL)), Below::end];
    for farewell in farewells {
        let below = Below::default();
        let mut task = Task::new(&below);
        let (mut idle, mut flushed, mut written) = (task.open(), task.open(), task.open());
        put(&mut flushed, b"question");
        assert!(flushed.flush().now_or_never().is_some());
        task.run();
        below.sent();
        put(&mut written, b"last words");
        farewell(&below);
        assert_eq!(task.ended().kind(), io::ErrorKind::ConnectionAborted);
        assert!(below.sent().ends_with(b"last words"), "what was taken goes out first");
        assert!(below.is_closed(), "and the close is answered");
        for stream in [&mut idle, &mut flushed, &mut written] {
            assert_eq!(shut(stream), Ok(()));
            assert_eq!(shut(stream), Ok(()), "a second time is harmless");
            let read = stream.read(&mut [0]).now_or_never().expect("nothing will come");
            assert_eq!(read.expect_err("cut off").kind(), io::ErrorKind::ConnectionAborted);
            let more = stream.write(b"more").now_or_never().expect("nothing can go");
            assert!(more.is_err());
        }
    }
}

#[test]
fn a_stream_whose_bytes_have_not_left_does_not_close_as_if_they_had_arrived() {
    let below = Below::default();
    let mut task = Task::new(&below);
    let (mut flushed, mut written) = (task.open(), task.open());
    put(&mut flushed, b"question");
    assert!(flushed.flush().now_or_never().is_some());
    task.run();
    put(&mut written, b"never sent");
    below.set_full(true);
    below.receive(Header::go_away(NORMAL));
    assert_eq!(task.ended().kind(), io::ErrorKind::ConnectionAborted);
    assert_eq!(shut(&mut flushed), Ok(()));
    assert_eq!(shut(&mut written), Err(io::ErrorKind::ConnectionAborted));
}

/// A kernel refuses to write to an end that has gone, and shows a moment later what that had said.
#[test]
fn when_nothing_can_be_written_any_more_the_other_ends_last_word_is_waited_for_but_not_for_ever() {
    for says_it in [true, false] {
        let below = Below::default();
        let mut task = Task::new(&below);
        let mut stream = task.open();
        put(&mut stream, b"question");
        assert!(stream.flush().now_or_never().is_some());
        task.run();
        below.0.lock().expect("no panic").broken = true;
        below.receive(Header::ping(SYN, 7));
        assert_eq!(task.run(), 1, "the answer goes nowhere, and it goes on reading");
        if says_it {
            below.receive(Header::go_away(NORMAL));
            assert_eq!(task.ended().kind(), io::ErrorKind::ConnectionAborted);
            assert_eq!(shut(&mut stream), Ok(()));
            continue;
        }
        let waited = std::time::Instant::now();
        while !task.woken.0.load(Ordering::SeqCst) {
            assert!(waited.elapsed().as_secs() < 20, "it waits for ever");
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        assert_eq!(task.ended().kind(), io::ErrorKind::BrokenPipe);
        assert_eq!(shut(&mut stream), Err(io::ErrorKind::BrokenPipe));
    }
}

#[test]
fn a_stream_does_not_close_in_order_when_the_connection_ended_in_an_error() {
    let below = Below::default();
    let mut task = Task::new(&below);
    let mut stream = task.open();
    task.run();
    below.receive(Header::go_away(2));
    let ended = task.ended();
    assert_eq!(ended.kind(), io::ErrorKind::ConnectionAborted);
    assert!(ended.to_string().contains("error code 2"), "{ended}");
    assert_eq!(shut(&mut stream), Err(io::ErrorKind::ConnectionAborted));

    // Part of a header, then the end.
    let below = Below::default();
    let mut task = Task::new(&below);
    let mut stream = task.open();
    task.run();
    below.0.lock().expect("no panic").incoming.extend([0; 3]);
    below.end();
    assert_eq!(task.ended().kind(), io::ErrorKind::UnexpectedEof);
    assert_eq!(shut(&mut stream), Err(io::ErrorKind::UnexpectedEof));
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

#[test]
fn a_connection_ends_when_what_is_below_panics_in_the_task_that_writes() {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    let below = Below::default();
    let mut task = Task::new(&below);
    let (mut writes, mut reads) = (task.open(), task.open());
    task.run();
    let reader = Arc::new(Flag(AtomicBool::new(false)));
    let waker = waker(reader.clone());
    let read = Pin::new(&mut reads).poll_read(&mut Context::from_waker(&waker), &mut [0]);
    assert!(read.is_pending());
    task.run();
    below.0.lock().expect("no panic").panics = true;
    let write = AssertUnwindSafe(|| writes.write(b"question").now_or_never());
    catch_unwind(write).expect_err("the panic reaches the task that writes");
    assert_eq!(task.ended().kind(), io::ErrorKind::Other);
    assert!(reader.0.load(Ordering::SeqCst), "its streams hear of it");
    let read = reads.read(&mut [0]).now_or_never().expect("nothing will come");
    assert_eq!(read.expect_err("cut off").kind(), io::ErrorKind::Other);
    let closed = poll_fn(|cx| task.connection.poll_close(cx)).now_or_never();
    closed.expect("there is nothing to wait for").expect_err("it is gone");
}

//! Two of ours over a pipe, driven by tasks on several threads.

use crate::muxed::Muxer;
use crate::yamux::{Config, ProtocolError, Stream};
use futures::future::poll_fn;
use futures::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use futures::stream::StreamExt as _;
use libp2p_core::muxing::StreamMuxerExt as _;
use libp2p_core::{Endpoint, StreamMuxer};
use std::io;
use std::task::Poll;
use std::time::Duration;
use tokio::io::DuplexStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt as _};

pub(super) type Pipe = Compat<DuplexStream>;

/// How long something may take that needs milliseconds.
const AT_ALL: Duration = Duration::from_secs(60);

/// A connection with a task that drives it, as a Swarm does.
pub(super) struct Driven<M: StreamMuxer> {
    requests: mpsc::UnboundedSender<Request<M>>,
    inbound: futures::channel::mpsc::UnboundedReceiver<M::Substream>,
    task: JoinHandle<io::Result<()>>,
}

enum Request<M: StreamMuxer> {
    Open(oneshot::Sender<M::Substream>),
    Close,
}

impl<M> Driven<M>
where
    M: StreamMuxer + Send + Unpin + 'static,
    M::Substream: Send + 'static,
    M::Error: Into<io::Error>,
{
    pub(super) fn new(muxer: M) -> Self {
        let (requests, asked) = mpsc::unbounded_channel();
        let (accepted, inbound) = futures::channel::mpsc::unbounded();
        Self {
            requests,
            inbound,
            task: tokio::spawn(drive(muxer, asked, accepted)),
        }
    }

    pub(super) async fn open(&self) -> M::Substream {
        let (answer, stream) = oneshot::channel();
        let _ = self.requests.send(Request::Open(answer));
        within(stream).await.expect("the connection is there")
    }

    pub(super) async fn accept(&mut self) -> M::Substream {
        within(self.inbound.next()).await.expect("the connection is there")
    }

    /// Closes the connection and says what came of it.
    pub(super) async fn close(self) -> io::Result<()> {
        let _ = self.requests.send(Request::Close);
        within(self.task).await.expect("does not panic")
    }

    /// Drops the connection without a word.
    async fn cut(self) {
        self.task.abort();
        let _ = within(self.task).await;
    }

    /// What the connection ended with.
    async fn ended(self) -> io::Error {
        within(self.task)
            .await
            .expect("does not panic")
            .expect_err("ends by itself")
    }
}

async fn drive<M>(
    mut muxer: M,
    mut asked: mpsc::UnboundedReceiver<Request<M>>,
    accepted: futures::channel::mpsc::UnboundedSender<M::Substream>,
) -> io::Result<()>
where
    M: StreamMuxer + Send + Unpin,
    M::Error: Into<io::Error>,
{
    let mut waiting: Option<oneshot::Sender<M::Substream>> = None;
    let mut closing = false;
    poll_fn(|cx| {
        loop {
            if closing {
                return muxer.poll_close_unpin(cx).map_err(Into::into);
            }
            if let Poll::Ready(event) = muxer.poll_unpin(cx) {
                event.map_err(Into::into)?;
                continue;
            }
            if waiting.is_none() {
                match asked.poll_recv(cx) {
                    Poll::Ready(Some(Request::Open(answer))) => waiting = Some(answer),
                    Poll::Ready(Some(Request::Close)) => {
                        closing = true;
                        continue;
                    }
                    Poll::Ready(None) | Poll::Pending => {}
                }
            }
            if waiting.is_some()
                && let Poll::Ready(stream) = muxer.poll_outbound_unpin(cx)
            {
                let stream = stream.map_err(Into::into)?;
                let _ = waiting.take().map(|answer| answer.send(stream));
                continue;
            }
            match muxer.poll_inbound_unpin(cx) {
                Poll::Ready(stream) => {
                    let _ = accepted.unbounded_send(stream.map_err(Into::into)?);
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await
}

/// Nothing here depends on how fast the machine is, but a hang has to end.
pub(super) async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(AT_ALL, work).await.expect("it hangs")
}

pub(super) fn ours(pipe: DuplexStream, side: Endpoint) -> Driven<Muxer<Pipe>> {
    ours_with(pipe, side, &Config::default())
}

fn ours_with(pipe: DuplexStream, side: Endpoint, config: &Config) -> Driven<Muxer<Pipe>> {
    Driven::new(Muxer::new(pipe.compat(), side, config, Duration::from_secs(5)))
}

/// Two of ours over a pipe that holds so many bytes each way.
fn pair(holds: usize) -> (Driven<Muxer<Pipe>>, Driven<Muxer<Pipe>>) {
    let (dialer, listener) = tokio::io::duplex(holds);
    (ours(dialer, Endpoint::Dialer), ours(listener, Endpoint::Listener))
}

/// A stream, both ends of it, over which a byte has gone each way.
async fn stream(dialer: &Driven<Muxer<Pipe>>, listener: &mut Driven<Muxer<Pipe>>) -> (Stream<Pipe>, Stream<Pipe>) {
    let mut ours = dialer.open().await;
    within(ours.write_all(b"?")).await.expect("writes");
    ours.flush().await.expect("flushes");
    let mut theirs = listener.accept().await;
    within(theirs.read_exact(&mut [0])).await.expect("reads");
    pass(&mut theirs, &mut ours).await;
    (ours, theirs)
}

/// A byte from one end of a stream to the other.
pub(super) async fn pass(from: &mut (impl AsyncWrite + Unpin), to: &mut (impl AsyncRead + Unpin)) {
    within(from.write_all(b"!")).await.expect("writes");
    within(from.flush()).await.expect("flushes");
    within(to.read_exact(&mut [0])).await.expect("reads");
}

/// Bytes that differ between streams and along each.
pub(super) fn bytes(stream: u32, n: usize) -> Vec<u8> {
    let mut state = u64::from(stream) + 1;
    (0..n)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
        .collect()
}

/// Writes everything in pieces of odd sizes while reading whatever comes to the end, both in one task, neither before
/// the other: nobody ever waits for anybody who waits for him.
pub(super) async fn exchange<S>(stream: S, send: Vec<u8>) -> io::Result<Vec<u8>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut reading, mut writing) = stream.split();
    let write = async {
        let (mut rest, mut size) = (&send[..], 1);
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(size.min(rest.len()));
            writing.write_all(piece).await?;
            rest = after;
            size = size * 3 % 70_001 + 1;
            if size % 4 == 0 {
                writing.flush().await?;
            }
        }
        writing.close().await
    };
    let read = async {
        let mut got = Vec::new();
        reading.read_to_end(&mut got).await?;
        Ok(got)
    };
    futures::future::try_join(write, read).await.map(|(_, got)| got)
}

/// Streams of both ends at once, each with so many bytes each way.
pub(super) async fn full_house<A, B>(one: &mut Driven<A>, other: &mut Driven<B>, streams: u32, n: usize)
where
    A: StreamMuxer + Send + Unpin + 'static,
    B: StreamMuxer + Send + Unpin + 'static,
    A::Substream: Send + Unpin + 'static,
    B::Substream: Send + Unpin + 'static,
    A::Error: Into<io::Error>,
    B::Error: Into<io::Error>,
{
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..streams {
        let stream = one.open().await;
        tasks.spawn(check(stream, bytes(number, n)));
        let stream = other.open().await;
        tasks.spawn(check(stream, bytes(number + 1000, n)));
    }
    for _ in 0..streams {
        let stream = one.accept().await;
        tasks.spawn(echo(stream));
        let stream = other.accept().await;
        tasks.spawn(echo(stream));
    }
    while let Some(done) = within(tasks.join_next()).await {
        done.expect("does not panic").expect("does not break");
    }
}

async fn check<S: AsyncRead + AsyncWrite + Unpin>(stream: S, sent: Vec<u8>) -> io::Result<()> {
    let got = exchange(stream, sent.clone()).await?;
    assert!(got == sent, "{} bytes came back of {}", got.len(), sent.len());
    Ok(())
}

async fn echo<S: AsyncRead + AsyncWrite + Unpin>(stream: S) -> io::Result<()> {
    let (reading, mut writing) = stream.split();
    futures::io::copy(reading, &mut writing).await?;
    writing.close().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn forty_streams_both_ways_arrive_whole_over_pipes_of_any_size() {
    for (holds, n) in [(1, 3_000), (13, 20_000), (1_000, 300_000), (1 << 20, 2 << 20)] {
        let (mut dialer, mut listener) = pair(holds);
        full_house(&mut dialer, &mut listener, 20, n).await;
        within(dialer.close()).await.expect("closes");
    }
}

#[tokio::test]
async fn the_same_on_a_single_thread() {
    let (mut dialer, mut listener) = pair(4_096);
    full_house(&mut dialer, &mut listener, 20, 300_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_nobody_reads_does_not_hold_up_the_others() {
    let (dialer, mut listener) = pair(100_000);
    let (mut unread, kept) = stream(&dialer, &mut listener).await;
    let writing = tokio::spawn(async move {
        let _ = unread.write_all(&vec![0; 10 << 20]).await;
    });
    for _ in 0..20 {
        let (ours, theirs) = stream(&dialer, &mut listener).await;
        let echoing = tokio::spawn(echo(theirs));
        let sent = bytes(1, 400_000);
        assert!(within(exchange(ours, sent.clone())).await.expect("works") == sent);
        within(echoing).await.expect("does not panic").expect("works");
    }
    assert!(!writing.is_finished(), "the window bounds what nobody reads");
    drop(kept);
    within(writing).await.expect("the reset ends it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_write_goes_out_with_the_flush_and_with_a_read_that_waits() {
    let (dialer, mut listener) = pair(1 << 16);
    let (mut ours, mut theirs) = stream(&dialer, &mut listener).await;
    let mut byte = [0];
    for _ in 0..100 {
        ours.write_all(b"a").await.expect("writes");
        ours.flush().await.expect("flushes");
        within(theirs.read_exact(&mut byte)).await.expect("it has gone out");
        theirs.write_all(b"b").await.expect("writes");
        let reading = tokio::spawn(async move {
            let mut byte = [0];
            let _ = within(theirs.read_exact(&mut byte)).await;
            theirs
        });
        within(ours.read_exact(&mut byte)).await.expect("it has gone out");
        ours.write_all(b"c").await.expect("writes");
        ours.flush().await.expect("flushes");
        theirs = within(reading).await.expect("does not panic");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_that_give_up_do_not_keep_the_others_waiting() {
    let (dialer, mut listener) = pair(1_000);
    let (mut writers, mut readers) = (Vec::new(), Vec::new());
    for _ in 0..20 {
        let (ours, theirs) = stream(&dialer, &mut listener).await;
        writers.push(ours);
        readers.push(theirs);
    }
    // The listener reads nothing until everybody has tried, and half of them have given up: some drop the write and keep the stream, some
    // drop the stream.
    let mut tasks = Vec::new();
    let (tried, mut tries) = mpsc::unbounded_channel();
    for (number, mut stream) in writers.into_iter().enumerate() {
        let tried = tried.clone();
        tasks.push(tokio::spawn(async move {
            let sent = bytes(7, 300_000);
            if number % 2 == 0 {
                let mut write = Box::pin(stream.write_all(&sent));
                let _ = futures::poll!(&mut write);
                drop(write);
                let _ = tried.send(());
                return (number % 4 == 0).then_some(stream);
            }
            let _ = tried.send(());
            stream.write_all(&sent).await.expect("writes");
            stream.close().await.expect("closes");
            None
        }));
    }
    for _ in 0..20 {
        within(tries.recv()).await.expect("there are twenty");
    }
    for (number, mut stream) in readers.into_iter().enumerate() {
        if number % 2 == 1 {
            let mut got = Vec::new();
            within(stream.read_to_end(&mut got)).await.expect("reads");
            assert!(got == bytes(7, 300_000));
        }
    }
    for task in tasks {
        within(task).await.expect("does not panic");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_cut_wakes_everybody_who_waits() {
    let (dialer, mut listener) = pair(1_000);
    // Nothing is ever sent on the first: whoever reads it waits.
    let (mut silent, _theirs) = stream(&dialer, &mut listener).await;
    let (ours, theirs) = stream(&dialer, &mut listener).await;
    let (_reading, mut writing) = ours.split();
    let (mut their_reading, mut their_writing) = theirs.split();
    let waits = [
        tokio::spawn(async move {
            let error = silent.read(&mut [0]).await.expect_err("cut off, not ended");
            error.kind()
        }),
        tokio::spawn(async move {
            let error = writing.write_all(&vec![0; 1 << 20]).await.expect_err("nobody reads");
            error.kind()
        }),
        tokio::spawn(async move {
            let error = their_writing
                .write_all(&vec![0; 1 << 20])
                .await
                .expect_err("nobody reads");
            error.kind()
        }),
    ];
    dialer.cut().await;
    // Which of them depends on what the listener was doing.
    let broken = [
        io::ErrorKind::BrokenPipe,
        io::ErrorKind::ConnectionAborted,
        io::ErrorKind::NotConnected,
        io::ErrorKind::UnexpectedEof,
    ];
    assert!(broken.contains(&listener.ended().await.kind()));
    for wait in waits {
        let kind = within(wait).await.expect("does not panic");
        assert!(broken.contains(&kind), "{kind}");
    }
    // What had come is still there, and its end is not an end.
    let mut got = Vec::new();
    within(their_reading.read_to_end(&mut got)).await.expect_err("cut off");
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_sends_what_was_written_before() {
    for n in [1, 100_000] {
        let (dialer, mut listener) = pair(1_000);
        let (mut ours, mut theirs) = stream(&dialer, &mut listener).await;
        let sent = bytes(3, n);
        let expected = sent.clone();
        let writing = tokio::spawn(async move {
            // Neither flushed nor closed.
            ours.write_all(&sent).await.expect("writes");
            ours
        });
        let reading = tokio::spawn(async move {
            let mut got = vec![0; n];
            theirs.read_exact(&mut got).await.expect("all of it");
            got
        });
        let ours = within(writing).await.expect("does not panic");
        within(dialer.close()).await.expect("closes");
        assert!(within(reading).await.expect("does not panic") == expected);
        let ended = listener.ended().await;
        assert_eq!(
            ended.kind(),
            io::ErrorKind::ConnectionAborted,
            "and the other end knows"
        );
        drop(ours);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_frames_end_the_connection_and_the_sender_is_told() {
    let (mut enemy, listener) = tokio::io::duplex(1_000);
    let listener = ours(listener, Endpoint::Listener);
    tokio::io::AsyncWriteExt::write_all(&mut enemy, b"GET / HTTP/1.1\r\n\r\n")
        .await
        .expect("writes");
    let error = listener.ended().await;
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    let source = error.get_ref().and_then(|error| error.downcast_ref::<ProtocolError>());
    assert_eq!(source, Some(&ProtocolError::Version(b'G')));
    let mut told = Vec::new();
    within(tokio::io::AsyncReadExt::read_to_end(&mut enemy, &mut told))
        .await
        .expect("reads");
    assert_eq!(
        hex::encode(told),
        "000300000000000000000001",
        "go away: a protocol error"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_enemy_who_pings_and_never_reads_is_not_read_for_ever() {
    let (enemy, listener) = tokio::io::duplex(1_000);
    let _listener = ours(listener, Endpoint::Listener);
    let (_reading, mut writing) = tokio::io::split(enemy);
    let flood = async {
        let ping = hex::decode("000200010000000000000000").expect("hex");
        let mut sent = 0;
        loop {
            tokio::io::AsyncWriteExt::write_all(&mut writing, &ping)
                .await
                .expect("writes");
            sent += 1;
            assert!(sent < 10_000, "it is read for ever");
        }
    };
    // It never ends by itself: the writes stop being taken. That they do is seen by time alone, and a machine that is slow
    // can only make this test pass too easily, never fail.
    assert!(tokio::time::timeout(Duration::from_secs(1), flood).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fourth_stream_where_three_are_allowed_waits_for_another_to_end() {
    let (dialer, listener) = tokio::io::duplex(1 << 20);
    let config = Config::default().with_max_substreams(3);
    let dialer = ours_with(dialer, Endpoint::Dialer, &config);
    let mut listener = ours_with(listener, Endpoint::Listener, &config);
    let mut streams = Vec::new();
    for _ in 0..3 {
        streams.push(stream(&dialer, &mut listener).await);
    }
    let (answer, mut waiting) = oneshot::channel();
    let _ = dialer.requests.send(Request::Open(answer));
    // Whoever has read the second answer has tried to open before: it reads once and then looks at what is asked of it.
    let (ours, theirs) = &mut streams[0];
    for _ in 0..2 {
        pass(ours, theirs).await;
        pass(theirs, ours).await;
    }
    assert!(waiting.try_recv().is_err());
    drop(streams.pop());
    within(waiting).await.expect("there is room");
}

//! One end of a connection: streams, windows, and what to say about them. Pure: headers and bytes come in, headers go out,
//! and whoever waits is named in [`Session::woken`].

mod receive;

use super::Config;
use super::chunks::Chunks;
use super::frame::{FIN, Header, NORMAL, RST, SYN};
use super::window::{Allowance, INITIAL, Window};
use libp2p_core::Endpoint;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::task::{Poll, Waker};
use std::time::Duration;
use web_time::Instant;

/// Streams that we may have opened and the other end has not acknowledged, and streams of its that nobody has accepted
/// here. Implementations of libp2p keep to the same number, so that nobody's streams are refused who counts.
pub(crate) const BACKLOG: usize = 256;

/// The most that one frame of ours carries: the other streams wait for it.
pub(crate) const MAX_FRAME: u32 = 64 * 1024;

/// Answers that may wait before we stop to listen, beyond one for each stream there may be: what a peer makes us say, it
/// has to hear. Far more than an honest one ever asks for at once, as two that wait for each other would do so for ever.
const MAX_ANSWERS: usize = 1024;

/// The least and the most dead streams that are remembered as told of their death, so that each hears of it once; between
/// them, as many as may be alive.
const MOURNED: [usize; 2] = [64, 1024];

/// How long a measured round trip is good for.
const ROUND_TRIP_AGE: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(crate) struct Session {
    side: Endpoint,
    max_streams: usize,
    allowance: Allowance,
    streams: HashMap<u32, Stream>,
    /// The number of our next stream, as long as there is one.
    next: Option<u32>,
    /// Streams of ours that the other end has not acknowledged.
    unacknowledged: usize,
    /// Streams of the other end's that nobody has accepted.
    accepting: VecDeque<u32>,
    /// Headers that have to be said, one behind the other.
    unsaid: Vec<u8>,
    /// How many of those the other end provoked.
    answers: usize,
    /// How many it provoked of those that were taken and have not gone out.
    answers_taken: usize,
    /// Dead streams that were told, the last first.
    mourned: VecDeque<u32>,
    round_trip: RoundTrip,
    pings: u32,
    /// Frames of data sent so far, and how many of the first of them have left for the other end.
    frames: u64,
    flushed: u64,
    ended: Option<Ended>,
    opener: Option<Waker>,
    acceptor: Option<Waker>,
    /// Who has to be woken, once nothing is locked.
    pub(crate) woken: Vec<Waker>,
}

/// Why a connection has no streams any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// We closed it.
    Here,
    /// The other end did, in order.
    There,
    /// The other end did because of an error, and gave this code for it.
    Aborted(u32),
    /// It broke.
    Broken(io::ErrorKind),
}

#[derive(Debug)]
struct Stream {
    /// What the next frame has to carry: SYN or ACK.
    flag: u16,
    /// The other end knows it.
    acknowledged: bool,
    /// What we may still send.
    credit: u32,
    /// Which frame of the connection carried the last of our data.
    last_frame: u64,
    window: Window,
    received: Chunks,
    /// We have said, and they have said, that nothing follows.
    finished: bool,
    they_finished: bool,
    reset: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

#[derive(Debug)]
enum RoundTrip {
    Unknown,
    Asked {
        value: u32,
        at: Instant,
        last: Option<Duration>,
    },
    Known {
        round_trip: Duration,
        at: Instant,
    },
}

/// Where the bytes behind a header go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Body {
    /// There are none.
    None,
    /// To this stream.
    Of(u32),
    /// Nowhere: the stream is gone.
    Skip,
}

impl Session {
    pub(crate) fn new(side: Endpoint, config: &Config) -> Self {
        Self {
            side,
            max_streams: config.max_substreams,
            allowance: Allowance {
                each: config.max_stream_window,
                rest: config.max_connection_window,
            },
            streams: HashMap::new(),
            next: Some(match side {
                Endpoint::Dialer => 1,
                Endpoint::Listener => 2,
            }),
            unacknowledged: 0,
            accepting: VecDeque::new(),
            unsaid: Vec::new(),
            answers: 0,
            answers_taken: 0,
            mourned: VecDeque::new(),
            round_trip: RoundTrip::Unknown,
            pings: 0,
            frames: 0,
            flushed: 0,
            ended: None,
            opener: None,
            acceptor: None,
            woken: Vec::new(),
        }
    }

    pub(crate) fn ended(&self) -> Option<Ended> {
        self.ended
    }

    /// Headers to say before anything else; taking them is promising to. [`Session::said`] when it is done.
    pub(crate) fn take_unsaid(&mut self) -> Vec<u8> {
        self.answers_taken += std::mem::take(&mut self.answers);
        std::mem::take(&mut self.unsaid)
    }

    pub(crate) fn has_unsaid(&self) -> bool {
        !self.unsaid.is_empty()
    }

    /// Everything that was taken has gone out.
    pub(crate) fn said(&mut self) {
        self.answers_taken = 0;
    }

    /// Whether more may be read: not while the other end leaves unheard what it made us say.
    pub(crate) fn listens(&self) -> bool {
        self.answers + self.answers_taken < MAX_ANSWERS.saturating_add(self.max_streams)
    }

    fn say(&mut self, header: Header) {
        self.unsaid.extend_from_slice(&header.encode());
    }

    fn answer(&mut self, header: Header) {
        self.answers += 1;
        self.say(header);
    }

    /// The end of a stream. Of one that the other end opened it is an answer: else whoever opens and never hears would
    /// make us remember without end.
    fn say_end(&mut self, header: Header) {
        if self.is_ours(header.id) {
            self.say(header);
        } else {
            self.answer(header);
        }
    }

    fn is_ours(&self, id: u32) -> bool {
        let ours = match self.side {
            Endpoint::Dialer => 1,
            Endpoint::Listener => 0,
        };
        id % 2 == ours
    }

    /// This stream is dead here, and the other end is told so.
    fn mourn(&mut self, id: u32) {
        let [least, most] = MOURNED;
        self.mourned.truncate(self.max_streams.clamp(least, most) - 1);
        self.mourned.push_front(id);
    }

    // What the connection's owner does.

    /// A new stream of ours. The other end learns of it with its first frame. Waits while there are too many streams, or
    /// too many that the other end has not acknowledged; an error when there never will be another one.
    pub(crate) fn open(&mut self, now: Instant, waker: &Waker) -> Poll<io::Result<u32>> {
        if let Some(ended) = self.ended {
            return Poll::Ready(Err(ended.into()));
        }
        let Some(id) = self.next else {
            return Poll::Ready(Err(io::Error::other(
                "a connection has two thousand million streams, and all were used",
            )));
        };
        if self.streams.len() >= self.max_streams || self.unacknowledged >= BACKLOG {
            self.opener = Some(waker.clone());
            return Poll::Pending;
        }
        self.next = id.checked_add(2);
        self.unacknowledged += 1;
        self.streams.insert(id, Stream::new(SYN, INITIAL, now));
        Poll::Ready(Ok(id))
    }

    /// A new stream of the other end's.
    pub(crate) fn accept(&mut self, waker: &Waker) -> Poll<io::Result<u32>> {
        if let Some(id) = self.accepting.pop_front() {
            return Poll::Ready(Ok(id));
        }
        if let Some(ended) = self.ended {
            return Poll::Ready(Err(ended.into()));
        }
        self.acceptor = Some(waker.clone());
        Poll::Pending
    }

    /// The owner closes the connection: no stream sends any more, and the other end is told.
    pub(crate) fn close(&mut self) {
        if self.ended.is_none() {
            self.say(Header::go_away(NORMAL));
            self.end(Ended::Here);
        }
    }

    /// Nothing comes and nothing goes any more. What has been received can still be read.
    pub(crate) fn end(&mut self, ended: Ended) {
        if self.ended.is_some() {
            return;
        }
        self.ended = Some(ended);
        self.woken.extend(self.opener.take());
        self.woken.extend(self.acceptor.take());
        for stream in self.streams.values_mut() {
            stream.wake(&mut self.woken);
        }
    }

    // What a stream's owner does.

    /// What has come for a stream, all of it, once `read` bytes of what came before have been read. Nothing at the end
    /// of the stream. What was received is there even if the connection is gone.
    pub(crate) fn receive(
        &mut self,
        id: u32,
        read: u32,
        now: Instant,
        waker: &Waker,
    ) -> Poll<io::Result<Option<Chunks>>> {
        self.read(id, read, now);
        let ended = self.ended;
        let Some(stream) = self.streams.get_mut(&id) else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        if !stream.received.is_empty() {
            return Poll::Ready(Ok(Some(std::mem::take(&mut stream.received))));
        }
        if stream.they_finished {
            return Poll::Ready(Ok(None));
        }
        if stream.reset {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if let Some(ended) = ended {
            return Poll::Ready(Err(ended.into()));
        }
        // Whoever waits for the answer on a stream of ours counts on the other end having heard of it.
        if stream.flag == SYN {
            stream.flag = 0;
            self.unsaid
                .extend_from_slice(&Header::window_update(id, SYN, 0).encode());
        }
        stream.reader = Some(waker.clone());
        Poll::Pending
    }

    /// `n` bytes of a stream have been read, so more may come.
    pub(crate) fn read(&mut self, id: u32, n: u32, now: Instant) {
        if self.ended.is_some() {
            return;
        }
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        stream.window.read(n);
        if stream.they_finished || stream.reset || !stream.window.is_due() {
            return;
        }
        let round_trip = self.round_trip.known();
        if let Some(credit) = stream.window.grant(now, round_trip, &mut self.allowance) {
            let flag = std::mem::take(&mut stream.flag);
            self.say(Header::window_update(id, flag, credit));
        }
        // Only who receives much needs to know how long a round trip is: an idle connection is never pinged.
        if self.round_trip.is_wanted(now) {
            let value = self.pings;
            self.pings = self.pings.wrapping_add(1);
            self.round_trip = RoundTrip::Asked {
                value,
                at: now,
                last: round_trip,
            };
            self.say(Header::ping(SYN, value));
        }
    }

    /// The header for as much of `n` bytes as the stream may send now; [`Session::sent`] when it is said.
    pub(crate) fn may_send(&mut self, id: u32, n: usize, waker: &Waker) -> Poll<io::Result<Header>> {
        let ended = self.ended;
        let Some(stream) = self.streams.get_mut(&id) else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        if stream.reset {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if let Some(ended) = ended {
            return Poll::Ready(Err(ended.into()));
        }
        if stream.finished {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if stream.credit == 0 {
            stream.writer = Some(waker.clone());
            return Poll::Pending;
        }
        let n = u32::try_from(n).unwrap_or(u32::MAX).min(stream.credit).min(MAX_FRAME);
        Poll::Ready(Ok(Header::data(id, stream.flag, n)))
    }

    /// A header that [`Session::may_send`] made has gone out, or will before anything else.
    pub(crate) fn sent(&mut self, header: Header) {
        if let Some(stream) = self.streams.get_mut(&header.id) {
            self.frames += 1;
            stream.last_frame = self.frames;
            stream.credit -= header.length;
            stream.flag = 0;
        }
    }

    /// All data sent so far has left for the other end, but for that of the last few frames.
    pub(crate) fn flushed(&mut self, but: u64) {
        self.flushed = self.frames - but;
    }

    /// Nothing follows on this stream. After the end of the connection the other end cannot be
    /// told, which is no error if all data of this stream has left and the other end wanted nothing
    /// more of it: it has closed the connection in order, or its own direction of the stream
    /// before.
    pub(crate) fn finish(&mut self, id: u32) -> io::Result<()> {
        let ended = self.ended;
        let Some(stream) = self.streams.get_mut(&id) else {
            return Ok(());
        };
        // Who has closed the stream and then forgotten it wants nothing more of it, its end included.
        if stream.finished || (stream.reset && stream.they_finished) {
            return Ok(());
        }
        if stream.reset {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        if let Some(ended) = ended {
            let through = ended == Ended::There || (ended != Ended::Here && stream.they_finished);
            if through && stream.last_frame <= self.flushed {
                stream.finished = true;
                return Ok(());
            }
            return Err(ended.into());
        }
        stream.finished = true;
        let flag = std::mem::take(&mut stream.flag);
        self.say_end(Header::data(id, FIN | flag, 0));
        Ok(())
    }

    /// Nobody will read or write this stream any more. One that was not closed is reset, or closed where the other end
    /// has closed it already. One that was closed is reset if the other end may wait to write: it would do so for ever.
    /// One that the other end never heard of is forgotten without a word.
    pub(crate) fn forget(&mut self, id: u32) {
        let Some(mut stream) = self.streams.remove(&id) else {
            return;
        };
        stream.window.end(&mut self.allowance);
        if !stream.acknowledged {
            self.unacknowledged -= 1;
        }
        self.woken.extend(self.opener.take());
        if self.ended.is_some() || stream.reset || stream.flag == SYN {
            return;
        }
        match (stream.finished, stream.they_finished) {
            (false, true) => self.say_end(Header::data(id, FIN | stream.flag, 0)),
            // Who has some of the window left is told when the next of it comes.
            (true, false) if !stream.window.is_spent() => {}
            (_, false) => {
                self.mourn(id);
                self.say_end(Header::data(id, RST | stream.flag, 0));
            }
            (true, true) => {}
        }
    }
}

impl Stream {
    fn new(flag: u16, credit: u32, now: Instant) -> Self {
        Self {
            flag,
            acknowledged: false,
            credit,
            last_frame: 0,
            window: Window::new(now),
            received: Chunks::default(),
            finished: false,
            they_finished: false,
            reset: false,
            reader: None,
            writer: None,
        }
    }

    fn wake(&mut self, woken: &mut Vec<Waker>) {
        woken.extend(self.reader.take());
        woken.extend(self.writer.take());
    }
}

impl RoundTrip {
    fn known(&self) -> Option<Duration> {
        match self {
            Self::Unknown => None,
            Self::Asked { last, .. } => *last,
            Self::Known { round_trip, .. } => Some(*round_trip),
        }
    }

    fn is_wanted(&self, now: Instant) -> bool {
        match self {
            Self::Unknown => true,
            Self::Asked { .. } => false,
            Self::Known { at, .. } => now.saturating_duration_since(*at) >= ROUND_TRIP_AGE,
        }
    }
}

impl From<Ended> for io::Error {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Here => Self::new(io::ErrorKind::NotConnected, "the connection is closed"),
            Ended::There => Self::new(
                io::ErrorKind::ConnectionAborted,
                "the other end has closed the connection",
            ),
            Ended::Aborted(code) => Self::new(
                io::ErrorKind::ConnectionAborted,
                format!("the other end has closed the connection with yamux error code {code}"),
            ),
            Ended::Broken(kind) => kind.into(),
        }
    }
}

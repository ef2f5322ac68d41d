//! What every test of the muxer needs, and the pure part.

mod by_hand;
mod harness;
mod hostile;
mod live;
mod model;
mod stock;

use super::Config;
use super::frame::{ACK, FIN, HEADER, Header, Kind, RST, SYN};
use super::session::{BACKLOG, Body, Ended, MAX_FRAME, Session};
use super::window::INITIAL;
use futures::task::noop_waker;
use libp2p_core::Endpoint;
use std::io;
use std::task::{Poll, Waker};
use std::time::Duration;
use web_time::Instant;

/// Two ends, and time. What one says reaches the other whole, when it is told to.
struct Two {
    dialer: Session,
    listener: Session,
    now: Instant,
}

impl Two {
    fn new() -> Self {
        Self::with(&Config::default())
    }

    fn with(config: &Config) -> Self {
        Self {
            dialer: Session::new(Endpoint::Dialer, config),
            listener: Session::new(Endpoint::Listener, config),
            now: Instant::now(),
        }
    }

    fn open(&mut self) -> u32 {
        ready(self.dialer.open(self.now, &waker())).expect("opens")
    }

    /// A stream of the dialer's that the listener has accepted and answered.
    fn opened(&mut self) -> u32 {
        let id = self.open();
        self.dialer_sends(id, b"?").expect("credit");
        assert_eq!(ready(self.listener.accept(&waker())).expect("accepts"), id);
        self.listener_sends(id, b"!").expect("credit");
        id
    }

    fn dialer_sends(&mut self, id: u32, bytes: &[u8]) -> io::Result<usize> {
        let headers = tell(&mut self.dialer, &mut self.listener, self.now, Some((id, bytes)));
        headers.map(|(_, sent)| sent)
    }

    fn listener_sends(&mut self, id: u32, bytes: &[u8]) -> io::Result<usize> {
        let headers = tell(&mut self.listener, &mut self.dialer, self.now, Some((id, bytes)));
        headers.map(|(_, sent)| sent)
    }

    /// The headers that went over.
    fn dialer_says(&mut self) -> Vec<Header> {
        tell(&mut self.dialer, &mut self.listener, self.now, None)
            .expect("no data")
            .0
    }

    fn listener_says(&mut self) -> Vec<Header> {
        tell(&mut self.listener, &mut self.dialer, self.now, None)
            .expect("no data")
            .0
    }
}

/// What `from` has to say, and a frame of data behind it, heard by `to`.
fn tell(
    from: &mut Session,
    to: &mut Session,
    now: Instant,
    data: Option<(u32, &[u8])>,
) -> io::Result<(Vec<Header>, usize)> {
    let mut wire = from.take_unsaid();
    from.said();
    let mut sent = Ok(0);
    if let Some((id, bytes)) = data
        && let Poll::Ready(header) = from.may_send(id, bytes.len(), &waker())
    {
        sent = header.map(|header| {
            let n = header.length as usize;
            wire.extend(header.encode());
            wire.extend(&bytes[..n]);
            from.sent(header);
            n
        });
    }
    let headers = hear(to, &wire, now).expect("honest");
    sent.map(|sent| (headers, sent))
}

/// Whole frames.
fn hear(to: &mut Session, mut wire: &[u8], now: Instant) -> Result<Vec<Header>, super::ProtocolError> {
    let mut headers = Vec::new();
    while let Some((header, rest)) = wire.split_first_chunk::<HEADER>() {
        let header = Header::decode(header)?;
        headers.push(header);
        wire = rest;
        let of = to.header(header, now)?;
        let length = if header.kind == Kind::Data {
            header.length as usize
        } else {
            0
        };
        let (body, rest) = wire.split_at(length.min(wire.len()));
        wire = rest;
        for piece in body.chunks(super::chunks::CHUNK) {
            if let Body::Of(id) = of {
                let mut chunk = super::chunks::chunk();
                chunk[..piece.len()].copy_from_slice(piece);
                let _ = to.body(id, chunk, piece.len());
            }
        }
        assert_eq!(of == Body::None, length == 0, "bytes go somewhere");
    }
    Ok(headers)
}

/// Everything that a stream holds, and the end of it.
fn read(session: &mut Session, id: u32, now: Instant) -> Poll<io::Result<Vec<u8>>> {
    match session.receive(id, 0, now, &waker()) {
        Poll::Pending => Poll::Pending,
        Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
        Poll::Ready(Ok(None)) => Poll::Ready(Ok(Vec::new())),
        Poll::Ready(Ok(Some(mut chunks))) => {
            let mut bytes = vec![0; 16 << 20];
            let n = chunks.read(&mut bytes);
            bytes.truncate(n);
            session.read(id, u32::try_from(n).expect("a window"), now);
            Poll::Ready(Ok(bytes))
        }
    }
}

fn waker() -> Waker {
    noop_waker()
}

fn ready<T>(poll: Poll<T>) -> T {
    match poll {
        Poll::Ready(done) => done,
        Poll::Pending => panic!("it waits"),
    }
}

fn kind<T: std::fmt::Debug>(poll: Poll<io::Result<T>>) -> io::ErrorKind {
    ready(poll).expect_err("fails").kind()
}

#[test]
fn a_stream_is_announced_and_acknowledged_with_its_first_frames() {
    let mut two = Two::new();
    let id = two.open();
    assert_eq!(id, 1);
    assert!(two.dialer_says().is_empty(), "opening says nothing");
    two.dialer_sends(id, b"question").expect("credit");
    assert_eq!(ready(two.listener.accept(&waker())).expect("accepts"), id);
    assert_eq!(ready(read(&mut two.listener, id, two.now)).expect("data"), b"question");
    let (headers, _) = tell(&mut two.listener, &mut two.dialer, two.now, Some((id, b"answer"))).expect("credit");
    assert_eq!(headers, [Header::data(id, ACK, 6)]);
    let (headers, _) = tell(&mut two.dialer, &mut two.listener, two.now, Some((id, b"more"))).expect("credit");
    assert_eq!(headers, [Header::data(id, 0, 4)], "once is enough");
}

#[test]
fn who_reads_first_on_a_stream_of_his_own_has_it_announced() {
    let mut two = Two::new();
    let id = two.open();
    assert!(read(&mut two.dialer, id, two.now).is_pending());
    assert!(read(&mut two.dialer, id, two.now).is_pending());
    assert_eq!(two.dialer_says(), [Header::window_update(id, SYN, 0)]);
    assert_eq!(ready(two.listener.accept(&waker())).expect("accepts"), id);
}

#[test]
fn a_sender_stops_at_the_end_of_the_window_and_goes_on_when_half_of_it_is_read() {
    let mut two = Two::new();
    let id = two.opened();
    let bytes = vec![7; 1 << 20];
    let mut sent = 0;
    loop {
        let n = two.dialer_sends(id, &bytes).expect("open");
        assert!(n <= MAX_FRAME as usize);
        if n == 0 {
            break;
        }
        sent += n;
    }
    assert_eq!(sent + 1, INITIAL as usize, "with the byte that opened it");
    assert!(two.listener_says().is_empty(), "nothing was read");
    assert_eq!(
        ready(read(&mut two.listener, id, two.now)).expect("data").len(),
        INITIAL as usize
    );
    let said = two.listener_says();
    assert_eq!(said[0], Header::window_update(id, 0, INITIAL));
    assert_eq!(said[1].kind, Kind::Ping, "who receives much measures the round trip");
    assert_eq!(two.dialer_sends(id, &bytes).expect("open"), MAX_FRAME as usize);
}

#[test]
fn a_window_grows_with_the_round_trip_and_an_idle_connection_is_never_pinged() {
    let mut two = Two::new();
    let id = two.opened();
    let fill = |two: &mut Two| {
        let mut sent = 0;
        while let n @ 1.. = two.dialer_sends(id, &[1; 1 << 16]).expect("open") {
            sent += n;
        }
        let _ = ready(read(&mut two.listener, id, two.now));
        sent
    };
    for _ in 0..100 {
        two.dialer_sends(id, b"?").expect("credit");
        two.listener_sends(id, b"!").expect("credit");
        assert!(two.dialer_says().is_empty() && two.listener_says().is_empty());
    }
    fill(&mut two);
    assert!(
        two.listener_says()
            .iter()
            .any(|header| header.kind == Kind::Ping && header.has(SYN))
    );
    two.now += Duration::from_millis(40);
    assert!(
        two.dialer_says()
            .iter()
            .any(|header| header.kind == Kind::Ping && header.has(ACK))
    );
    assert_eq!(fill(&mut two), INITIAL as usize);
    let said = two.listener_says();
    assert_eq!(
        said,
        [Header::window_update(id, 0, 2 * INITIAL)],
        "a window in less than two round trips; and one ping does for ten seconds"
    );
    two.now += Duration::from_secs(10);
    assert_eq!(fill(&mut two), 2 * INITIAL as usize);
    let said = two.listener_says();
    assert_eq!(
        said[0],
        Header::window_update(id, 0, 2 * INITIAL),
        "a window in ten seconds"
    );
    assert!(said[1].kind == Kind::Ping);
}

#[test]
fn an_answer_to_a_question_that_was_not_asked_tells_nothing() {
    let mut two = Two::new();
    let id = two.opened();
    while two.dialer_sends(id, &[1; 1 << 16]).expect("open") > 0 {}
    let _ = ready(read(&mut two.listener, id, two.now));
    let asked = two.listener_says();
    let ping = asked.iter().find(|header| header.kind == Kind::Ping).expect("asks");
    hear(&mut two.listener, &Header::ping(ACK, ping.length + 1).encode(), two.now).expect("is ignored");
    while two.dialer_sends(id, &[1; 1 << 16]).expect("open") > 0 {}
    let _ = ready(read(&mut two.listener, id, two.now));
    assert_eq!(
        two.listener_says(),
        [Header::window_update(id, 0, INITIAL)],
        "no round trip, no larger window"
    );
}

#[test]
fn the_end_of_a_direction_comes_behind_its_data_and_the_other_direction_goes_on() {
    let mut two = Two::new();
    let id = two.opened();
    two.dialer_sends(id, b"last").expect("credit");
    two.dialer.finish(id).expect("open");
    two.dialer.finish(id).expect("a second time is harmless");
    assert_eq!(two.dialer_says(), [Header::data(id, FIN, 0)]);
    assert_eq!(kind(two.dialer.may_send(id, 1, &waker())), io::ErrorKind::BrokenPipe);
    assert_eq!(ready(read(&mut two.listener, id, two.now)).expect("data"), b"?last");
    assert_eq!(ready(read(&mut two.listener, id, two.now)).expect("the end"), b"");
    two.listener_sends(id, b"answer").expect("credit");
    assert_eq!(ready(read(&mut two.dialer, id, two.now)).expect("data"), b"!answer");
    assert!(read(&mut two.dialer, id, two.now).is_pending());
}

#[test]
fn a_dropped_stream_is_reset_closed_or_forgotten_as_the_case_may_be() {
    // Open: reset. What had come can still be read, and then the reset shows.
    let mut two = Two::new();
    let id = two.opened();
    two.dialer_sends(id, b"last").expect("credit");
    two.dialer.forget(id);
    assert_eq!(two.dialer_says(), [Header::data(id, RST, 0)]);
    assert_eq!(ready(read(&mut two.listener, id, two.now)).expect("data"), b"?last");
    assert_eq!(
        kind(read(&mut two.listener, id, two.now)),
        io::ErrorKind::ConnectionReset
    );
    assert_eq!(
        kind(two.listener.may_send(id, 1, &waker())),
        io::ErrorKind::ConnectionReset
    );
    assert_eq!(
        two.listener.finish(id).expect_err("reset").kind(),
        io::ErrorKind::ConnectionReset
    );
    two.listener.forget(id);
    assert!(two.listener_says().is_empty(), "both know");

    // Closed by the other end: closed.
    let mut two = Two::new();
    let id = two.opened();
    two.listener.finish(id).expect("open");
    two.listener_says();
    two.dialer.forget(id);
    assert_eq!(two.dialer_says(), [Header::data(id, FIN, 0)]);

    // Closed: nothing more, until the other end goes on sending. It hears of it once.
    let mut two = Two::new();
    let id = two.opened();
    two.dialer.finish(id).expect("open");
    two.dialer.forget(id);
    assert_eq!(two.dialer_says(), [Header::data(id, FIN, 0)]);
    for _ in 0..3 {
        two.listener_sends(id, b"more").expect("credit");
    }
    assert_eq!(two.dialer_says(), [Header::data(id, RST, 0)]);
    assert_eq!(ready(read(&mut two.listener, id, two.now)).expect("data"), b"?");
    assert_eq!(
        ready(read(&mut two.listener, id, two.now)).expect("closed before it was reset"),
        b""
    );
    two.listener.finish(id).expect("there is nobody to tell");

    // Never announced: never mentioned.
    let mut two = Two::new();
    let id = two.open();
    two.dialer.forget(id);
    assert!(two.dialer_says().is_empty());
    assert_eq!(two.open(), id + 2, "and its number is not used again");
}

/// What the listener sends on a stream until it has to wait: whole frames, which nobody has heard yet.
fn fill(two: &mut Two, id: u32) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    while let Poll::Ready(header) = two.listener.may_send(id, usize::MAX, &waker()) {
        let header = header.expect("open");
        two.listener.sent(header);
        let mut frame = header.encode().to_vec();
        frame.resize(HEADER + header.length as usize, 7);
        frames.push(frame);
    }
    frames
}

#[test]
fn who_has_filled_the_window_of_a_stream_that_is_closed_and_dropped_learns_of_it_and_both_have_its_place_back() {
    let mut two = Two::with(&Config::default().with_max_substreams(1));
    for _ in 0..3 {
        let id = two.opened();
        for frame in fill(&mut two, id) {
            hear(&mut two.dialer, &frame, two.now).expect("honest");
        }
        two.dialer.finish(id).expect("open");
        two.dialer.forget(id);
        two.listener.woken.clear();
        assert_eq!(two.dialer_says(), [Header::data(id, FIN, 0), Header::data(id, RST, 0)]);
        assert_eq!(two.listener.woken.len(), 1, "the writer");
        assert_eq!(
            kind(two.listener.may_send(id, 1, &waker())),
            io::ErrorKind::ConnectionReset
        );
        assert_eq!(ready(read(&mut two.listener, id, two.now)).expect("data"), b"?");
        assert_eq!(
            ready(read(&mut two.listener, id, two.now)).expect("closed before it was reset"),
            b""
        );
        two.listener.forget(id);
        assert!(two.listener_says().is_empty(), "both know");
    }
}

#[test]
fn who_fills_the_window_with_what_is_under_way_when_the_stream_is_dropped_learns_of_it_once() {
    for arrived in 0..4 {
        let mut two = Two::new();
        let id = two.opened();
        let frames = fill(&mut two, id);
        let (before, behind) = frames.split_at(arrived);
        assert!(!behind.is_empty());
        for frame in before {
            hear(&mut two.dialer, frame, two.now).expect("honest");
        }
        two.dialer.finish(id).expect("open");
        two.dialer.forget(id);
        two.listener.woken.clear();
        assert_eq!(
            two.dialer_says(),
            [Header::data(id, FIN, 0)],
            "there is something left that may be sent"
        );
        for frame in behind {
            hear(&mut two.dialer, frame, two.now).expect("honest");
        }
        assert_eq!(two.dialer_says(), [Header::data(id, RST, 0)]);
        assert_eq!(two.listener.woken.len(), 1, "the writer");
    }

    // Between the last header and its bytes: they were counted, and nothing that could be answered follows.
    let mut two = Two::new();
    let id = two.opened();
    let mut wire = fill(&mut two, id).concat();
    let last = wire.split_off(wire.len() - 10);
    let first = wire.len() - (MAX_FRAME as usize - 11) - HEADER;
    hear(&mut two.dialer, &wire[..first], two.now).expect("honest");
    let header = Header::decode(wire[first..].first_chunk().expect("a header")).expect("a header");
    assert_eq!(two.dialer.header(header, two.now), Ok(Body::Of(id)));
    two.dialer.finish(id).expect("open");
    two.dialer.forget(id);
    assert_eq!(two.dialer_says(), [Header::data(id, FIN, 0), Header::data(id, RST, 0)]);
    assert!(two.dialer.body(id, last, 10).is_some(), "nobody wants them");
    assert!(!two.dialer.has_unsaid());
}

#[test]
fn each_dead_stream_hears_of_it_once_whatever_is_under_way() {
    let too_late = |two: &mut Two, ids: &[u32]| {
        for id in ids {
            let mut frame = Header::data(*id, 0, 1).encode().to_vec();
            frame.push(b'x');
            hear(&mut two.dialer, &frame, two.now).expect("honest");
        }
        two.dialer_says().len()
    };

    // Open: told when it is dropped.
    let mut two = Two::new();
    let ids: Vec<_> = (0..500).map(|_| two.opened()).collect();
    ids.iter().for_each(|id| two.dialer.forget(*id));
    assert_eq!(two.dialer_says().len(), ids.len());
    assert_eq!(too_late(&mut two, &ids), 0);

    // Closed: told when something comes.
    let mut two = Two::new();
    let ids: Vec<_> = (0..500).map(|_| two.opened()).collect();
    for id in &ids {
        two.dialer.finish(*id).expect("open");
        two.dialer.forget(*id);
    }
    assert_eq!(two.dialer_says().len(), ids.len());
    assert_eq!(too_late(&mut two, &ids), ids.len());
    assert_eq!(too_late(&mut two, &ids), 0);

    // Refused: told at once.
    let mut two = Two::with(&Config::default().with_max_substreams(0));
    hear(&mut two.dialer, &Header::window_update(2, SYN, 0).encode(), two.now).expect("is no fault");
    assert_eq!(two.dialer_says(), [Header::data(2, RST, 0)]);
    assert_eq!(too_late(&mut two, &[2]), 0);
}

#[test]
fn streams_that_we_drop_do_not_stop_us_from_listening() {
    // Ours, however many: the other end has not provoked that. Taken is not sent.
    let mut two = Two::new();
    for _ in 0..5000 {
        let id = two.open();
        let header = ready(two.dialer.may_send(id, 1, &waker())).expect("open");
        two.dialer.sent(header);
        two.dialer.finish(id).expect("open");
        two.dialer.forget(id);
        let taken = two.dialer.take_unsaid();
        assert_eq!(taken, Header::data(id, FIN, 0).encode());
        assert!(two.dialer.listens());
    }

    // Theirs, as many as there may be at once.
    const STREAMS: usize = 5000;
    let mut two = Two::with(&Config::default().with_max_substreams(STREAMS));
    let ids: Vec<_> = (0..STREAMS).map(|_| two.opened()).collect();
    ids.iter().for_each(|id| two.listener.forget(*id));
    assert!(two.listener.listens());
    assert_eq!(two.listener.take_unsaid().len(), STREAMS * HEADER);
    assert!(two.listener.listens());
}

#[test]
fn the_257th_stream_that_nobody_has_acknowledged_waits() {
    let mut two = Two::new();
    let ids: Vec<_> = (0..BACKLOG).map(|_| two.open()).collect();
    for id in &ids {
        two.dialer_sends(*id, b"?").expect("credit");
    }
    assert!(two.dialer.open(two.now, &waker()).is_pending());
    two.dialer.woken.clear();
    let id = ready(two.listener.accept(&waker())).expect("accepts");
    two.listener_sends(id, b"!").expect("credit");
    assert_eq!(two.dialer.woken.len(), 1, "who waited is woken");
    assert!(two.dialer.open(two.now, &waker()).is_ready());
    assert!(two.dialer.open(two.now, &waker()).is_pending());
    two.dialer.forget(ids[5]);
    assert!(
        two.dialer.open(two.now, &waker()).is_ready(),
        "one less to be acknowledged"
    );
}

#[test]
fn streams_beyond_the_limit_are_reset_and_the_others_go_on() {
    let mut two = Two::with(&Config::default());
    let ids: Vec<_> = (0..BACKLOG).map(|_| two.open()).collect();
    for id in &ids {
        two.dialer_sends(*id, b"?").expect("credit");
    }
    // One that does not count: with data, and without.
    let mut wire = Header::data(1001, SYN, 3).encode().to_vec();
    wire.extend(b"abc");
    wire.extend(Header::window_update(1003, SYN, 0).encode());
    hear(&mut two.listener, &wire, two.now).expect("is no fault");
    assert_eq!(
        two.listener_says(),
        [Header::data(1001, RST, 0), Header::data(1003, RST, 0)]
    );
    for id in ids {
        assert_eq!(ready(two.listener.accept(&waker())).expect("accepts"), id);
        assert_eq!(ready(read(&mut two.listener, id, two.now)).expect("data"), b"?");
    }
    assert!(two.listener.accept(&waker()).is_pending());

    let mut two = Two::with(&Config::default().with_max_substreams(2));
    let first = two.opened();
    two.opened();
    assert!(two.dialer.open(two.now, &waker()).is_pending(), "ours wait");
    hear(&mut two.listener, &Header::data(1001, SYN, 0).encode(), two.now).expect("is no fault");
    assert_eq!(two.listener_says(), [Header::data(1001, RST, 0)], "theirs are reset");
    two.dialer.forget(first);
    assert!(two.dialer.open(two.now, &waker()).is_ready());
}

#[test]
fn what_has_come_can_be_read_after_the_connection() {
    for (ended, expected) in [
        (Ended::Here, io::ErrorKind::NotConnected),
        (Ended::There, io::ErrorKind::ConnectionAborted),
        (Ended::Broken(io::ErrorKind::TimedOut), io::ErrorKind::TimedOut),
    ] {
        let mut two = Two::new();
        let (first, second) = (two.opened(), two.opened());
        two.dialer_sends(first, b"last").expect("credit");
        two.dialer_sends(second, b"last").expect("credit");
        two.dialer.finish(second).expect("open");
        two.dialer_says();
        let third = two.open();
        two.dialer_sends(third, b"new").expect("credit");
        assert!(two.listener.may_send(first, 1, &waker()).is_ready());

        two.listener.end(ended);
        assert_eq!(ready(read(&mut two.listener, first, two.now)).expect("data"), b"?last");
        assert_eq!(
            kind(read(&mut two.listener, first, two.now)),
            expected,
            "cut off, not ended"
        );
        assert_eq!(ready(read(&mut two.listener, second, two.now)).expect("data"), b"?last");
        assert_eq!(ready(read(&mut two.listener, second, two.now)).expect("the end"), b"");
        assert_eq!(kind(two.listener.may_send(first, 1, &waker())), expected);
        assert_eq!(kind(two.listener.open(two.now, &waker())), expected);
        assert_eq!(ready(two.listener.accept(&waker())).expect("it had come"), third);
        assert_eq!(kind(two.listener.accept(&waker())), expected);
        two.listener.forget(first);
        assert!(two.listener_says().is_empty(), "there is nobody to tell");
    }
}

#[test]
fn the_end_of_a_connection_is_said_once_and_wakes_everybody() {
    let mut two = Two::new();
    let id = two.opened();
    while two.dialer_sends(id, &[1; 1 << 16]).expect("open") > 0 {}
    let _ = ready(read(&mut two.dialer, id, two.now));
    assert!(read(&mut two.dialer, id, two.now).is_pending());
    assert!(two.dialer.may_send(id, 1, &waker()).is_pending());
    assert!(two.dialer.accept(&waker()).is_pending());
    two.dialer.woken.clear();
    two.listener.close();
    two.listener.close();
    assert_eq!(two.listener_says(), [Header::go_away(0)]);
    assert_eq!(two.dialer.ended(), Some(Ended::There));
    assert_eq!(two.dialer.woken.len(), 3, "a reader, a writer, and who accepts");
}

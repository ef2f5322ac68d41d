//! The halves of a stream in two tasks, in every order in which they, the wire and those who lose
//! patience can act.

use super::*;
use futures::io::{ReadHalf, WriteHalf};

/// What can happen next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// The reader's task writes a question and reads the answer. The read pushes the question.
    Ask,
    /// The writer's task writes and flushes.
    Write,
    /// A task drops its future. The half stays.
    StopReading,
    StopWriting,
    /// The wire takes nothing more, or goes on.
    Full,
    Free,
    /// A record comes that has no data in it.
    Empty,
}

const STEPS: [Step; 7] = [
    Step::Ask,
    Step::Write,
    Step::StopReading,
    Step::StopWriting,
    Step::Full,
    Step::Free,
    Step::Empty,
];

/// Two tasks that share a stream. Each is polled only when it was woken.
struct World {
    below: Below,
    other: Records,
    reading: ReadHalf<TlsStream<Below>>,
    writing: WriteHalf<TlsStream<Below>>,
    reader: Arc<Flag>,
    writer: Arc<Flag>,
    /// Whether that task has a future.
    reads: bool,
    flushes: bool,
    written: usize,
}

impl World {
    fn new() -> Self {
        let (stream, below, other) = dialled();
        let (reading, writing) = stream.split();
        Self {
            below,
            other,
            reading,
            writing,
            reader: Flag::new(),
            writer: Flag::new(),
            reads: false,
            flushes: false,
            written: 0,
        }
    }

    fn act(&mut self, step: Step) {
        match step {
            Step::Ask => {
                self.put();
                self.reads = true;
                self.poll_reader();
            }
            Step::Write => {
                self.put();
                self.flushes = true;
                self.poll_writer();
            }
            Step::StopReading => self.reads = false,
            Step::StopWriting => self.flushes = false,
            Step::Full => self.below.set_full(true),
            Step::Free => self.below.set_full(false),
            Step::Empty => {
                let record = sealed(&mut self.other, b"");
                self.below.receive(&record);
            }
        }
        self.run();
    }

    /// Writes so little that it waits for a flush.
    fn put(&mut self) {
        let waker = waker(self.writer.clone());
        let written = Pin::new(&mut self.writing).poll_write(&mut Context::from_waker(&waker), b"x");
        assert!(matches!(written, Poll::Ready(Ok(1))), "there is room");
        self.written += 1;
    }

    fn poll_reader(&mut self) {
        let waker = waker(self.reader.clone());
        let read = Pin::new(&mut self.reading).poll_read(&mut Context::from_waker(&waker), &mut [0]);
        assert!(read.is_pending(), "nothing comes");
    }

    fn poll_writer(&mut self) {
        let waker = waker(self.writer.clone());
        let flushed = Pin::new(&mut self.writing).poll_flush(&mut Context::from_waker(&waker));
        self.flushes = flushed.is_pending();
    }

    /// Polls each task that was woken and has a future, until none was.
    fn run(&mut self) {
        for _ in 0..20 {
            let (reader, writer) = (self.reader.take(), self.writer.take());
            if !reader && !writer {
                return;
            }
            if reader && self.reads {
                self.poll_reader();
            }
            if writer && self.flushes {
                self.poll_writer();
            }
        }
        panic!("the tasks wake each other for ever");
    }

    /// Once the wire is free everything that was written arrives, as long as a flush or a read
    /// waits for it.
    fn check(mut self, steps: &[Step]) {
        self.below.set_full(false);
        self.run();
        let waits = self.reads || self.flushes;
        let (data, end) = heard(&mut self.other, self.below.sent());
        assert_eq!(end, Heard::Nothing);
        if waits {
            assert_eq!(data.len(), self.written, "{steps:?}: what was written lies about");
        }
        assert!(!self.flushes, "{steps:?}: the flush is not told that it is done");
    }
}

#[test]
fn in_whatever_order_halves_are_polled_and_futures_dropped_what_was_written_goes_out() {
    const DEPTH: u32 = 4;
    let count = STEPS.len();
    for number in 0..count.pow(DEPTH) {
        let mut steps = [Step::Full; 1 + DEPTH as usize];
        let mut rest = number;
        for step in &mut steps[1..] {
            *step = STEPS[rest % count];
            rest /= count;
        }
        let mut world = World::new();
        for step in steps {
            world.act(step);
        }
        world.check(&steps);
    }
}

/// What is below has room for one waker, and may need time for a flush and for a close.
#[test]
fn a_read_that_waits_does_not_take_the_place_of_a_close_that_waits() {
    let (mut stream, below, _other) = dialled();
    stream.about.close_timeout = Duration::from_secs(3600);
    let (mut reading, mut writing) = stream.split();
    let (reader, writer) = (Flag::new(), Flag::new());
    let mut close = || {
        let waker = waker(writer.clone());
        Pin::new(&mut writing).poll_close(&mut Context::from_waker(&waker))
    };
    let mut read = || {
        let waker = waker(reader.clone());
        Pin::new(&mut reading).poll_read(&mut Context::from_waker(&waker), &mut [0])
    };
    below.set_slow(true);
    assert!(close().is_pending() && read().is_pending());
    below.set_slow(false);
    if reader.take() {
        assert!(read().is_pending(), "nothing comes");
    }
    assert!(writer.take(), "the close is not told that it can go on");
    assert!(matches!(close(), Poll::Ready(Ok(()))));
}

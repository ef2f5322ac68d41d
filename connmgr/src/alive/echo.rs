//! The accepting end of a stream that keeps a connection: sends a byte, and then back what it
//! reads.

use futures::io::{AsyncRead, AsyncWrite};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// Bytes that are owed at most; more are not read before these are gone.
const MOST: usize = 16;

/// Turns in one poll, so that an end that never stops asking does not keep the connection to
/// itself.
const TURNS: usize = 16;

/// One accepted stream.
#[derive(Debug)]
pub(crate) struct Echo<S> {
    stream: S,
    owed: [u8; MOST],
    /// How many of `owed` there are, and how many are written.
    read: usize,
    written: usize,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Echo<S> {
    /// The first byte is owed already: it says that the stream was accepted.
    pub(crate) fn new(stream: S) -> Self {
        Self {
            stream,
            owed: [0; MOST],
            read: 1,
            written: 0,
        }
    }

    /// Ready when the other end has let go, or the stream is broken.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        for _ in 0..TURNS {
            match self.turn(cx) {
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// False when the other end has let go.
    fn turn(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let mut stream = Pin::new(&mut self.stream);
        while self.written < self.read {
            let owed = &self.owed[self.written..self.read];
            match ready!(stream.as_mut().poll_write(cx, owed))? {
                0 => return Poll::Ready(Ok(false)),
                n => self.written += n,
            }
        }
        ready!(stream.as_mut().poll_flush(cx))?;
        (self.read, self.written) = (0, 0);
        self.read = ready!(stream.poll_read(cx, &mut self.owed))?;
        Poll::Ready(Ok(self.read > 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;
    use futures::future::poll_fn;
    use std::collections::VecDeque;

    /// Brings bytes one at a time and takes `room` of them.
    struct Pipe {
        brings: VecDeque<u8>,
        ends: bool,
        room: usize,
        took: Vec<u8>,
    }

    impl AsyncRead for Pipe {
        fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
            let n = self.brings.len().min(buf.len());
            for (to, from) in buf.iter_mut().zip(self.brings.drain(..n)) {
                *to = from;
            }
            if n == 0 && !self.ends {
                return Poll::Pending;
            }
            Poll::Ready(Ok(n))
        }
    }

    impl AsyncWrite for Pipe {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            let n = self.room.min(buf.len());
            if n == 0 {
                return Poll::Pending;
            }
            self.room -= n;
            self.took.extend_from_slice(&buf[..n]);
            Poll::Ready(Ok(n))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn echo(brings: usize, ends: bool, room: usize) -> Echo<Pipe> {
        Echo::new(Pipe {
            brings: (1..=brings).map(|n| n as u8).collect(),
            ends,
            room,
            took: Vec::new(),
        })
    }

    fn poll(echo: &mut Echo<Pipe>) -> Option<()> {
        poll_fn(|cx| echo.poll(cx)).now_or_never()
    }

    #[test]
    fn what_comes_goes_back_until_the_other_end_lets_go() {
        let mut echo = echo(3, false, 100);
        assert_eq!(poll(&mut echo), None);
        assert_eq!(echo.stream.took, [0, 1, 2, 3]);
        echo.stream.brings.push_back(7);
        assert_eq!(poll(&mut echo), None);
        assert_eq!(echo.stream.took, [0, 1, 2, 3, 7]);
        echo.stream.ends = true;
        assert_eq!(poll(&mut echo), Some(()));
    }

    #[test]
    fn an_end_that_takes_nothing_back_is_not_read_from() {
        let mut echo = echo(1000, false, 5);
        assert_eq!(poll(&mut echo), None);
        assert_eq!((echo.stream.took.len(), echo.stream.brings.len()), (5, 1000 - MOST));
    }

    #[test]
    fn an_end_that_never_stops_does_not_have_all_the_time() {
        let mut echo = echo(100_000, false, 100_000);
        assert_eq!(poll(&mut echo), None);
        assert!(echo.stream.took.len() <= TURNS * MOST);
    }
}

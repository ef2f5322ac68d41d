//! The stream of bytes below a connection, and what it has not taken yet.

use super::{Ended, READS_PER_TURN, Shared, wake};
use crate::at_once::poll_at_once;
use crate::yamux::chunks::{chunk, give_back};
use crate::yamux::frame::HEADER;
use futures::io::{AsyncRead, AsyncWrite};
use futures::ready;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

/// How far a turn got with what there is to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    /// The socket is full.
    Some,
    /// Everything is below, where it may wait for a flush.
    All,
    /// Everything has gone out.
    Flushed,
}

/// The stream of bytes, and what it has not taken yet of what has to come before anything else.
pub(super) struct Io<C> {
    pub(super) inner: C,
    pub(super) rest: Vec<u8>,
    written: usize,
    /// Whether the rest has a part of the last frame of data in it.
    tail: bool,
    /// Nothing goes out any more. What has come in may still be read.
    pub(super) failed: Option<io::ErrorKind>,
}

impl<C> Io<C> {
    pub(super) fn new(inner: C) -> Self {
        Self {
            inner,
            rest: Vec::new(),
            written: 0,
            tail: false,
            failed: None,
        }
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> Io<C> {
    /// Writes what comes first.
    pub(super) fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.rest.len() {
            self.written += ready!(poll_some(
                &mut self.inner,
                &mut self.failed,
                cx,
                &self.rest[self.written..]
            ))?;
        }
        (self.written, self.tail) = (0, false);
        // An idle connection holds no memory for it.
        self.rest = Vec::new();
        Poll::Ready(Ok(()))
    }

    /// Writes a frame, or nothing of it. What is not taken of one that has begun comes first next
    /// time.
    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
        header: [u8; HEADER],
        body: &[u8],
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_rest(cx))?;
        let mut written = 0;
        while written < HEADER + body.len() {
            let left = if written < HEADER {
                &header[written..]
            } else {
                &body[written - HEADER..]
            };
            match poll_some(&mut self.inner, &mut self.failed, cx, left)? {
                Poll::Ready(n) => written += n,
                Poll::Pending if written == 0 => return Poll::Pending,
                Poll::Pending => {
                    self.tail = true;
                    self.rest.extend_from_slice(left);
                    if written < HEADER {
                        self.rest.extend_from_slice(body);
                    }
                    break;
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    pub(super) fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_rest(cx))?;
        let closed = match ready!(Pin::new(&mut self.inner).poll_flush(cx)) {
            Ok(()) => ready!(Pin::new(&mut self.inner).poll_close(cx)),
            failed => failed,
        };
        match closed {
            Ok(()) => {
                self.read_away(cx);
                Poll::Ready(Ok(()))
            }
            // The other end has read that we go, and was faster.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Poll::Ready(Ok(())),
            closed => Poll::Ready(closed),
        }
    }

    /// Answers the other end's close with ours, without waiting for anything. Says how many of the
    /// last frames of data have not gone out, if the others have.
    pub(super) fn part(&mut self, cx: &mut Context<'_>) -> Option<u64> {
        let all = matches!(poll_at_once(cx, |cx| self.poll_rest(cx)), Poll::Ready(Ok(())));
        // Also when headers are left over: data may have gone before them.
        let flushed = poll_at_once(cx, |cx| Pin::new(&mut self.inner).poll_flush(cx));
        let out = matches!(flushed, Poll::Ready(Ok(())));
        if all && out {
            let _ = poll_at_once(cx, |cx| Pin::new(&mut self.inner).poll_close(cx));
            self.read_away(cx);
        }
        out.then_some(self.tail.into())
    }

    /// Reads what there is. The kernel resets a connection that is dropped with unread bytes, and
    /// throws our last ones away.
    fn read_away(&mut self, cx: &mut Context<'_>) {
        let mut unread = chunk();
        for _ in 0..READS_PER_TURN {
            let read = poll_at_once(cx, |cx| Pin::new(&mut self.inner).poll_read(cx, &mut unread));
            if !matches!(read, Poll::Ready(Ok(1..))) {
                break;
            }
        }
        give_back(unread);
    }
}

/// Ends the connection if the stream of bytes panics in a task that has taken it. It is gone with the
/// panic, and no other task would hear of it again.
pub(super) struct Unwinding<'a, C>(pub(super) &'a Shared<C>);

impl<C> Drop for Unwinding<'_, C> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.lost = true;
        state.session.end(Ended::Broken(io::ErrorKind::Other));
        state.wake_waiting();
        state.wake_driver();
        wake(state);
    }
}

/// Writes some of `bytes`, and remembers that it can't be done any more.
fn poll_some<C: AsyncWrite + Unpin>(
    inner: &mut C,
    failed: &mut Option<io::ErrorKind>,
    cx: &mut Context<'_>,
    bytes: &[u8],
) -> Poll<io::Result<usize>> {
    if let Some(failed) = *failed {
        return Poll::Ready(Err(failed.into()));
    }
    let written = match ready!(Pin::new(inner).poll_write(cx, bytes)) {
        Ok(0) => Err(io::ErrorKind::WriteZero.into()),
        written => written,
    };
    *failed = written.as_ref().err().map(io::Error::kind);
    Poll::Ready(written)
}

//! What the listeners do: echo a byte, or swallow everything. The same on every stack.

use anyhow::{Result, ensure};
use futures::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// Comes back as it is.
const ECHO: u8 = b'e';
/// A length of eight bytes follows, and as many bytes to read and count.
const SINK: u8 = b's';

/// The size of a write in bulk, and of the buffer it is read into.
pub(crate) const CHUNK: usize = 64 * 1024;

/// What the listeners of one measurement have seen.
#[derive(Default)]
pub(crate) struct Counters {
    swallowed: AtomicU64,
    live: AtomicUsize,
}

impl Counters {
    /// Bytes read in bulk.
    pub(crate) fn swallowed(&self) -> u64 {
        self.swallowed.load(Ordering::Relaxed)
    }

    /// Counts a connection for as long as the value lives.
    pub(crate) fn live(self: &Arc<Self>) -> impl Drop + use<> {
        self.live.fetch_add(1, Ordering::AcqRel);
        Live(self.clone())
    }

    /// Waits until every connection is gone, so that its end is not charged to the next one. Not for ever: QUIC tells
    /// of a close in one packet, and that may be lost behind bulk data.
    pub(crate) async fn gone(&self) {
        self.gone_between(|| tokio::time::sleep(Duration::from_micros(100)))
            .await;
    }

    /// The same without going to sleep, for what is measured next is not to pay for the machine's waking up.
    pub(crate) async fn gone_awake(&self) {
        self.gone_between(tokio::task::yield_now).await;
    }

    async fn gone_between<W: Future<Output = ()>>(&self, wait: impl Fn() -> W) {
        let gone = async {
            while self.live.load(Ordering::Acquire) > 0 {
                wait().await;
            }
        };
        let _ = tokio::time::timeout(Duration::from_millis(500), gone).await;
    }
}

struct Live(Arc<Counters>);

impl Drop for Live {
    fn drop(&mut self) {
        self.0.live.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Serves one stream to its end.
pub(crate) async fn serve<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, counters: &Counters) -> io::Result<()> {
    loop {
        let mut command = [0];
        if stream.read(&mut command).await? == 0 {
            return stream.close().await;
        }
        match command[0] {
            ECHO => {
                stream.write_all(&command).await?;
                stream.flush().await?;
            }
            SINK => swallow(&mut stream, counters).await?,
            _ => return Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

/// Its buffer is gone when it is done, or every used connection would seem to hold one.
async fn swallow<S: AsyncRead + Unpin>(stream: &mut S, counters: &Counters) -> io::Result<()> {
    let mut length = [0; 8];
    stream.read_exact(&mut length).await?;
    let mut left = u64::from_be_bytes(length);
    let mut chunk = vec![0; CHUNK];
    while left > 0 {
        let room = usize::try_from(left).map_or(CHUNK, |left| left.min(CHUNK));
        let n = stream.read(&mut chunk[..room]).await? as u64;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        counters.swallowed.fetch_add(n, Ordering::Relaxed);
        left -= n;
    }
    Ok(())
}

/// Sends `bytes` to be swallowed.
pub(crate) async fn bulk<S: AsyncWrite + Unpin>(stream: &mut S, bytes: u64) -> io::Result<()> {
    stream.write_all(&[SINK]).await?;
    stream.write_all(&bytes.to_be_bytes()).await?;
    let chunk = vec![0; CHUNK];
    let mut left = bytes;
    while left > 0 {
        let n = usize::try_from(left).map_or(CHUNK, |left| left.min(CHUNK));
        stream.write_all(&chunk[..n]).await?;
        left -= n as u64;
    }
    stream.flush().await
}

/// Sends a byte and waits until it is back.
pub(crate) async fn echo<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) -> Result<()> {
    stream.write_all(&[ECHO]).await?;
    stream.flush().await?;
    let mut answer = [0];
    stream.read_exact(&mut answer).await?;
    ensure!(answer == [ECHO], "{answer:?} came back");
    Ok(())
}

//! The TLS handshake over a plain byte stream.

use crate::error::Error;
use crate::metrics::Metrics;
use futures::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use rustls::Connection;

/// Runs the handshake to its end, with `first` in front of the first flight and in the same write.
///
/// Written out here, and not taken from an adapter, for what it does *not* do: when the other end is refused no alert
/// is sent. To it, and to whoever listens, all refusals look the same.
///
/// Not cancel safe: a handshake that is dropped cannot be gone on with, so the socket is dropped with it.
pub(crate) async fn run<S>(io: &mut S, tls: &mut Connection, first: &[u8], metrics: &Metrics) -> Result<(), Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    /// A server flight with X25519MLKEM768 is about 1.6 kB.
    const ROOM: usize = 4096;

    let mut flight = first.to_vec();
    let mut room = vec![0; ROOM];
    loop {
        while tls.wants_write() {
            let sealed = tls.write_tls(&mut flight)?;
            metrics.written(sealed);
        }
        if !flight.is_empty() {
            io.write_all(&flight).await?;
            io.flush().await?;
            flight.clear();
        }
        if !tls.is_handshaking() {
            return Ok(());
        }
        let n = io.read(&mut room).await?;
        if n == 0 {
            return Err(Error::Closed);
        }
        metrics.read(n);
        let mut received = &room[..n];
        while !received.is_empty() {
            // Nothing is taken any more behind a `close_notify`, however much there is.
            if tls.read_tls(&mut received)? == 0 {
                return Err(Error::Closed);
            }
            tls.process_new_packets()?;
        }
    }
}

//! The life of one probe: connect, send, end as told, and watch what the listener does.

use crate::classes::{CloseKind, Outcome};
use crate::grid::{Delivery, Ending, Probe};
use crate::source::connect;
use socket2::SockRef;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::time::{Instant, sleep, timeout};

/// Between the bytes of [`Delivery::ByteAtATime`].
const BETWEEN_BYTES: Duration = Duration::from_millis(1);

/// How long a probe waits for what.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// For the connection.
    pub connect: Duration,
    /// For the listener to close, after which it counts as one that does not.
    pub hold: Duration,
    /// Before the probe resets or closes: time in which an answer would have come.
    pub moment: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            hold: Duration::from_secs(10),
            moment: Duration::from_millis(50),
        }
    }
}

/// Sends `bytes` as `probe` says.
///
/// # Errors
///
/// When there was no connection: the listener has not seen anything then.
pub async fn run(
    target: SocketAddr,
    source: Option<IpAddr>,
    probe: Probe,
    bytes: Vec<u8>,
    limits: Limits,
) -> io::Result<Outcome> {
    let mut stream = timeout(limits.connect, connect(target, source))
        .await
        .map_err(|_| io::ErrorKind::TimedOut)??;
    let connected = Instant::now();
    let (answered, ended) = (AtomicU64::new(0), OnceLock::new());
    let close = {
        let (read, write) = stream.split();
        let mut listen = pin!(listen(read, &answered));
        let act = async {
            if send(write, bytes, probe).await.is_err() {
                // The listener has ended the connection: listening tells how.
                std::future::pending::<()>().await;
            }
            let _ = ended.set(Instant::now());
            if matches!(probe.ending, Ending::Rst | Ending::Close) {
                sleep(limits.moment).await;
            }
        };
        let watch = async {
            tokio::select! {
                biased;
                close = &mut listen => return close,
                () = act => {}
            }
            match probe.ending {
                Ending::Hold | Ending::Fin => listen.await,
                Ending::Rst | Ending::Close => CloseKind::None,
            }
        };
        timeout(limits.hold, watch).await.unwrap_or(CloseKind::None)
    };
    let now = Instant::now();
    if probe.ending == Ending::Rst {
        SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    }
    let micros = |since: Instant| u64::try_from((now - since).as_micros()).unwrap_or(u64::MAX);
    let since_end_us = match probe.ending {
        Ending::Fin => ended.get().copied().map_or(0, |ended| micros(ended).max(1)),
        Ending::Hold | Ending::Rst | Ending::Close => micros(connected),
    };
    Ok(Outcome {
        answered: answered.into_inner(),
        close,
        since_connect_us: micros(connected),
        since_end_us,
    })
}

async fn listen(mut read: ReadHalf<'_>, answered: &AtomicU64) -> CloseKind {
    let mut buffer = [0; 2048];
    loop {
        match read.read(&mut buffer).await {
            Ok(0) => return CloseKind::Fin,
            Ok(n) => _ = answered.fetch_add(n as u64, Ordering::Relaxed),
            Err(_) => return CloseKind::Rst,
        }
    }
}

async fn send(mut write: WriteHalf<'_>, bytes: Vec<u8>, probe: Probe) -> io::Result<()> {
    match probe.delivery {
        Delivery::Whole => write.write_all(&bytes).await?,
        Delivery::ByteAtATime => {
            for byte in &bytes {
                write.write_all(std::slice::from_ref(byte)).await?;
                sleep(BETWEEN_BYTES).await;
            }
        }
    }
    if probe.ending == Ending::Fin {
        write.shutdown().await?;
    }
    Ok(())
}

//! What crosses the wire until the first echoed byte, recorded by a proxy between the two ends.

use crate::Options;
use crate::report::{Report, markdown};
use crate::service::{Counters, echo};
use crate::stacks::Kind;
use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

/// One way through the proxy. Long against all computing, so that flights stay apart.
const ONE_WAY: Duration = Duration::from_millis(30);

pub(crate) const STACKS: [Kind; 4] = [Kind::Knock, Kind::Noise, Kind::TlsShipped, Kind::RawTls];

/// What one side sent without waiting in between.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Flight {
    pub(crate) from_dialer: bool,
    /// One-way trips since the dialer's socket was connected, as a number that need not be whole.
    pub(crate) at: f64,
    pub(crate) bytes: usize,
}

pub(crate) async fn run(options: &Options) -> Result<()> {
    let mut report = Report::new("ladder");
    let mut rows = vec![
        ["stack", "dialer sends", "listener sends", "flights", "bytes"]
            .map(str::to_owned)
            .to_vec(),
    ];
    for kind in STACKS.into_iter().filter(|kind| options.kinds().contains(kind)) {
        let flights = record(kind).await.with_context(|| kind.label())?;
        let side = |dialer: bool| {
            let own = flights.iter().filter(|flight| flight.from_dialer == dialer);
            own.map(|flight| flight.bytes.to_string())
                .collect::<Vec<_>>()
                .join(" + ")
        };
        let bytes: usize = flights.iter().map(|flight| flight.bytes).sum();
        let about = kind.about().to_owned();
        rows.push(vec![
            about,
            side(true),
            side(false),
            flights.len().to_string(),
            bytes.to_string(),
        ]);
        report.result(&format!("ladder_bytes_{kind}"), Some(bytes as f64));
        report.attach(kind.label(), serde_json::to_value(&flights)?);
    }
    println!(
        "\nBytes on the wire from the connected socket to the first echo, flight by flight\n\n{}",
        markdown(&rows)
    );
    report.finish(options.json())
}

#[derive(Clone)]
struct Recorder {
    start: Instant,
    pieces: Arc<Mutex<Vec<Flight>>>,
}

async fn record(kind: Kind) -> Result<Vec<Flight>> {
    let localhost = Ipv4Addr::LOCALHOST.into();
    let mut target = kind
        .endpoint()?
        .listen(localhost, Arc::new(Counters::default()))
        .await?;
    let proxy = TcpListener::bind((localhost, 0)).await?;
    let listener = std::mem::replace(&mut target.socket, proxy.local_addr()?);
    let recorder = Recorder {
        start: Instant::now(),
        pieces: Arc::default(),
    };
    tokio::spawn(forward(proxy, listener, recorder.clone()));

    let mut connection = kind.endpoint()?.dial(&target).await?;
    let mut stream = connection.open().await?;
    echo(&mut stream).await?;
    let pieces = recorder.pieces.lock().unwrap_or_else(PoisonError::into_inner).clone();
    Ok(flights(&pieces))
}

/// Joins what one side sent in one go.
fn flights(pieces: &[Flight]) -> Vec<Flight> {
    const APART: f64 = 0.4;
    let mut flights: Vec<Flight> = Vec::new();
    for piece in pieces {
        let same = |flight: &&mut Flight| flight.from_dialer == piece.from_dialer && piece.at - flight.at < APART;
        match flights.iter_mut().rev().find(same) {
            Some(flight) => flight.bytes += piece.bytes,
            None => flights.push(*piece),
        }
    }
    flights
}

async fn forward(proxy: TcpListener, listener: SocketAddr, recorder: Recorder) -> Result<()> {
    let (dialer, _) = proxy.accept().await?;
    let listener = TcpStream::connect(listener).await?;
    dialer.set_nodelay(true)?;
    listener.set_nodelay(true)?;
    let ((from_dialer, to_dialer), (from_listener, to_listener)) = (dialer.into_split(), listener.into_split());
    tokio::spawn(pipe(from_listener, to_dialer, false, recorder.clone()));
    pipe(from_dialer, to_listener, true, recorder).await
}

async fn pipe(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, from_dialer: bool, recorder: Recorder) -> Result<()> {
    let (sender, mut pieces) = mpsc::channel::<(Instant, Vec<u8>)>(64);
    tokio::spawn(async move {
        while let Some((due, piece)) = pieces.recv().await {
            tokio::time::sleep_until(due.into()).await;
            if to.write_all(&piece).await.is_err() {
                return;
            }
        }
    });
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let bytes = from.read(&mut buffer).await?;
        if bytes == 0 {
            return Ok(());
        }
        let at = recorder.start.elapsed().as_secs_f64() / ONE_WAY.as_secs_f64();
        let piece = Flight { from_dialer, at, bytes };
        recorder
            .pieces
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(piece);
        sender
            .send((Instant::now() + ONE_WAY, buffer[..bytes].to_vec()))
            .await?;
    }
}

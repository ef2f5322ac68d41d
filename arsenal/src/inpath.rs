//! An attacker in the path: a TCP proxy between dialers and a listener that records, withholds, repeats, delays, swaps
//! and cuts first flights. A first flight is what a dialer sends before it has heard a byte.
//!
//! Modes that need the whole flight before they act take it to be whole when nothing has come for a moment; dialers of
//! every kind here send theirs in one write.

use crate::capture::Recorder;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

/// A flight is whole when nothing has come for so long.
const QUIET: Duration = Duration::from_millis(50);

/// How long a copy that goes first may take to be answered.
const COPY_WAIT: Duration = Duration::from_millis(500);

/// How long a dial waits for another one to swap with.
const SWAP_WAIT: Duration = Duration::from_secs(10);

/// Reports that nobody has fetched yet, at most; later ones are lost.
const REPORTS: usize = 4096;

/// What is done to each dial.
#[derive(Debug, Clone)]
pub enum Mode {
    /// Nothing; bytes are counted.
    Pass,
    /// Nothing, and the first flight goes into a file.
    Record(Arc<Recorder>),
    /// The dialer's bytes never arrive; the connection to the listener stands.
    Withhold,
    /// A copy goes first, on a connection of its own; then the original.
    ReplayFirst,
    /// The flight goes on later.
    Delay(Duration),
    /// Both connections are cut once the flight is there.
    Drop,
    /// Of two dials, each keeps the first bytes of its flight and goes on with the rest of the other's.
    Swap {
        /// How many; 0 swaps them whole.
        keep: usize,
    },
    /// The first bytes of the flight go on, and the attacker's own behind them.
    Replace {
        /// How many of the dialer's.
        keep: usize,
        /// What follows.
        with: Vec<u8>,
    },
    /// So many bytes of the flight arrive and nothing after them; the connection stands.
    Cut(usize),
}

/// One dial, once it has ended.
#[derive(Debug, Clone)]
pub struct Dial {
    /// What the dialer sent before it heard a byte.
    pub flight: Vec<u8>,
    /// Bytes that went on to the listener.
    pub up: u64,
    /// Bytes from the listener.
    pub down: u64,
    /// Bytes that the copy of [`Mode::ReplayFirst`] was answered with.
    pub copy_answered: u64,
}

/// The proxy. It ends when this is dropped, and its connections with it.
#[derive(Debug)]
pub struct InPath {
    /// Where dialers find it.
    pub address: SocketAddr,
    shared: Arc<Shared>,
    dials: mpsc::Receiver<Dial>,
    task: JoinHandle<()>,
}

/// The dial that waits to swap: what it gives, and where the other one goes.
type Waiting = Mutex<Option<(Vec<u8>, oneshot::Sender<Vec<u8>>)>>;

#[derive(Debug)]
struct Shared {
    target: SocketAddr,
    mode: Mode,
    connections: AtomicU64,
    down: AtomicU64,
    waiting: Waiting,
}

impl InPath {
    /// Listens at `listen`, in front of `target`.
    ///
    /// # Errors
    ///
    /// When it cannot listen there.
    pub async fn start(listen: SocketAddr, target: SocketAddr, mode: Mode) -> io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            target,
            mode,
            connections: AtomicU64::new(0),
            down: AtomicU64::new(0),
            waiting: Mutex::new(None),
        });
        let (report, dials) = mpsc::channel(REPORTS);
        let task = tokio::spawn(accept(listener, shared.clone(), report));
        Ok(Self {
            address,
            shared,
            dials,
            task,
        })
    }

    /// The next dial that has ended.
    pub async fn ended(&mut self) -> Option<Dial> {
        self.dials.recv().await
    }

    /// Connections so far.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// Payload bytes from the listener so far, over all connections.
    pub fn bytes_answered(&self) -> u64 {
        self.shared.down.load(Ordering::Relaxed)
    }
}

impl Drop for InPath {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, report: mpsc::Sender<Dial>) {
    // Connections end with the proxy.
    let mut connections = tokio::task::JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok((client, _)) = listener.accept().await else {
            // Out of descriptors, most likely.
            sleep(Duration::from_millis(100)).await;
            continue;
        };
        shared.connections.fetch_add(1, Ordering::Relaxed);
        let (shared, report) = (shared.clone(), report.clone());
        connections.spawn(async move {
            let meter = Meter {
                shared: &shared,
                flight: Mutex::new(Vec::new()),
                up: AtomicU64::new(0),
                down: AtomicU64::new(0),
            };
            let copy_answered = attack(client, &meter).await.unwrap_or(0);
            let flight = meter.flight.into_inner().unwrap_or_else(PoisonError::into_inner);
            if let Mode::Record(recorder) = &shared.mode
                && !flight.is_empty()
                && let Err(e) = recorder.record(&flight)
            {
                eprintln!("{e:#}");
            }
            let _ = report.try_send(Dial {
                flight,
                up: meter.up.into_inner(),
                down: meter.down.into_inner(),
                copy_answered,
            });
        });
    }
}

/// What is known of one dial while it runs.
struct Meter<'a> {
    shared: &'a Shared,
    flight: Mutex<Vec<u8>>,
    up: AtomicU64,
    down: AtomicU64,
}

impl Meter<'_> {
    fn saw_up(&self, bytes: &[u8]) {
        if self.down.load(Ordering::Relaxed) == 0 {
            self.flight
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .extend_from_slice(bytes);
        }
    }

    fn saw_down(&self, bytes: &[u8]) {
        self.down.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self.shared.down.fetch_add(bytes.len() as u64, Ordering::Relaxed);
    }

    async fn send_up(&self, server: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
        self.up.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        server.write_all(bytes).await
    }

    /// Reads the whole first flight.
    async fn gather(&self, client: &mut TcpStream) -> io::Result<Vec<u8>> {
        let mut flight = Vec::with_capacity(4096);
        let mut wait = Duration::MAX;
        while let Ok(read) = timeout(wait, client.read_buf(&mut flight)).await {
            if read? == 0 {
                break;
            }
            wait = QUIET;
        }
        self.saw_up(&flight);
        Ok(flight)
    }
}

/// Runs one dial, and says with how many bytes a copy was answered.
async fn attack(mut client: TcpStream, meter: &Meter<'_>) -> io::Result<u64> {
    let mut server = TcpStream::connect(meter.shared.target).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let mode = &meter.shared.mode;
    if matches!(mode, Mode::Pass | Mode::Record(_)) {
        relay(client, server, meter).await;
        return Ok(0);
    }
    let flight = meter.gather(&mut client).await?;
    let mut copy_answered = 0;
    let goes_on = match mode {
        Mode::Pass | Mode::Record(_) | Mode::Delay(_) | Mode::ReplayFirst => flight,
        Mode::Drop => return Ok(0),
        Mode::Withhold => Vec::new(),
        Mode::Cut(length) => flight[..flight.len().min(*length)].to_vec(),
        Mode::Replace { keep, with } => [&flight[..flight.len().min(*keep)], with].concat(),
        Mode::Swap { keep } => {
            let (head, rest) = flight.split_at(flight.len().min(*keep));
            let rest = swap(rest.to_vec(), &meter.shared.waiting).await?;
            [head, &rest].concat()
        }
    };
    match mode {
        Mode::Delay(wait) => sleep(*wait).await,
        Mode::ReplayFirst => copy_answered = send_copy(meter.shared.target, &goes_on).await?,
        _ => {}
    }
    meter.send_up(&mut server, &goes_on).await?;
    if matches!(mode, Mode::Withhold | Mode::Cut(_)) {
        // What else the dialer says is swallowed.
        let (mut from_client, mut to_client) = client.into_split();
        let swallow = tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut tokio::io::sink()).await });
        let (mut from_server, _to_server) = server.into_split();
        let result = pump(&mut from_server, &mut to_client, |bytes| meter.saw_down(bytes)).await;
        swallow.abort();
        result?;
    } else {
        relay(client, server, meter).await;
    }
    Ok(copy_answered)
}

async fn relay(client: TcpStream, server: TcpStream, meter: &Meter<'_>) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let up = pump(&mut from_client, &mut to_server, |bytes| {
        meter.saw_up(bytes);
        meter.up.fetch_add(bytes.len() as u64, Ordering::Relaxed);
    });
    let down = pump(&mut from_server, &mut to_client, |bytes| meter.saw_down(bytes));
    // An orderly end of one direction leaves the other; an error ends both.
    let _ = tokio::try_join!(up, down);
}

async fn pump<R, W>(read: &mut R, write: &mut W, mut saw: impl FnMut(&[u8])) -> io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let n = read.read(&mut buffer).await?;
        if n == 0 {
            return write.shutdown().await;
        }
        saw(&buffer[..n]);
        write.write_all(&buffer[..n]).await?;
    }
}

async fn send_copy(target: SocketAddr, flight: &[u8]) -> io::Result<u64> {
    let mut copy = TcpStream::connect(target).await?;
    copy.write_all(flight).await?;
    let mut answer = Vec::new();
    // Until the listener closes, or is silent, or has said all it will say.
    while let Ok(Ok(1..)) = timeout(COPY_WAIT, copy.read_buf(&mut answer)).await {}
    Ok(answer.len() as u64)
}

async fn swap(flight: Vec<u8>, waiting: &Waiting) -> io::Result<Vec<u8>> {
    let other = {
        let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
        // One that has given up waiting is no partner.
        match waiting.take().filter(|(_, partner)| !partner.is_closed()) {
            Some((theirs, partner)) => {
                // It waits, so it takes it; at worst it gives up at this very moment.
                let _ = partner.send(flight);
                return Ok(theirs);
            }
            None => {
                let (partner, other) = oneshot::channel();
                *waiting = Some((flight, partner));
                other
            }
        }
    };
    match timeout(SWAP_WAIT, other).await {
        Ok(Ok(theirs)) => Ok(theirs),
        _ => Err(io::ErrorKind::TimedOut.into()),
    }
}

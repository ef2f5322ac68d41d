//! ragedisco over a host's streams: one task, and one more for each peer, that hands over what it sends.

use super::address::{self, AddressError};
use super::announcement::key_of;
use super::patient::{Queue, Signer, Signing};
use super::protocol::{Action, Protocol, Rejected, SUSPICIOUS_COUNTER};
use super::{Config, MAX_MESSAGE_LENGTH, STREAM_NAME, Status};
use crate::{Handle, Limits, SignError, Stream};
use bytes::Bytes;
use libp2p_core::Multiaddr;
use libp2p_core::multiaddr::Protocol as Part;
use libp2p_identity::PeerId;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, mpsc};
use tokio::task::{AbortHandle, JoinHandle};

/// Messages that wait in either direction on one stream. Only the latest matter.
const BUFFER: usize = 2;

/// From all peers together, on their way to the one task.
const INCOMING: usize = 16;

/// The discoverer did not start, and neither does the host.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// It serves or has served a host already.
    #[error("it has been started before, and serves one host, once")]
    Twice,
    /// There is no runtime to run on.
    #[error("not in a tokio runtime")]
    Runtime(#[from] tokio::runtime::TryCurrentError),
    /// The host's own key is not Ed25519.
    #[error("{0} has no Ed25519 key")]
    KeyType(PeerId),
    /// What to announce.
    #[error("cannot tell others where this host is")]
    Address(#[from] AddressError),
    /// The host's own announcement cannot be signed.
    #[error("cannot sign an announcement")]
    Sign(#[from] SignError),
}

/// What handles and the task have in common.
pub(super) struct Shared {
    config: Config,
    state: Mutex<State>,
    /// The protocol has something to do, or it is the end.
    wake: Arc<Notify>,
}

#[derive(Default)]
struct State {
    started: bool,
    closing: bool,
    /// From the start to the end of the task.
    protocol: Option<Protocol>,
    task: Option<JoinHandle<()>>,
}

impl Shared {
    pub(super) fn new(config: Config) -> Self {
        Self {
            config,
            state: Mutex::default(),
            wake: Arc::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None` unless the host is running. What `work` leaves to be done the task does next.
    pub(super) fn protocol<T>(&self, work: impl FnOnce(&mut Protocol) -> T) -> Option<T> {
        let result = self.lock().protocol.as_mut().map(work);
        self.wake.notify_one();
        result
    }

    pub(super) fn find_peer(&self, peer: &PeerId) -> Vec<Multiaddr> {
        let state = self.lock();
        state
            .protocol
            .as_ref()
            .map(|protocol| protocol.find_peer(peer))
            .unwrap_or_default()
    }

    pub(super) fn status(&self) -> Status {
        let state = self.lock();
        state.protocol.as_ref().map(Protocol::status).unwrap_or_default()
    }

    pub(super) fn start(self: &Arc<Self>, host: &Handle) -> Result<(), StartError> {
        let runtime = tokio::runtime::Handle::try_current()?;
        let own = host.local_peer_id();
        let own_key = key_of(&own).ok_or(StartError::KeyType(own))?;
        let configured = if self.config.announced.is_empty() {
            host.bound_addresses().iter().filter_map(text).collect()
        } else {
            self.config.announced.clone()
        };
        let addresses = address::announced(&configured, interfaces())?;
        if self.lock().started {
            return Err(StartError::Twice);
        }
        let signer = Signer::new(host.clone(), own_key, addresses);
        // Under no lock, as it takes whatever time the identity takes, which may panic.
        let first = signer.sign(0)?;
        let mut state = self.lock();
        if std::mem::replace(&mut state.started, true) {
            return Err(StartError::Twice);
        }
        state.protocol = Some(Protocol::new(Instant::now(), first, self.config.interval));
        state.task = Some(runtime.spawn(run(
            Arc::downgrade(self),
            self.wake.clone(),
            self.config.clone(),
            signer,
        )));
        Ok(())
    }

    /// Done when all is stored and every stream closed. Dropping the future changes nothing but that nobody waits.
    pub(super) async fn close(&self) {
        let task = {
            let mut state = self.lock();
            state.closing = true;
            state.task.take()
        };
        self.wake.notify_one();
        if let Some(task) = task {
            let _ = task.await;
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // The task sees that nobody is left.
        self.wake.notify_one();
    }
}

/// The address of a listener, as the original writes it; `None` for one that is not plain IP and TCP.
fn text(address: &Multiaddr) -> Option<String> {
    let mut parts = address.iter();
    let ip = match parts.next()? {
        Part::Ip4(ip) => IpAddr::V4(ip),
        Part::Ip6(ip) => IpAddr::V6(ip),
        _ => return None,
    };
    let Part::Tcp(port) = parts.next()? else {
        return None;
    };
    Some(SocketAddr::new(ip, port).to_string())
}

fn interfaces() -> Result<Vec<IpAddr>, String> {
    let interfaces = if_addrs::get_if_addrs().map_err(|error| error.to_string())?;
    Ok(interfaces.iter().map(if_addrs::Interface::ip).collect())
}

/// Two messages for each interval: one is expected, and this is for good measure.
fn limits(interval: Duration) -> Limits {
    let (rate, capacity) = (2.0 / interval.as_secs_f64(), 4);
    let (message, bytes) = (MAX_MESSAGE_LENGTH as f64, MAX_MESSAGE_LENGTH as u32);
    Limits::default()
        .with_outgoing_buffer(BUFFER)
        .with_incoming_buffer(BUFFER)
        .with_max_message(MAX_MESSAGE_LENGTH)
        .with_messages(rate, capacity)
        .with_bytes(rate * message, capacity * bytes)
}

/// What the one task does until the end.
async fn run(shared: Weak<Shared>, wake: Arc<Notify>, config: Config, signer: Signer) {
    let (sender, mut incoming) = mpsc::channel(INCOMING);
    let counters = signer.host().counters();
    let mut peers = Peers {
        host: signer.host().clone(),
        limits: limits(config.interval),
        streams: BTreeMap::new(),
        opened: 0,
        sender,
    };
    let mut signing = Signing::new(signer);
    let mut database = config.database.map(|database| Queue::new(database, counters));
    loop {
        // As long as this is there nobody waits for the end of `shared`, so it is let go before anything is awaited.
        let Some(alive) = shared.upgrade() else { break };
        let (actions, timeout) = {
            let mut state = alive.lock();
            if state.closing {
                break;
            }
            let Some(protocol) = state.protocol.as_mut() else { break };
            protocol.on_time(Instant::now());
            (
                std::iter::from_fn(|| protocol.poll()).collect::<Vec<_>>(),
                protocol.next_timeout(),
            )
        };
        drop(alive);
        for action in actions {
            match action {
                Action::Connect(peer) => peers.connect(peer),
                Action::Disconnect(peer) => peers.disconnect(&peer),
                Action::Send(peer, message) => peers.send(peer, message),
                Action::Load(members) => _ = database.as_mut().map(|database| database.load(members)),
                Action::Store(announcements) => _ = database.as_mut().map(|database| database.store(announcements)),
                Action::Sign(counter) => {
                    if counter > SUSPICIOUS_COUNTER {
                        tracing::warn!(counter, "our own announcement has a suspiciously high counter");
                    }
                    signing.want(counter);
                }
                Action::Learnt(peer, counter) => tracing::info!(%peer, counter, "a better announcement"),
                Action::Report(status) => tracing::info!(
                    peers = status.registered_peers,
                    discovered = status.discovered_peers,
                    bootstrappers = status.bootstrappers,
                    missing = ?status.missing,
                    "discovery"
                ),
            }
        }
        let stored = async {
            match &mut database {
                Some(database) => database.next().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = wake.notified() => {}
            () = tokio::time::sleep_until(timeout.into()) => {}
            loaded = stored => {
                let Some(alive) = shared.upgrade() else { break };
                let rejected = alive.protocol(|protocol| protocol.on_loaded(loaded));
                log_rejected(None, &rejected.unwrap_or_default());
            }
            (counter, signed) = signing.next() => {
                let Some(alive) = shared.upgrade() else { break };
                if let Some(Err(error)) = alive.protocol(|protocol| protocol.on_signed(counter, signed)) {
                    tracing::warn!(error = &error as &dyn std::error::Error, counter, "no better announcement of our own");
                }
            }
            event = incoming.recv() => match event {
                Some(Incoming::Message(peer, bytes)) => {
                    let Some(alive) = shared.upgrade() else { break };
                    match alive.protocol(|protocol| protocol.on_message(&bytes)) {
                        Some(Ok(rejected)) => log_rejected(Some(peer), &rejected),
                        Some(Err(error)) => tracing::warn!(%peer, %error, "a message of no use"),
                        None => break,
                    }
                }
                // A stream that we did not close has ended: so has the host.
                Some(Incoming::End(peer, stream)) if peers.streams.get(&peer).is_some_and(|open| open.number == stream) => break,
                Some(Incoming::End(..)) => {}
                None => break,
            },
        }
    }
    let protocol = shared.upgrade().and_then(|shared| shared.lock().protocol.take());
    drop(peers);
    let Some(mut database) = database else { return };
    if let Some(mut protocol) = protocol {
        protocol.save();
        while let Some(action) = protocol.poll() {
            if let Action::Store(announcements) = action {
                database.store(announcements);
            }
        }
    }
    database.finish().await;
}

fn log_rejected(from: Option<PeerId>, rejected: &[Rejected]) {
    // One line for each message, however many announcements it has.
    if let Some(first) = rejected.first() {
        let from = from.map_or_else(|| "the database".to_owned(), |peer| peer.to_string());
        tracing::warn!(from, announcements = rejected.len(), error = %first, "announcements were not taken");
    }
}

/// The streams that are open.
struct Peers {
    host: Handle,
    limits: Limits,
    streams: BTreeMap<PeerId, Peer>,
    opened: u64,
    sender: mpsc::Sender<Incoming>,
}

enum Incoming {
    Message(PeerId, Bytes),
    /// The stream with this number has ended.
    End(PeerId, u64),
}

struct Peer {
    number: u64,
    stream: Arc<Stream>,
    reader: AbortHandle,
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Peers {
    fn connect(&mut self, peer: PeerId) {
        if self.streams.contains_key(&peer) {
            return;
        }
        let stream = match self.host.open_stream(peer, STREAM_NAME, self.limits) {
            Ok(stream) => Arc::new(stream),
            // Tried again with the next message for that peer.
            Err(error) => return tracing::warn!(%peer, %error, "no discovery stream"),
        };
        self.opened += 1;
        let number = self.opened;
        let reader = tokio::spawn({
            let (stream, sender) = (stream.clone(), self.sender.clone());
            async move {
                while let Some(message) = stream.recv().await {
                    if sender.send(Incoming::Message(peer, message)).await.is_err() {
                        return;
                    }
                }
                let _ = sender.send(Incoming::End(peer, number)).await;
            }
        });
        let reader = reader.abort_handle();
        self.streams.insert(peer, Peer { number, stream, reader });
    }

    fn disconnect(&mut self, peer: &PeerId) {
        if let Some(peer) = self.streams.remove(peer) {
            peer.stream.close();
        }
    }

    fn send(&mut self, peer: PeerId, message: Bytes) {
        self.connect(peer);
        if let Some(peer) = self.streams.get(&peer) {
            peer.stream.send(message);
        }
    }
}

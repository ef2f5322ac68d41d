//! Sending a file: it is offered, then the receiver fetches chunk after chunk, a few of them in flight.
//!
//! The receiver sets the pace, so its memory is bounded by its own window and not by what somebody sends.

use crate::inbox::Inbox;
use crate::link::{Asked, Event, Link, Way};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use libp2p::PeerId;
use libp2p::request_response::OutboundFailure;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::io::{self, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};

/// Every chunk but the last has this size.
const CHUNK: u64 = 256 * 1024;
/// Chunks in flight: 2 MiB, enough for 40 MB/s at a round trip of 50 ms.
const WINDOW: usize = 8;
/// The largest request is an offer with a long file name.
pub(crate) const MAX_REQUEST: u64 = 4 * 1024;
/// A chunk, and what CBOR puts round it.
pub(crate) const MAX_RESPONSE: u64 = CHUNK + 64;
/// The longest file name that is sent, in bytes.
const MAX_NAME: usize = 1024;
/// How long an offered file stays open while nobody asks for more of it.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) type Hash = [u8; 32];

/// A file somebody wants to send. The hash is taken before, so that a file that changes meanwhile is noticed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Offer {
    /// Chosen by the sender, unique among its offers.
    pub(crate) id: u64,
    pub(crate) name: String,
    pub(crate) size: u64,
    pub(crate) sha256: Hash,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Sender to receiver.
    Offer(Offer),
    /// Receiver to sender.
    Chunk { id: u64, index: u64 },
    /// Receiver to sender: what arrived, or why nothing did.
    Done { id: u64, result: Result<Hash, String> },
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Response {
    Yes,
    No(String),
    Chunk(#[serde(with = "serde_bytes")] Vec<u8>),
}

/// A file that has arrived, whole and with the right hash.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) path: PathBuf,
    pub(crate) size: u64,
    pub(crate) sha256: Hash,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{path}: {source}")]
    File { path: PathBuf, source: io::Error },
    #[error("{0} is not a file")]
    NotAFile(PathBuf),
    #[error("the name of {0} is too long to be sent")]
    NameTooLong(PathBuf),
    #[error("the other end cannot be asked: {0}")]
    Request(OutboundFailure),
    #[error("this node is stopping")]
    Stopping,
    #[error("the connection ended")]
    Gone,
    #[error("the other end refused: {0}")]
    Refused(String),
    #[error("{size} bytes are offered and the limit is {limit}")]
    TooLarge { size: u64, limit: u64 },
    #[error("{0} files are arriving already")]
    Busy(usize),
    #[error("the other end answered with something else than was asked for")]
    WrongAnswer,
    #[error("chunk {index} has {found} bytes instead of {expected}")]
    WrongLength { index: u64, expected: u64, found: usize },
    #[error("SHA-256 is {found} instead of {expected}")]
    WrongHash { expected: String, found: String },
    #[error("the other end stopped asking for more")]
    Abandoned,
    #[error("the other end failed: {0}")]
    TheirFailure(String),
}

impl Error {
    pub(crate) fn file(path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        |source| Self::File { path, source }
    }
}

/// How far a file of ours has come, told ten times a second at most: a file has thousands of chunks,
/// and each of these events takes a place among those that matter.
struct Pace<'a> {
    link: &'a Link,
    peer: PeerId,
    id: u64,
    done: u64,
    told: Option<Instant>,
}

impl<'a> Pace<'a> {
    const TELL: Duration = Duration::from_millis(100);

    /// From the start, of reading the file or of sending it.
    async fn begin(link: &'a Link, peer: PeerId, id: u64, name: &str, size: u64, hashing: bool) -> Self {
        let name = name.to_owned();
        link.emit(Event::Sending {
            peer,
            id,
            name,
            size,
            hashing,
        })
        .await;
        let (done, told) = (0, None);
        Self {
            link,
            peer,
            id,
            done,
            told,
        }
    }

    fn add(&mut self, bytes: usize) {
        self.done += bytes as u64;
        if self.told.is_none_or(|told| told.elapsed() >= Self::TELL) {
            self.told = Some(Instant::now());
            let Self { peer, id, done, .. } = *self;
            let way = Way::Out;
            self.link.progress(Event::Progress { peer, id, way, done });
        }
    }
}

/// Offers the file at `path` to `peer` and serves it until the other end says that it is done. Returns its hash, which
/// both ends have computed. `id` is a [`Link::number`].
pub(crate) async fn send(link: &Link, peer: PeerId, id: u64, path: &Path) -> Result<(u64, Hash), Error> {
    let mut file = File::open(path).await.map_err(Error::file(path))?;
    let metadata = file.metadata().await.map_err(Error::file(path))?;
    let name = match path.file_name() {
        Some(name) if metadata.is_file() => name.to_string_lossy().into_owned(),
        _ => return Err(Error::NotAFile(path.to_owned())),
    };
    if name.len() > MAX_NAME {
        return Err(Error::NameTooLong(path.to_owned()));
    }
    let pace = Pace::begin(link, peer, id, &name, metadata.len(), true).await;
    let (size, sha256) = hash(&mut file, pace).await.map_err(Error::file(path))?;

    let mut questions = link.serve(peer, id);
    let offer = Offer {
        id,
        name: name.clone(),
        size,
        sha256,
    };
    match link.ask(peer, Request::Offer(offer)).await? {
        Response::Yes => {}
        Response::No(why) => return Err(Error::Refused(why)),
        Response::Chunk(_) => return Err(Error::WrongAnswer),
    }
    let mut pace = Pace::begin(link, peer, id, &name, size, false).await;
    let mut position = 0;
    loop {
        let question = tokio::time::timeout(PATIENCE, questions.recv()).await;
        let Asked { request, answer } = question.map_err(|_| Error::Abandoned)?.ok_or(Error::Gone)?;
        match request {
            Request::Chunk { index, .. } if index < size.div_ceil(CHUNK) => {
                let start = index * CHUNK;
                let mut bytes = vec![0; usize::try_from(length(size, index)).unwrap_or(0)];
                if position != start {
                    file.seek(SeekFrom::Start(start)).await.map_err(Error::file(path))?;
                }
                if let Err(error) = file.read_exact(&mut bytes).await {
                    answer.send(Response::No("the file cannot be read any more".into()));
                    return Err(Error::file(path)(error));
                }
                position = start + bytes.len() as u64;
                pace.add(bytes.len());
                answer.send(Response::Chunk(bytes));
            }
            Request::Done { result, .. } => {
                answer.send(Response::Yes);
                return check(sha256, result.map_err(Error::TheirFailure)?).map(|hash| (size, hash));
            }
            Request::Chunk { .. } | Request::Offer(_) => answer.send(Response::No("no such chunk".into())),
        }
    }
}

/// Answers an offer and, if it is welcome, fetches the file into `inbox`. A file that does not arrive whole leaves
/// nothing behind.
pub(crate) async fn receive(link: &Link, peer: PeerId, offer: &Offer, inbox: &Inbox) -> Result<Received, Error> {
    let result = fetch(link, peer, offer, inbox).await;
    let told = match &result {
        Ok(received) => Ok(received.sha256),
        // There is nobody to tell.
        Err(Error::Request(_)) => return result,
        // What went wrong here in detail (paths of ours, for one) is none of their business.
        Err(Error::File { .. }) => Err("the file cannot be written".into()),
        Err(error) => Err(error.to_string()),
    };
    // The outcome stands already: that the sender may not hear of it changes nothing.
    let _ = link
        .ask(
            peer,
            Request::Done {
                id: offer.id,
                result: told,
            },
        )
        .await;
    result
}

async fn fetch(link: &Link, peer: PeerId, offer: &Offer, inbox: &Inbox) -> Result<Received, Error> {
    let mut partial = inbox.create(&peer, &offer.name).await?;
    let ask = |index| async move {
        let expected = length(offer.size, index);
        match link.ask(peer, Request::Chunk { id: offer.id, index }).await? {
            Response::Chunk(bytes) if bytes.len() as u64 == expected => Ok(bytes),
            Response::Chunk(bytes) => Err(Error::WrongLength {
                index,
                expected,
                found: bytes.len(),
            }),
            Response::No(why) => Err(Error::Refused(why)),
            Response::Yes => Err(Error::WrongAnswer),
        }
    };
    // `buffered` keeps WINDOW requests in flight and hands the answers out in order, in whichever they come.
    let mut chunks = stream::iter(0..offer.size.div_ceil(CHUNK)).map(ask).buffered(WINDOW);
    let (mut hasher, mut done) = (Sha256::new(), 0);
    while let Some(bytes) = chunks.try_next().await? {
        hasher.update(&bytes);
        partial.write(&bytes).await?;
        done += bytes.len() as u64;
        link.progress(Event::Progress {
            peer,
            id: offer.id,
            way: Way::In,
            done,
        });
    }
    let sha256 = check(offer.sha256, hasher.finalize().into())?;
    let path = partial.keep().await?;
    Ok(Received {
        path,
        size: offer.size,
        sha256,
    })
}

fn length(size: u64, index: u64) -> u64 {
    size.saturating_sub(index.saturating_mul(CHUNK)).min(CHUNK)
}

fn check(expected: Hash, found: Hash) -> Result<Hash, Error> {
    if found == expected {
        return Ok(found);
    }
    Err(Error::WrongHash {
        expected: hex(&expected),
        found: hex(&found),
    })
}

/// Size and hash of a file, which is back at its start afterwards.
async fn hash(file: &mut File, mut pace: Pace<'_>) -> io::Result<(u64, Hash)> {
    let (mut hasher, mut size) = (Sha256::new(), 0);
    let mut buffer = vec![0; CHUNK as usize];
    loop {
        let n = file.read(&mut buffer).await?;
        if n == 0 {
            break;
        }
        hasher.update(&buffer[..n]);
        size += n as u64;
        pace.add(n);
    }
    file.rewind().await?;
    Ok((size, hasher.finalize().into()))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

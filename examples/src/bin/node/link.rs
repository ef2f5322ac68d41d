//! The handle to a running node, what it can be told, and what it has to tell.

use crate::random;
use crate::transfer::{Error, Hash, Offer, Received, Request, Response};
use libp2p::request_response::ResponseChannel;
use libp2p::{Multiaddr, PeerId};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};

/// Events that may wait to be looked at. Beyond it the swarm waits, and with it, in the end, the network.
const EVENTS: usize = 1024;
/// Questions for an offered file that may wait. Who asks for more at once than this is refused.
const QUESTIONS: usize = 32;

/// What a node has to tell. Text in it may come from anybody: it is not fit for a terminal as it is.
#[derive(Debug)]
pub(crate) enum Event {
    Listening(Multiaddr),
    NotListening {
        address: Multiaddr,
        why: String,
    },
    Connected {
        peer: PeerId,
        address: Multiaddr,
        dialled: bool,
    },
    Disconnected {
        peer: PeerId,
        why: Option<String>,
    },
    DialFailed {
        why: String,
    },
    Pinged {
        peer: PeerId,
        rtt: Duration,
    },
    Identified {
        peer: PeerId,
        agent: String,
        addresses: Vec<Multiaddr>,
    },
    Subscribed(PeerId),
    Chat {
        from: PeerId,
        text: String,
    },
    NotSaid {
        why: String,
    },
    Offered {
        peer: PeerId,
        offer: Offer,
    },
    /// A file of ours is read for its hash, or goes to `peer`: `hashing` says which.
    Sending {
        peer: PeerId,
        id: u64,
        name: String,
        size: u64,
        hashing: bool,
    },
    Progress {
        peer: PeerId,
        id: u64,
        way: Way,
        done: u64,
    },
    Received {
        peer: PeerId,
        id: u64,
        name: String,
        result: Result<Received, Error>,
    },
    Sent {
        peer: PeerId,
        id: u64,
        name: String,
        result: Result<(u64, Hash), Error>,
    },
}

/// Where a file goes. Its number is its sender's: each end may have a file of the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Way {
    In,
    Out,
}

/// Somebody asks for a part of an offered file.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) request: Request,
    pub(crate) answer: Answer,
}

/// The way back to who asked.
#[derive(Debug)]
pub(crate) struct Answer {
    channel: ResponseChannel<Response>,
    commands: mpsc::UnboundedSender<Command>,
}

impl Answer {
    pub(crate) fn new(channel: ResponseChannel<Response>, link: &Link) -> Self {
        let commands = link.commands.clone();
        Self { channel, commands }
    }

    pub(crate) fn send(self, response: Response) {
        let _ = self.commands.send(Command::Answer(self.channel, response));
    }
}

/// What a node can be told to do.
#[derive(Debug)]
pub(crate) enum Command {
    Listen(Multiaddr),
    Dial(Multiaddr),
    Say(String),
    Ask(PeerId, Request, oneshot::Sender<Result<Response, Error>>),
    Answer(ResponseChannel<Response>, Response),
    Serve(PeerId, u64, mpsc::Sender<Asked>),
}

/// A handle to a running node. Commands never wait: whoever reads the events can also give them.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    commands: mpsc::UnboundedSender<Command>,
    events: mpsc::Sender<Event>,
    peers: watch::Receiver<BTreeMap<PeerId, Multiaddr>>,
    next_id: Arc<AtomicU64>,
}

/// The node's ends of the channels of a [`Link`].
#[derive(Debug)]
pub(crate) struct Ends {
    pub(crate) commands: mpsc::UnboundedReceiver<Command>,
    pub(crate) peers: watch::Sender<BTreeMap<PeerId, Multiaddr>>,
}

impl Link {
    /// A link, the node's ends of it, and where the events come out.
    pub(crate) fn new() -> (Self, Ends, mpsc::Receiver<Event>) {
        let (commands, told) = mpsc::unbounded_channel();
        let (events, seen) = mpsc::channel(EVENTS);
        let (connected, peers) = watch::channel(BTreeMap::new());
        // Not from 1: a receiver that outlives our restart must not get chunks of another file under an old number.
        let next_id = Arc::new(AtomicU64::new(random::seed()));
        let ends = Ends {
            commands: told,
            peers: connected,
        };
        (
            Self {
                commands,
                events,
                peers,
                next_id,
            },
            ends,
            seen,
        )
    }

    pub(crate) fn listen(&self, address: Multiaddr) {
        self.command(Command::Listen(address));
    }

    pub(crate) fn dial(&self, address: Multiaddr) {
        self.command(Command::Dial(address));
    }

    /// Publishes a line to everybody on the topic.
    pub(crate) fn say(&self, text: &str) {
        self.command(Command::Say(text.to_owned()));
    }

    /// Who is connected, and where.
    pub(crate) fn peers(&self) -> BTreeMap<PeerId, Multiaddr> {
        self.peers.borrow().clone()
    }

    pub(crate) async fn ask(&self, peer: PeerId, request: Request) -> Result<Response, Error> {
        let (reply, answer) = oneshot::channel();
        self.command(Command::Ask(peer, request, reply));
        answer.await.map_err(|_| Error::Stopping)?
    }

    /// A number for an offer of ours.
    pub(crate) fn number(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// What `peer` will ask about the offer of this number. Ends when the receiver is dropped.
    pub(crate) fn serve(&self, peer: PeerId, id: u64) -> mpsc::Receiver<Asked> {
        let (sender, questions) = mpsc::channel(QUESTIONS);
        self.command(Command::Serve(peer, id, sender));
        questions
    }

    pub(crate) async fn emit(&self, event: Event) {
        let _ = self.events.send(event).await;
    }

    /// For events of which one may be lost when nobody looks.
    pub(crate) fn progress(&self, event: Event) {
        let _ = self.events.try_send(event);
    }

    /// A node that is gone needs no commands: only at the end of the program is there nobody to take one.
    fn command(&self, command: Command) {
        let _ = self.commands.send(command);
    }
}

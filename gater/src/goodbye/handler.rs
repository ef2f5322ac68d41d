//! One connection: writes the message when told to, reads one if the other side writes it.

use super::message::{Goodbye, HEAD};
use futures::future::BoxFuture;
use futures::{AsyncReadExt as _, AsyncWriteExt as _, FutureExt as _};
use futures_timer::Delay;
use libp2p_core::upgrade::ReadyUpgrade;
use libp2p_swarm::handler::{
    ConnectionEvent, ConnectionHandler, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound,
    SubstreamProtocol,
};
use libp2p_swarm::{ConnectionHandlerEvent, Stream, StreamProtocol, StreamUpgradeError};
use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

const PROTOCOL: StreamProtocol = StreamProtocol::new("/libp2p-gater/goodbye/1.0.0");

/// From the wish to close until it is closed at the latest, whatever the other side does.
pub(super) const LONGEST: Duration = Duration::from_secs(1);
/// For the other side to write 262 bytes, once it has opened a stream.
const LONGEST_TO_HEAR: Duration = Duration::from_secs(5);

/// The part of [`Behaviour`](super::Behaviour) that sits on each connection.
pub struct Handler {
    saying: Saying,
    hearing: Hearing,
}

enum Saying {
    Nothing,
    /// A stream is to be asked for.
    Wanted(Goodbye),
    /// It has been asked for.
    Opening(Goodbye, Delay),
    Writing(BoxFuture<'static, io::Result<()>>, Delay),
    Refused,
    /// It is over, and that has been told.
    Over,
}

enum Hearing {
    Nothing,
    Reading(BoxFuture<'static, io::Result<Goodbye>>, Delay),
    /// One connection is closed once: the first goodbye is the only one.
    Over,
}

/// What became of a goodbye that was to be said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    /// The other side has read it.
    Heard,
    /// The other side broke off, or has not read it within a second.
    Unheard,
    /// The other side does not know the protocol, which it says at once. Where substreams are negotiated lazily
    /// (`V1Lazy`) it breaks off instead.
    Unsupported,
}

/// What the handler tells its behaviour.
#[derive(Debug)]
#[non_exhaustive]
pub enum FromHandler {
    /// The message has been said, or cannot be: the connection can be closed.
    Said(Said),
    /// The other side has said goodbye and is about to close.
    Heard(Goodbye),
}

impl Handler {
    pub(super) const fn new() -> Self {
        Self {
            saying: Saying::Nothing,
            hearing: Hearing::Nothing,
        }
    }

    fn said(&mut self, said: Said) -> Poll<ToBehaviour> {
        self.saying = Saying::Over;
        Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(FromHandler::Said(said)))
    }
}

type ToBehaviour = ConnectionHandlerEvent<ReadyUpgrade<StreamProtocol>, (), FromHandler>;

impl ConnectionHandler for Handler {
    type FromBehaviour = Goodbye;
    type ToBehaviour = FromHandler;
    type InboundProtocol = ReadyUpgrade<StreamProtocol>;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        SubstreamProtocol::new(ReadyUpgrade::new(PROTOCOL), ())
    }

    fn connection_keep_alive(&self) -> bool {
        matches!(
            self.saying,
            Saying::Wanted(_) | Saying::Opening(..) | Saying::Writing(..) | Saying::Refused
        )
    }

    fn on_behaviour_event(&mut self, goodbye: Goodbye) {
        if matches!(self.saying, Saying::Nothing) {
            self.saying = Saying::Wanted(goodbye);
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToBehaviour> {
        if let Hearing::Reading(reading, late) = &mut self.hearing {
            if let Poll::Ready(read) = reading.poll_unpin(cx) {
                self.hearing = Hearing::Over;
                if let Ok(goodbye) = read {
                    return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(FromHandler::Heard(goodbye)));
                }
            } else if late.poll_unpin(cx).is_ready() {
                self.hearing = Hearing::Over;
            }
        }
        match std::mem::replace(&mut self.saying, Saying::Over) {
            Saying::Wanted(goodbye) => {
                self.saying = Saying::Opening(goodbye, Delay::new(LONGEST));
                let protocol = SubstreamProtocol::new(ReadyUpgrade::new(PROTOCOL), ()).with_timeout(LONGEST);
                return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
            }
            Saying::Opening(goodbye, mut late) => {
                if late.poll_unpin(cx).is_ready() {
                    return self.said(Said::Unheard);
                }
                self.saying = Saying::Opening(goodbye, late);
            }
            Saying::Writing(mut writing, mut late) => {
                if let Poll::Ready(written) = writing.poll_unpin(cx) {
                    return self.said(written.map_or(Said::Unheard, |()| Said::Heard));
                }
                if late.poll_unpin(cx).is_ready() {
                    return self.said(Said::Unheard);
                }
                self.saying = Saying::Writing(writing, late);
            }
            Saying::Refused => return self.said(Said::Unsupported),
            idle @ (Saying::Nothing | Saying::Over) => self.saying = idle,
        }
        Poll::Pending
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, Self::InboundProtocol, Self::OutboundProtocol>) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol: stream, .. }) => {
                if matches!(self.hearing, Hearing::Nothing) {
                    self.hearing = Hearing::Reading(hear(stream).boxed(), Delay::new(LONGEST_TO_HEAR));
                }
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol: stream, .. }) => {
                self.saying = match std::mem::replace(&mut self.saying, Saying::Over) {
                    Saying::Opening(goodbye, late) => Saying::Writing(say(stream, goodbye).boxed(), late),
                    // Too late.
                    other => other,
                };
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { error, .. }) => {
                if let Saying::Opening(..) = self.saying {
                    self.saying = match error {
                        StreamUpgradeError::NegotiationFailed => Saying::Refused,
                        // A timeout like ours, which comes at the same time, or the end of the connection.
                        _ => std::mem::replace(&mut self.saying, Saying::Over),
                    };
                }
            }
            _ => {}
        }
    }
}

/// Writes it, and waits until the other side has closed the stream: then it has read all of it.
async fn say(mut stream: Stream, goodbye: Goodbye) -> io::Result<()> {
    stream.write_all(&goodbye.to_bytes()).await?;
    stream.close().await?;
    match stream.read(&mut [0]).await? {
        0 => Ok(()),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

async fn hear(mut stream: Stream) -> io::Result<Goodbye> {
    // Whoever opens it and writes nothing keeps no connection alive by that.
    stream.ignore_for_keep_alive();
    let mut head = [0; HEAD];
    stream.read_exact(&mut head).await?;
    let mut text = vec![0; Goodbye::text_length(&head)];
    stream.read_exact(&mut text).await?;
    // The answer is the end of the stream. That it may not come through is the other side's to bear.
    let _ = stream.close().await;
    Ok(Goodbye::from_parts(&head, &text))
}

impl std::fmt::Debug for Handler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handler")
            .field("saying", &self.connection_keep_alive())
            .finish_non_exhaustive()
    }
}

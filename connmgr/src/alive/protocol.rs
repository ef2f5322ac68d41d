//! How a question is negotiated.

use super::PROTOCOL;
use futures::future::{BoxFuture, FutureExt as _, Ready, ready};
use futures::io::AsyncReadExt as _;
use libp2p_core::{InboundUpgrade, OutboundUpgrade, UpgradeInfo};
use libp2p_swarm::{Stream, StreamProtocol};
use std::convert::Infallible;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use std::{iter, option};
use web_time::Instant;

/// Asks the other end whether it keeps the connection too.
#[derive(Debug, Clone, Default)]
pub struct Ask {
    /// When there was a stream for it.
    opened: Arc<OnceLock<Instant>>,
}

impl Ask {
    /// Whether there has been a stream for it, for so long at least.
    pub(crate) fn was_asked_for(&self, time: Duration) -> bool {
        self.opened.get().is_some_and(|opened| opened.elapsed() >= time)
    }
}

impl UpgradeInfo for Ask {
    type Info = StreamProtocol;
    type InfoIter = iter::Once<StreamProtocol>;

    /// The Swarm calls this once there is a stream.
    fn protocol_info(&self) -> Self::InfoIter {
        self.opened.get_or_init(Instant::now);
        iter::once(PROTOCOL)
    }
}

impl OutboundUpgrade<Stream> for Ask {
    /// The stream, if it was accepted.
    type Output = Option<Stream>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Option<Stream>, Infallible>>;

    fn upgrade_outbound(self, mut stream: Stream, _: Self::Info) -> Self::Future {
        async move {
            // The handler says itself whether to keep the connection.
            stream.ignore_for_keep_alive();
            // Negotiated lazily, the protocol is a hope until something is read. Nothing may be
            // written before: a refusal that finds more to read ends the stream in one pass, and
            // that starts no idle timeout anew.
            let accepted = stream.read_exact(&mut [0]).await.is_ok();
            Ok(accepted.then_some(stream))
        }
        .boxed()
    }
}

/// Accepts the question, or knows no protocol.
#[derive(Debug, Clone, Copy)]
pub struct Accept(pub(crate) bool);

impl UpgradeInfo for Accept {
    type Info = StreamProtocol;
    type InfoIter = option::IntoIter<StreamProtocol>;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.then_some(PROTOCOL).into_iter()
    }
}

impl InboundUpgrade<Stream> for Accept {
    type Output = Stream;
    type Error = Infallible;
    type Future = Ready<Result<Stream, Infallible>>;

    fn upgrade_inbound(self, mut stream: Stream, _: Self::Info) -> Self::Future {
        stream.ignore_for_keep_alive();
        ready(Ok(stream))
    }
}

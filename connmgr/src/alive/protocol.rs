//! How a question is negotiated.

use super::PROTOCOL;
use futures::future::{BoxFuture, FutureExt as _, Ready, ready};
use futures::io::AsyncReadExt as _;
use libp2p_core::{InboundUpgrade, OutboundUpgrade, UpgradeInfo};
use libp2p_swarm::{Stream, StreamProtocol};
use std::convert::Infallible;
use std::{iter, option};

/// Asks the other end whether it keeps the connection too.
#[derive(Debug, Clone, Copy)]
pub struct Ask(pub(crate) ());

impl UpgradeInfo for Ask {
    type Info = StreamProtocol;
    type InfoIter = iter::Once<StreamProtocol>;

    fn protocol_info(&self) -> Self::InfoIter {
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

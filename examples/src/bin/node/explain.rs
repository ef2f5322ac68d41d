//! Errors, said so that the reader knows what to do next.

use libp2p::core::transport::TransportError;
use libp2p::gossipsub::PublishError;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::{ConnectionError, DialError};
use libp2p::{Multiaddr, PeerId};
use libp2p_knock::Failure;
use std::error::Error;
use std::io;

/// An error and its causes in one line, each said once: some errors repeat their cause in their own words.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = String::new();
    for cause in causes(error) {
        // Some have nothing to say, and some say it on several lines.
        let said = cause.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        if !text.ends_with(&said) {
            let colon = if text.is_empty() { "" } else { ": " };
            text = format!("{text}{colon}{said}");
        }
    }
    text
}

/// What is wrong with a dial to `address` before anything is dialled.
pub(crate) fn undiallable(address: &Multiaddr, ourselves: &PeerId) -> Option<String> {
    let mut base = address.clone();
    let peer = match base.iter().last() {
        Some(Protocol::P2p(peer)) => {
            base.pop();
            Some(peer)
        }
        _ => None,
    };
    let marked = base.iter().last() == Some(Protocol::Tls);
    let marker = if marked { "" } else { "/tls" };
    match peer {
        Some(peer) if peer == *ourselves => Some(format!(
            "{address} is this node itself. Do both terminals use the same key file? Start one of them with another: \
             --key second.key"
        )),
        Some(peer) if !marked => Some(format!(
            "{address} is not a knock address. Write: {base}{marker}/p2p/{peer}"
        )),
        None => Some(format!(
            "{address} does not say whose it is, and a knock is made for one peer. Write: {base}{marker}/p2p/<peer id>, \
             with the peer id that the other node prints when it starts"
        )),
        Some(_) => None,
    }
}

pub(crate) fn dial(error: &DialError) -> String {
    match error {
        DialError::Transport(attempts) if !attempts.is_empty() => {
            let said = attempts
                .iter()
                .map(|(address, error)| format!("{address}: {}", transport(error)));
            said.collect::<Vec<_>>().join("; ")
        }
        DialError::DialPeerConditionFalse(_) => "already connected, or about to be".into(),
        error => chain(error),
    }
}

pub(crate) fn transport(error: &TransportError<io::Error>) -> String {
    if let TransportError::MultiaddrNotSupported(_) = error {
        return "no transport for this address: knock addresses look like /ip4/192.0.2.7/tcp/4001/tls".into();
    }
    match Failure::find(error) {
        Some(libp2p_knock::Error::Inner(cause)) => match io_kinds(&**cause).last() {
            Some(io::ErrorKind::ConnectionRefused) => "nobody listens there".into(),
            _ => chain(&**cause),
        },
        Some(error) => chain(error),
        None => chain(error),
    }
}

/// Why a connection ended, unless it just did.
pub(crate) fn disconnect(error: &ConnectionError) -> Option<String> {
    let gone = |kind| {
        use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
        matches!(kind, BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
    };
    if io_kinds(error).any(gone) {
        // The program at the other end has ended, or its host has.
        return None;
    }
    Some(chain(error))
}

/// An error and what led to it. An `io::Error` hides the error that it was made from, and shows only that one's source.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| {
        let error: &'a (dyn Error + 'static) = *error;
        match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        }
    })
}

fn io_kinds(error: &(dyn Error + 'static)) -> impl Iterator<Item = io::ErrorKind> {
    causes(error).filter_map(|error| error.downcast_ref::<io::Error>().map(io::Error::kind))
}

/// Whether a listener failed only because its port is taken.
pub(crate) fn port_is_taken(error: &TransportError<io::Error>) -> bool {
    matches!(Failure::find(error), Some(libp2p_knock::Error::PortInUse { .. }))
}

pub(crate) fn publish(error: &PublishError) -> String {
    match error {
        PublishError::NoPeersSubscribedToTopic => "nobody is connected yet".into(),
        PublishError::MessageTooLarge => "the line is too long, send it as a file".into(),
        error => error.to_string(),
    }
}

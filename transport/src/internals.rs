//! The pure pieces of the knock, and all that a listener does with bytes before it answers, without a socket.

pub use crate::knock::reader::{Gathered, Reader};
pub use crate::knock::v3::*;
pub use crate::random::{Hedged, NoRandomness};
pub use crate::records::line::{Heard, Line};
pub use crate::yamux::end::End;

use crate::clock::Clock;
use crate::config::Config;
use crate::judge::{Judged, Turned, Why};
use crate::knock::Refusal;
use crate::silence::prefix::Prefix;
use crate::upgrade::Shared;
use libp2p_core::{ConnectedPoint, Multiaddr};
use libp2p_identity::PeerId;
use std::sync::Arc;
use std::time::Duration;
use web_time::SystemTime;

/// The identity that [`Config::new`] makes of a key pair; `None` if it is not Ed25519.
pub fn local(keypair: &libp2p_identity::Keypair) -> Option<Arc<dyn crate::Identity>> {
    let local = crate::identity::Local::new(keypair).ok()?;
    Some(Arc::new(local))
}

/// The certificate of a key pair; `None` if it is not Ed25519.
pub fn certificate(keypair: &libp2p_identity::Keypair) -> Option<Vec<u8>> {
    let local = crate::identity::Local::new(keypair).ok()?;
    crate::certificate::make(&local).ok().map(|der| der.to_vec())
}

/// Reads the key in a certificate as the TLS verifier does; `None` for what it refuses.
pub fn certificate_key(der: &[u8]) -> Option<[u8; 32]> {
    crate::certificate::key_of(&der.into()).ok()
}

/// The same configuration, with no clock but `time`: what the wall clock shows, and how long the
/// process has run. Forgets which knocks were answered.
pub fn with_time(config: Config, time: impl Fn() -> (SystemTime, Duration) + Send + Sync + 'static) -> Config {
    config.judging_by(Clock::of_both(time))
}

/// A listener without a socket.
pub struct Doorkeeper(Arc<Shared>);

/// What a listener makes of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It would be answered.
    Answered(PeerId),
    /// It is read from, and hears nothing.
    Refused(Refusal),
    /// By the admission hook.
    Denied,
    /// More has to come first.
    Waiting,
}

impl Doorkeeper {
    /// The listener that `config` describes.
    pub fn new(config: Config) -> Self {
        Self(Shared::new(config))
    }

    /// The same, with no clock but `time`: what the wall clock shows, and how long the process has run.
    pub fn with_time(config: Config, time: impl Fn() -> (SystemTime, Duration) + Send + Sync + 'static) -> Self {
        Self::new(with_time(config, time))
    }

    /// Forgets whatever it has heard, as if it had just been made.
    pub fn forget(&mut self) {
        let shared = Arc::get_mut(&mut self.0).expect("nobody else has it");
        shared.config.renew_guard();
    }

    /// Hears `pieces` from `remote`, one read each at most. Says what became of it, and how many bytes were taken.
    pub fn hear<'a>(&self, remote: &Multiaddr, pieces: impl IntoIterator<Item = &'a [u8]>) -> (Verdict, usize) {
        let prefix = Prefix::of(remote);
        let point = ConnectedPoint::Listener {
            local_addr: Multiaddr::empty(),
            send_back_addr: remote.clone(),
        };
        let (mut reader, mut taken) = (self.0.reader(), 0);
        let mut awaited: Option<(Box<Opened>, Vec<u8>)> = None;
        for mut piece in pieces {
            while !piece.is_empty() {
                if let Some((opened, sealed)) = &mut awaited {
                    let n = piece.len().min(opened.sealed_len() - sealed.len());
                    sealed.extend_from_slice(&piece[..n]);
                    taken += n;
                    piece = &piece[n..];
                    if sealed.len() == opened.sealed_len() {
                        let judged = self.0.judge_flight(opened, sealed, prefix);
                        return (
                            judged.map_or_else(refused, |caller| Verdict::Answered(caller.caller.peer())),
                            taken,
                        );
                    }
                    continue;
                }
                let space = reader.space();
                let n = piece.len().min(space.len());
                space[..n].copy_from_slice(&piece[..n]);
                reader.advance(n, |claimed| self.0.may_v2(claimed));
                taken += n;
                piece = &piece[n..];
                let Some(gathered) = reader.gathered() else { continue };
                match self.0.judge_head(gathered, prefix, &point) {
                    Ok(Judged::Invited(invited)) => return (Verdict::Answered(invited.caller.peer()), taken),
                    Ok(Judged::Awaited(opened)) => awaited = Some((opened, Vec::new())),
                    Ok(Judged::Undecided) => reader.go_on(),
                    Err(turned) => return (refused(turned), taken),
                }
            }
        }
        (Verdict::Waiting, taken)
    }
}

fn refused(turned: Turned) -> Verdict {
    match turned.why {
        Why::Refused(refusal) => Verdict::Refused(refusal),
        Why::Denied(_) => Verdict::Denied,
        Why::Gone => Verdict::Waiting,
    }
}

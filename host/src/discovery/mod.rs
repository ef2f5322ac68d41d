//! Where peers are: a host asks its [`Discoverer`] before it dials.
//!
//! | discoverer | finds |
//! | --- | --- |
//! | [`StaticList`] | what it was told |
//! | [`Ragedisco`](ragedisco::Ragedisco) | the members of groups, by announcements that they sign and pass on; understands the Go original |
//! | [`SwarmAddresses`](swarm::SwarmAddresses) | what the behaviours of a Swarm find: kad, mDNS, identify, rendezvous |

use crate::Handle;
use futures::future::BoxFuture;
use libp2p_core::Multiaddr;
use libp2p_identity::PeerId;

pub mod ragedisco;
mod static_list;
pub mod swarm;

pub use static_list::StaticList;

/// Finds the addresses of peers. One of them serves one host, from the host's start to its close.
///
/// Every method must return at once, as hosts and the loop that dials share their tasks with it.
pub trait Discoverer: Send + Sync + 'static {
    /// Called once, before the first dial.
    ///
    /// # Errors
    ///
    /// Whatever keeps the discoverer from working. The host does not start then.
    fn start(&self, host: &Handle) -> Result<(), Box<dyn std::error::Error + Send + Sync>>;

    /// Called once when the host closes, while its streams still work. The host goes on closing after five seconds,
    /// whether the future is done or not.
    fn close(&self) -> BoxFuture<'_, ()>;

    /// What is known now, best address first. A discoverer that has to search starts the search here and has the answer
    /// for a later call: the host asks again before every dial.
    fn find_peer(&self, peer: &PeerId) -> Vec<Multiaddr>;
}

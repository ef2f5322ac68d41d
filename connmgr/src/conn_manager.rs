//! What other crates ask of a connection manager, whichever it is.

use crate::event::Trimmed;
use crate::info::TagInfo;
use crate::trimming::TrimError;
use futures::future::{BoxFuture, FutureExt as _, ready};
use libp2p_identity::PeerId;
use std::sync::Arc;

/// A connection manager, as libraries see it that tag and protect peers.
/// [`Manager`](crate::Manager) is one, and so is an `Arc` or a `Box` of one.
///
/// All methods are quick and take effect before they return; none waits for the Swarm.
pub trait ConnManager: Send + Sync {
    /// Gives the peer `value` under `tag`, in place of what it had. Connected or not.
    fn tag_peer(&self, peer: &PeerId, tag: &str, value: i64);

    /// Removes the tag. Without it nothing happens.
    fn untag_peer(&self, peer: &PeerId, tag: &str);

    /// Gives the peer under `tag` what `upsert` makes of its value there, 0 if it has none. `upsert`
    /// may be called again if another thread changes the tag meanwhile, and may call the manager.
    /// [`Manager`](crate::Manager)'s own takes the closure itself.
    fn upsert_tag(&self, peer: &PeerId, tag: &str, upsert: &mut dyn FnMut(i64) -> i64);

    /// What is known of the peer, if anything.
    fn tag_info(&self, peer: &PeerId) -> Option<TagInfo>;

    /// Trims now, and resolves when the connections are closed or a deadline is over. The trim goes
    /// on if the future is dropped.
    ///
    /// # Errors
    ///
    /// [`TrimError::NotPolled`]: await it on another task than the one that drives the Swarm.
    fn trim_open_conns(&self) -> BoxFuture<'static, Result<Trimmed, TrimError>>;

    /// Exempts the peer from trimming until [`Self::unprotect`] with the same tag. The same tag twice is once.
    fn protect(&self, peer: &PeerId, tag: &str);

    /// Removes one protection. Whether the peer is still protected, under another.
    fn unprotect(&self, peer: &PeerId, tag: &str) -> bool;

    /// Whether the peer is protected under `tag`, or under any if it is empty.
    fn is_protected(&self, peer: &PeerId, tag: &str) -> bool;

    /// Ends the manager's work.
    fn close(&self);
}

/// A manager that does nothing, for nodes that want none.
///
/// As in go-libp2p it knows of every peer, and nothing about it.
#[derive(Debug, Clone, Copy, Default)]
pub struct NullConnMgr;

impl ConnManager for NullConnMgr {
    fn tag_peer(&self, _: &PeerId, _: &str, _: i64) {}

    fn untag_peer(&self, _: &PeerId, _: &str) {}

    fn upsert_tag(&self, _: &PeerId, _: &str, _: &mut dyn FnMut(i64) -> i64) {}

    fn tag_info(&self, _: &PeerId) -> Option<TagInfo> {
        Some(TagInfo::default())
    }

    fn trim_open_conns(&self) -> BoxFuture<'static, Result<Trimmed, TrimError>> {
        ready(Ok(Trimmed::default())).boxed()
    }

    fn protect(&self, _: &PeerId, _: &str) {}

    fn unprotect(&self, _: &PeerId, _: &str) -> bool {
        false
    }

    fn is_protected(&self, _: &PeerId, _: &str) -> bool {
        false
    }

    fn close(&self) {}
}

macro_rules! forward {
    ($($pointer:ident),*) => {$(
        impl<M: ConnManager + ?Sized> ConnManager for $pointer<M> {
            fn tag_peer(&self, peer: &PeerId, tag: &str, value: i64) {
                (**self).tag_peer(peer, tag, value);
            }

            fn untag_peer(&self, peer: &PeerId, tag: &str) {
                (**self).untag_peer(peer, tag);
            }

            fn upsert_tag(&self, peer: &PeerId, tag: &str, upsert: &mut dyn FnMut(i64) -> i64) {
                (**self).upsert_tag(peer, tag, upsert);
            }

            fn tag_info(&self, peer: &PeerId) -> Option<TagInfo> {
                (**self).tag_info(peer)
            }

            fn trim_open_conns(&self) -> BoxFuture<'static, Result<Trimmed, TrimError>> {
                (**self).trim_open_conns()
            }

            fn protect(&self, peer: &PeerId, tag: &str) {
                (**self).protect(peer, tag);
            }

            fn unprotect(&self, peer: &PeerId, tag: &str) -> bool {
                (**self).unprotect(peer, tag)
            }

            fn is_protected(&self, peer: &PeerId, tag: &str) -> bool {
                (**self).is_protected(peer, tag)
            }

            fn close(&self) {
                (**self).close();
            }
        }
    )*};
}

forward!(Arc, Box);

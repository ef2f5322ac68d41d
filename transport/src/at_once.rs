//! What has to be done in this very poll, as no other follows.

use std::pin::pin;
use std::task::{Context, Poll};

/// What `poll` says, whatever the task has done before in this turn. Tokio says of every socket
/// that it is not ready once a task has done much.
pub(crate) fn poll_at_once<T>(cx: &mut Context<'_>, poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
    let polling = std::future::poll_fn(poll);
    #[cfg(feature = "tokio")]
    let polling = tokio::task::unconstrained(polling);
    pin!(polling).poll(cx)
}

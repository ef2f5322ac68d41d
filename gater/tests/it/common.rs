//! What the tests share.

use std::time::Duration;

/// Long enough for anything that is going to happen, on a loaded machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// `work`, or a panic that says that it never came.
pub(crate) async fn soon<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work)
        .await
        .unwrap_or_else(|_| panic!("{what}: nothing within {PATIENCE:?}"))
}

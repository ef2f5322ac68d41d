//! Where announcements outlive the process.

use libp2p_identity::PeerId;

/// Whatever went wrong in a database.
pub type DatabaseError = Box<dyn std::error::Error + Send + Sync>;

/// Keeps one announcement for each peer, as bytes: those of [`Announcement::encode`](super::Announcement::encode).
///
/// Both methods may block: they are called from a thread for blocking work, one call at a time, and
/// may call the discovery. What fails is logged and said again later; discovery works without. A
/// panic counts as a failure ([`Hook::Database`](crate::Hook::Database)).
pub trait Database: Send + Sync + 'static {
    /// Writes these, each in the place of what there is for its peer.
    ///
    /// # Errors
    ///
    /// When they may not all have been written.
    fn store(&self, announcements: &[(PeerId, Vec<u8>)]) -> Result<(), DatabaseError>;

    /// What there is for these peers; nothing for those that nothing was written for.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    fn read(&self, peers: &[PeerId]) -> Result<Vec<(PeerId, Vec<u8>)>, DatabaseError>;
}

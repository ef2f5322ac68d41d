//! A connection manager for rust-libp2p: tags, protection, watermarks, decay, trimming

pub mod count;
pub mod persistent;

pub use persistent::Behaviour as PersistentPeers;
pub mod pressure;

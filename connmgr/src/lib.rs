//! A connection manager for rust-libp2p: tags, protection, watermarks, decay, trimming

pub mod count;

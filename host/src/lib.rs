//! ragep2p's Host and Stream in Rust: named, self-healing, rate-limited message streams.

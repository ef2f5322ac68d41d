//! One policy object, asked at every stage of a connection's life in a rust-libp2p swarm

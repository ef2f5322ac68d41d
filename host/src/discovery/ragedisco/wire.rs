//! ragedisco's protobuf messages, field by field as the original has them.

use prost::Message as _;

/// A peer's addresses, in its own words.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct SignedAnnouncement {
    #[prost(bytes = "vec", repeated, tag = "1")]
    pub(super) addrs: Vec<Vec<u8>>,
    #[prost(uint64, tag = "2")]
    pub(super) counter: u64,
    #[prost(bytes = "vec", tag = "3")]
    pub(super) public_key: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    pub(super) sig: Vec<u8>,
}

/// Everything that one peer may learn from another.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct Reconcile {
    #[prost(message, repeated, tag = "1")]
    pub(super) anns: Vec<SignedAnnouncement>,
}

/// One message of the stream.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct MessageWrapper {
    #[prost(oneof = "Wrapped", tags = "2, 3")]
    pub(super) msg: Option<Wrapped>,
}

/// Tag 1 is reserved.
#[derive(Clone, PartialEq, Eq, prost::Oneof)]
pub(super) enum Wrapped {
    #[prost(message, tag = "2")]
    SignedAnnouncement(SignedAnnouncement),
    #[prost(message, tag = "3")]
    Reconcile(Reconcile),
}

impl Wrapped {
    pub(super) fn into_bytes(self) -> Vec<u8> {
        MessageWrapper { msg: Some(self) }.encode_to_vec()
    }
}

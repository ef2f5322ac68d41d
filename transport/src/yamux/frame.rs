//! Twelve bytes in front of everything ([specification], "Framing"). Pure.
//!
//! [specification]: https://github.com/hashicorp/yamux/blob/master/spec.md

use super::ProtocolError;

/// The size of a header.
pub(crate) const HEADER: usize = 12;

const VERSION: u8 = 0;

/// What follows a header, or what it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `length` bytes of a stream follow.
    Data,
    /// The other end may send `length` bytes more of a stream.
    WindowUpdate,
    /// `length` comes back in an answer.
    Ping,
    /// No stream after this one; `length` says why.
    GoAway,
}

/// The stream is new.
pub(crate) const SYN: u16 = 1;
/// The new stream is accepted; on a ping: the answer.
pub(crate) const ACK: u16 = 2;
/// Nothing follows in this direction.
pub(crate) const FIN: u16 = 4;
/// The stream is gone, both ways.
pub(crate) const RST: u16 = 8;

/// Why the other end goes away.
pub(crate) const NORMAL: u32 = 0;
pub(crate) const PROTOCOL_ERROR: u32 = 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    pub(crate) flags: u16,
    pub(crate) id: u32,
    pub(crate) length: u32,
}

impl Header {
    pub(crate) fn data(id: u32, flags: u16, length: u32) -> Self {
        Self {
            kind: Kind::Data,
            flags,
            id,
            length,
        }
    }

    pub(crate) fn window_update(id: u32, flags: u16, credit: u32) -> Self {
        Self {
            kind: Kind::WindowUpdate,
            flags,
            id,
            length: credit,
        }
    }

    pub(crate) fn ping(flags: u16, value: u32) -> Self {
        Self {
            kind: Kind::Ping,
            flags,
            id: 0,
            length: value,
        }
    }

    pub(crate) fn go_away(reason: u32) -> Self {
        Self {
            kind: Kind::GoAway,
            flags: 0,
            id: 0,
            length: reason,
        }
    }

    pub(crate) fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }

    pub(crate) fn encode(&self) -> [u8; HEADER] {
        let kind = match self.kind {
            Kind::Data => 0,
            Kind::WindowUpdate => 1,
            Kind::Ping => 2,
            Kind::GoAway => 3,
        };
        let [f0, f1] = self.flags.to_be_bytes();
        let [i0, i1, i2, i3] = self.id.to_be_bytes();
        let [l0, l1, l2, l3] = self.length.to_be_bytes();
        [VERSION, kind, f0, f1, i0, i1, i2, i3, l0, l1, l2, l3]
    }

    /// Flags that nobody has defined mean nothing.
    pub(crate) fn decode(bytes: &[u8; HEADER]) -> Result<Self, ProtocolError> {
        let &[version, kind, f0, f1, i0, i1, i2, i3, l0, l1, l2, l3] = bytes;
        if version != VERSION {
            return Err(ProtocolError::Version(version));
        }
        let header = Self {
            kind: match kind {
                0 => Kind::Data,
                1 => Kind::WindowUpdate,
                2 => Kind::Ping,
                3 => Kind::GoAway,
                unknown => return Err(ProtocolError::Kind(unknown)),
            },
            flags: u16::from_be_bytes([f0, f1]),
            id: u32::from_be_bytes([i0, i1, i2, i3]),
            length: u32::from_be_bytes([l0, l1, l2, l3]),
        };
        // Streams have numbers from one on; zero is the connection itself.
        match header.kind {
            Kind::Data | Kind::WindowUpdate if header.id == 0 => Err(ProtocolError::NotAStream),
            _ => Ok(header),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_what_the_specification_says_and_comes_back_as_it_was() {
        let header = Header::data(0x0102_0304, SYN | FIN, 0x0a0b_0c0d);
        let bytes = header.encode();
        assert_eq!(hex::encode(bytes), "00000005010203040a0b0c0d");
        assert_eq!(Header::decode(&bytes), Ok(header));
        for header in [
            Header::window_update(7, ACK, 1 << 20),
            Header::ping(SYN, u32::MAX),
            Header::go_away(PROTOCOL_ERROR),
        ] {
            assert_eq!(Header::decode(&header.encode()), Ok(header));
        }
    }

    #[test]
    fn what_is_not_a_header_is_refused_by_name() {
        let mut bytes = Header::data(1, 0, 0).encode();
        bytes[0] = 1;
        assert_eq!(Header::decode(&bytes), Err(ProtocolError::Version(1)));
        bytes[0] = 0;
        bytes[1] = 4;
        assert_eq!(Header::decode(&bytes), Err(ProtocolError::Kind(4)));
        assert_eq!(
            Header::decode(&Header::data(0, 0, 1).encode()),
            Err(ProtocolError::NotAStream)
        );
        assert_eq!(
            Header::decode(&Header::window_update(0, SYN, 1).encode()),
            Err(ProtocolError::NotAStream)
        );
    }

    #[test]
    fn flags_that_nobody_has_defined_mean_nothing() {
        let header = Header::data(3, 0xfff0, 0);
        assert_eq!(Header::decode(&header.encode()), Ok(header));
        assert!(![SYN, ACK, FIN, RST].into_iter().any(|flag| header.has(flag)));
    }
}

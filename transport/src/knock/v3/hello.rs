//! Whether a flight is one ClientHello (RFC 8446, 4.1.2) that a TLS 1.3 server answers with its own flight, and with
//! nothing else.
//!
//! Only what decides that is looked at; all the rest rustls reads, and fails in silence. Where the form is concerned
//! this is stricter than TLS: one record, one message, each filled by what is in it.

use crate::knock::Refusal;

const RECORD_HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const TLS13: u16 = 0x0304;

const SUPPORTED_GROUPS: u16 = 10;
const SUPPORTED_VERSIONS: u16 = 43;
const KEY_SHARE: u16 = 51;

/// Checks a whole first flight against the groups that the server has, as TLS numbers them. The order that counts is
/// the client's: rustls takes the first group it has, and asks again when that one comes without a share.
///
/// # Errors
///
/// [`Refusal::Hello`], [`Refusal::TlsVersion`], [`Refusal::KeyShare`], in this order.
pub fn check(flight: &[u8], groups: &[u16]) -> Result<(), Refusal> {
    let hello = Hello::parse(flight).ok_or(Refusal::Hello)?;
    if !u16s(hello.versions).any(|version| version == TLS13) {
        return Err(Refusal::TlsVersion);
    }
    let first = u16s(hello.groups).find(|group| groups.contains(group));
    if first.is_none_or(|first| !hello.has_share(first)) {
        return Err(Refusal::KeyShare);
    }
    Ok(())
}

/// The three lists that matter, empty where the extension is missing.
#[derive(Default)]
struct Hello<'a> {
    versions: &'a [u8],
    groups: &'a [u8],
    shares: &'a [u8],
}

impl<'a> Hello<'a> {
    fn parse(flight: &'a [u8]) -> Option<Self> {
        let mut flight = Reader(flight);
        let (kind, version) = (flight.u8()?, flight.u16()?);
        let mut record = Reader(flight.list16()?);
        let (message, high) = (record.u8()?, record.u8()?);
        let mut body = Reader(record.list16()?);
        // The versions in front of records are history; rustls wants the first byte to be 3 and no more. A message
        // that would need the high byte of its length is longer than any flight here.
        let right = (kind, version >> 8, message, high) == (RECORD_HANDSHAKE, 3, CLIENT_HELLO, 0);
        if !right || !record.0.is_empty() || !flight.0.is_empty() {
            return None;
        }
        body.take(2 + 32)?; // version, nonce
        let (session, suites, compressions) = (body.list8()?, body.list16()?, body.list8()?);
        if session.len() > 32 || suites.is_empty() || suites.len() % 2 != 0 || compressions.is_empty() {
            return None;
        }
        let mut hello = Self::default();
        if body.0.is_empty() {
            return Some(hello); // TLS 1.2 may come without extensions.
        }
        let mut extensions = Reader(body.list16()?);
        while !extensions.0.is_empty() {
            let (kind, content) = (extensions.u16()?, extensions.list16()?);
            hello.extension(kind, Reader(content))?;
        }
        body.0.is_empty().then_some(hello)
    }

    /// Which of two of a kind rustls would look at is nothing to rely on: there has to be one.
    fn extension(&mut self, kind: u16, mut content: Reader<'a>) -> Option<()> {
        let (slot, list) = match kind {
            SUPPORTED_VERSIONS => (&mut self.versions, content.list8()?),
            SUPPORTED_GROUPS => (&mut self.groups, content.list16()?),
            KEY_SHARE => (&mut self.shares, content.list16()?),
            _ => return Some(()),
        };
        let even = kind == KEY_SHARE || list.len() % 2 == 0;
        if list.is_empty() || !even || !slot.is_empty() || !content.0.is_empty() {
            return None;
        }
        *slot = list;
        if kind == KEY_SHARE {
            let mut shares = Reader(list);
            while !shares.0.is_empty() {
                shares.share()?;
            }
        }
        Some(())
    }

    fn has_share(&self, group: u16) -> bool {
        let mut shares = Reader(self.shares);
        std::iter::from_fn(|| shares.share()).any(|share| share == group)
    }
}

/// What is left to read. Whatever is not there is `None`.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|byte| byte[0])
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    /// As many bytes as the one in front says.
    fn list8(&mut self) -> Option<&'a [u8]> {
        let n = self.u8()?;
        self.take(n.into())
    }

    /// As many bytes as the two in front say.
    fn list16(&mut self) -> Option<&'a [u8]> {
        let n = self.u16()?;
        self.take(n.into())
    }

    /// The group of the next key share.
    fn share(&mut self) -> Option<u16> {
        let group = self.u16()?;
        self.list16().map(|_| group)
    }
}

fn u16s(list: &[u8]) -> impl Iterator<Item = u16> {
    list.chunks_exact(2)
        .map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
}

#[cfg(test)]
#[path = "hello_tests.rs"]
pub(in crate::knock::v3) mod tests;

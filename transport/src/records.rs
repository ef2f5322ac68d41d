//! TLS 1.3 records after the handshake (RFC 8446, section 5): rustls' keys and ciphers, our buffers. Pure.
//!
//! A rustls connection keeps both directions in buffers of its own: some 4 KiB on an idle connection, reads of at most
//! 4 KiB, and two more copies of every byte. Its [`kernel`](rustls::kernel) interface is for those who keep the records
//! elsewhere. Keys, their updates, sealing and opening stay rustls'; ours are the five bytes of a record's header, the
//! sequence numbers, and what the few records mean that carry no data.

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::crypto::cipher::{
    InboundOpaqueMessage, MessageDecrypter, MessageEncrypter, OutboundChunks, OutboundPlainMessage, Tls13AeadAlgorithm,
};
use rustls::kernel::KernelConnection;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::{
    AlertDescription, ConnectionTrafficSecrets, ContentType, Error, InvalidMessage, PeerMisbehaved, ProtocolVersion,
};
use std::collections::VecDeque;
use std::ops::Range;

/// The most that one record carries (RFC 8446, section 5.1).
pub(crate) const MAX_PLAIN: usize = 1 << 14;

/// The most that one record takes, header included (section 5.2).
pub(crate) const MAX_SEALED: usize = HEADER + MAX_PLAIN + 256;

/// Type, version and length.
const HEADER: usize = 5;

/// Messages of the handshake protocol that follow the handshake are a few hundred bytes at most.
const MAX_HANDSHAKE: usize = MAX_PLAIN;

/// Key updates that the other end may send in a row without a byte of data between them. rustls' own limit.
const MAX_UPDATES: u8 = 32;

/// Both directions of one connection.
pub(crate) struct Records {
    sealing: Sealing,
    opening: Opening,
    keys: Keys,
    algorithm: &'static dyn Tls13AeadAlgorithm,
}

struct Sealing {
    cipher: Box<dyn MessageEncrypter>,
    sequence: u64,
    /// Records that one key may seal, by the suite's analysis (RFC 8446, section 5.5).
    limit: u64,
    /// The other end wants our key changed before we seal more data.
    update_requested: bool,
}

struct Opening {
    cipher: Box<dyn MessageDecrypter>,
    sequence: u64,
    /// The part of a handshake message that has come.
    handshake: Vec<u8>,
    /// Key updates since the last byte of data.
    updates: u8,
}

enum Keys {
    Client(KernelConnection<ClientConnectionData>),
    Server(KernelConnection<ServerConnectionData>),
}

/// One record, opened in place.
pub(crate) struct Record {
    /// How many bytes it took, header included.
    pub(crate) size: usize,
    pub(crate) content: Content,
}

/// What a record means to the stream.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// Data, and where in the record it now lies in clear.
    Data(Range<usize>),
    /// The other end's `close_notify`: nothing follows.
    End,
    /// Nothing: a key update, a session ticket.
    Control,
}

/// A handshake that is through, as far as its records go on here.
pub(crate) trait IntoRecords {
    /// # Errors
    ///
    /// rustls', when the handshake is not through or secrets are not handed out by its configuration.
    fn into_records(self) -> Result<Records, Error>;
}

impl IntoRecords for UnbufferedClientConnection {
    fn into_records(self) -> Result<Records, Error> {
        let (secrets, keys) = self.dangerous_into_kernel_connection()?;
        Records::new(secrets, Keys::Client(keys))
    }
}

impl IntoRecords for UnbufferedServerConnection {
    fn into_records(self) -> Result<Records, Error> {
        let (secrets, keys) = self.dangerous_into_kernel_connection()?;
        Records::new(secrets, Keys::Server(keys))
    }
}

impl Records {
    fn new(secrets: rustls::ExtractedSecrets, keys: Keys) -> Result<Self, Error> {
        let suite = match &keys {
            Keys::Client(keys) => keys.negotiated_cipher_suite(),
            Keys::Server(keys) => keys.negotiated_cipher_suite(),
        };
        let suite = suite.tls13().ok_or(Error::HandshakeNotComplete)?;
        let algorithm = suite.aead_alg;
        Ok(Self {
            sealing: Sealing {
                cipher: encrypter(algorithm, secrets.tx.1)?,
                sequence: secrets.tx.0,
                limit: suite.common.confidentiality_limit,
                update_requested: false,
            },
            opening: Opening {
                cipher: decrypter(algorithm, secrets.rx.1)?,
                sequence: secrets.rx.0,
                handshake: Vec::new(),
                updates: 0,
            },
            keys,
            algorithm,
        })
    }

    /// Seals `chunks`, together no more than [`MAX_PLAIN`], as one record of data at the end of `out`. In front of it
    /// goes a key update when one is due.
    pub(crate) fn seal(&mut self, chunks: &[&[u8]], out: &mut VecDeque<Vec<u8>>) -> Result<(), Error> {
        // One before the limit: the update itself is sealed with the old key.
        if self.sealing.update_requested || self.sealing.sequence + 1 >= self.sealing.limit {
            self.update(out)?;
        }
        let sealed = self
            .sealing
            .seal(ContentType::ApplicationData, OutboundChunks::new(chunks))?;
        out.push_back(sealed);
        Ok(())
    }

    /// Seals an alert, fatal but for `close_notify`.
    pub(crate) fn seal_alert(&mut self, alert: AlertDescription, out: &mut VecDeque<Vec<u8>>) -> Result<(), Error> {
        const WARNING: u8 = 1;
        const FATAL: u8 = 2;
        let level = if alert == AlertDescription::CloseNotify {
            WARNING
        } else {
            FATAL
        };
        let sealed = self
            .sealing
            .seal(ContentType::Alert, OutboundChunks::Single(&[level, alert.into()]))?;
        out.push_back(sealed);
        Ok(())
    }

    /// Changes our sealing key and says so (RFC 8446, section 4.6.3).
    fn update(&mut self, out: &mut VecDeque<Vec<u8>>) -> Result<(), Error> {
        const NOT_REQUESTED: [u8; 5] = [KEY_UPDATE, 0, 0, 1, 0];
        let sealed = self
            .sealing
            .seal(ContentType::Handshake, OutboundChunks::Single(&NOT_REQUESTED))?;
        out.push_back(sealed);
        let (sequence, secrets) = match &mut self.keys {
            Keys::Client(keys) => keys.update_tx_secret()?,
            Keys::Server(keys) => keys.update_tx_secret()?,
        };
        self.sealing.cipher = encrypter(self.algorithm, secrets)?;
        self.sealing.sequence = sequence;
        self.sealing.update_requested = false;
        Ok(())
    }

    /// Changes our opening key, as the other end has changed its own.
    fn follow(&mut self) -> Result<(), Error> {
        let (sequence, secrets) = match &mut self.keys {
            Keys::Client(keys) => keys.update_rx_secret()?,
            Keys::Server(keys) => keys.update_rx_secret()?,
        };
        self.opening.cipher = decrypter(self.algorithm, secrets)?;
        self.opening.sequence = sequence;
        Ok(())
    }

    /// Opens the record at the start of `bytes`, in place. `None` while part of it is missing.
    ///
    /// # Errors
    ///
    /// What the other end did wrong. Nothing can be opened after that.
    pub(crate) fn open(&mut self, bytes: &mut [u8]) -> Result<Option<Record>, Error> {
        let Some((header, rest)) = bytes.split_first_chunk_mut::<HEADER>() else {
            return Ok(None);
        };
        // Everything is sealed now, and what is sealed looks like data from outside.
        if header[0] != u8::from(ContentType::ApplicationData) || header[1] != 3 {
            return Err(InvalidMessage::InvalidContentType.into());
        }
        let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
        if HEADER + length > MAX_SEALED {
            return Err(Error::PeerSentOversizedRecord);
        }
        let Some(sealed) = rest.get_mut(..length) else {
            return Ok(None);
        };
        let record = InboundOpaqueMessage::new(ContentType::ApplicationData, ProtocolVersion::TLSv1_2, sealed);
        let plain = self.opening.cipher.decrypt(record, self.opening.sequence)?;
        self.opening.sequence += 1;

        let content = match plain.typ {
            ContentType::ApplicationData => {
                self.opening.between_messages()?;
                // An empty record brings nothing that would make up for the work of a key update.
                if !plain.payload.is_empty() {
                    self.opening.updates = 0;
                }
                // It has been opened where it lay, and the padding and the tag behind it cut off.
                Content::Data(HEADER..HEADER + plain.payload.len())
            }
            // Only data may be empty (section 5.4).
            ContentType::Alert | ContentType::Handshake if plain.payload.is_empty() => {
                return Err(InvalidMessage::InvalidEmptyPayload.into());
            }
            ContentType::Alert => {
                let alert = <[u8; 2]>::try_from(plain.payload).map_err(|_| InvalidMessage::MissingData("alert"))?;
                self.opening.between_messages()?;
                match AlertDescription::from(alert[1]) {
                    AlertDescription::CloseNotify => Content::End,
                    // Says nothing by itself; a close follows (section 6.1).
                    AlertDescription::UserCanceled => Content::Control,
                    alert => return Err(Error::AlertReceived(alert)),
                }
            }
            ContentType::Handshake => {
                self.opening.handshake.extend_from_slice(plain.payload);
                self.handshake()?;
                Content::Control
            }
            _ => return Err(InvalidMessage::InvalidContentType.into()),
        };
        let size = HEADER + length;
        Ok(Some(Record { size, content }))
    }

    /// Obeys the handshake messages that are complete.
    fn handshake(&mut self) -> Result<(), Error> {
        while let Some((&[kind, a, b, c], rest)) = self.opening.handshake.split_first_chunk() {
            let length = u32::from_be_bytes([0, a, b, c]) as usize;
            if length > MAX_HANDSHAKE {
                return Err(InvalidMessage::HandshakePayloadTooLarge.into());
            }
            if rest.len() < length {
                break;
            }
            match (kind, &self.keys) {
                (KEY_UPDATE, _) => {
                    if length != 1 {
                        return Err(InvalidMessage::InvalidKeyUpdate.into());
                    }
                    // Nothing may follow it in its record: that would have been sealed with the wrong key.
                    let &[request] = rest else {
                        return Err(PeerMisbehaved::KeyEpochWithPendingFragment.into());
                    };
                    self.opening.updates += 1;
                    if self.opening.updates > MAX_UPDATES {
                        return Err(PeerMisbehaved::TooManyKeyUpdateRequests.into());
                    }
                    match request {
                        0 => {}
                        1 => self.sealing.update_requested = true,
                        _ => return Err(InvalidMessage::InvalidKeyUpdate.into()),
                    }
                    self.follow()?;
                }
                // For a session that we will not resume. Go sends one.
                (NEW_SESSION_TICKET, Keys::Client(_)) => {}
                (kind, _) => {
                    return Err(Error::InappropriateHandshakeMessage {
                        expect_types: vec![rustls::HandshakeType::KeyUpdate],
                        got_type: kind.into(),
                    });
                }
            }
            self.opening.handshake.drain(..4 + length);
        }
        if self.opening.handshake.is_empty() {
            self.opening.handshake = Vec::new();
        }
        Ok(())
    }
}

const NEW_SESSION_TICKET: u8 = 4;
const KEY_UPDATE: u8 = 24;

impl Sealing {
    fn seal(&mut self, typ: ContentType, payload: OutboundChunks<'_>) -> Result<Vec<u8>, Error> {
        let plain = OutboundPlainMessage {
            typ,
            version: ProtocolVersion::TLSv1_3,
            payload,
        };
        let sealed = self.cipher.encrypt(plain, self.sequence)?;
        self.sequence += 1;
        Ok(sealed.encode())
    }
}

impl Opening {
    /// A handshake message in pieces must not have anything between them (RFC 8446, section 5.1).
    fn between_messages(&self) -> Result<(), Error> {
        if self.handshake.is_empty() {
            return Ok(());
        }
        Err(PeerMisbehaved::MessageInterleavedWithHandshakeMessage.into())
    }
}

fn encrypter(
    algorithm: &'static dyn Tls13AeadAlgorithm,
    secrets: ConnectionTrafficSecrets,
) -> Result<Box<dyn MessageEncrypter>, Error> {
    let (key, iv) = key_and_iv(secrets)?;
    Ok(algorithm.encrypter(key, iv))
}

fn decrypter(
    algorithm: &'static dyn Tls13AeadAlgorithm,
    secrets: ConnectionTrafficSecrets,
) -> Result<Box<dyn MessageDecrypter>, Error> {
    let (key, iv) = key_and_iv(secrets)?;
    Ok(algorithm.decrypter(key, iv))
}

fn key_and_iv(
    secrets: ConnectionTrafficSecrets,
) -> Result<(rustls::crypto::cipher::AeadKey, rustls::crypto::cipher::Iv), Error> {
    match secrets {
        ConnectionTrafficSecrets::Aes128Gcm { key, iv }
        | ConnectionTrafficSecrets::Aes256Gcm { key, iv }
        | ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => Ok((key, iv)),
        _ => Err(Error::General("a cipher suite that is not ours".into())),
    }
}

/// The alert that answers `error`. None answers an alert: the other end has closed the connection
/// with it (section 6.2).
pub(crate) fn alert_for(error: &Error) -> Option<AlertDescription> {
    Some(match error {
        Error::AlertReceived(_) => return None,
        Error::DecryptError => AlertDescription::BadRecordMac,
        Error::PeerSentOversizedRecord => AlertDescription::RecordOverflow,
        Error::InvalidMessage(InvalidMessage::InvalidContentType | InvalidMessage::InvalidEmptyPayload)
        | Error::PeerMisbehaved(_) => AlertDescription::UnexpectedMessage,
        Error::InvalidMessage(_) => AlertDescription::DecodeError,
        _ => AlertDescription::UnexpectedMessage,
    })
}

#[cfg(any(test, feature = "internals"))]
#[cfg_attr(
    not(feature = "internals"),
    allow(
        unreachable_pub,
        dead_code,
        reason = "reachable through `internals` alone, and the fuzzer uses more of it than the tests"
    )
)]
pub(crate) mod line;
#[cfg(test)]
mod tests;

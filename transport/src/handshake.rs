//! The TLS handshake over a plain byte stream.
//!
//! Written out here, and not taken from an adapter, for what it does *not* do: when the other end is refused no alert
//! is sent. To it, and to whoever listens, all refusals look the same.

use crate::config::KeyExchange;
use crate::error::Error;
use crate::metrics::Metrics;
use crate::records::{IntoRecords, Records};
use crate::unanswered::First;
use futures::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, UnbufferedStatus};
use rustls::{CommonState, InvalidMessage};

/// A handshake in either role.
pub(crate) trait Handshake: IntoRecords {
    /// rustls' mark of the role.
    type Data;

    fn process<'c, 'i>(&'c mut self, received: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;

    fn state(&self) -> &CommonState;
}

impl Handshake for UnbufferedClientConnection {
    type Data = ClientConnectionData;

    fn process<'c, 'i>(&'c mut self, received: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(received)
    }

    fn state(&self) -> &CommonState {
        self
    }
}

impl Handshake for UnbufferedServerConnection {
    type Data = ServerConnectionData;

    fn process<'c, 'i>(&'c mut self, received: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(received)
    }

    fn state(&self) -> &CommonState {
        self
    }
}

/// What a handshake leaves behind.
pub(crate) struct Done {
    pub(crate) records: Records,
    /// What the other end sent behind its last flight, still sealed.
    pub(crate) received: Vec<u8>,
    pub(crate) key_exchange: Option<KeyExchange>,
    pub(crate) alpn: Option<Vec<u8>>,
}

/// The bytes a dialer opens with.
pub(crate) fn first_flight(tls: &mut UnbufferedClientConnection) -> Result<Vec<u8>, Error> {
    let mut flight = Vec::new();
    step(tls, &mut Received::default(), &mut flight)?;
    Ok(flight)
}

/// Runs the handshake to its end, with `flight` in front of what rustls sends first and in the same write, and with
/// `heard` as the first that the other end has sent. What it sends then is noted in `first`.
///
/// Not cancel safe: a handshake that is dropped cannot be gone on with, so the socket is dropped with it.
pub(crate) async fn run<S, H>(
    io: &mut S,
    mut tls: H,
    mut flight: Vec<u8>,
    heard: &[u8],
    first: &mut First,
    metrics: &Metrics,
) -> Result<Done, Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
    H: Handshake,
{
    let mut received = Received::starting_with(heard);
    loop {
        step(&mut tls, &mut received, &mut flight)?;
        if !flight.is_empty() {
            metrics.written(flight.len());
            io.write_all(&flight).await.inspect_err(|error| first.broke(error))?;
            io.flush().await.inspect_err(|error| first.broke(error))?;
            flight.clear();
        }
        if !tls.state().is_handshaking() {
            break;
        }
        let space = received.space()?;
        let n = io.read(&mut *space).await.inspect_err(|error| first.broke(error))?;
        if n == 0 {
            return Err(Error::Closed);
        }
        first.take(&space[..n]);
        metrics.read(n);
        received.end += n;
    }
    let group = tls.state().negotiated_key_exchange_group();
    Ok(Done {
        received: received.bytes[received.start..received.end].to_vec(),
        key_exchange: group.and_then(|group| KeyExchange::of(group.name())),
        alpn: tls.state().alpn_protocol().map(<[u8]>::to_vec),
        records: tls.into_records()?,
    })
}

/// Goes as far as what was received leads, and puts what there is to send at the end of `flight`.
pub(crate) fn step<H: Handshake>(tls: &mut H, received: &mut Received, flight: &mut Vec<u8>) -> Result<(), Error> {
    loop {
        let status = tls.process(received.shown());
        let taken = status.discard;
        let blocked = match status.state? {
            ConnectionState::EncodeTlsData(mut data) => {
                let sent = flight.len();
                if let Err(EncodeError::InsufficientSize(room)) = data.encode(&mut []) {
                    flight.resize(sent + room.required_size, 0);
                }
                data.encode(&mut flight[sent..]).map_err(|_| Error::Closed)?;
                false
            }
            // It is in `flight`, and nothing is asked of rustls before `flight` is out.
            ConnectionState::TransmitTlsData(data) => {
                data.done();
                false
            }
            ConnectionState::BlockedHandshake => true,
            ConnectionState::WriteTraffic(_) => {
                received.start += taken;
                return Ok(());
            }
            // Before it is through there is no data, and an end is one too early.
            _ => return Err(Error::Closed),
        };
        received.start += taken;
        if blocked && !received.show_record() {
            return Ok(());
        }
    }
}

/// Bytes of the other end's, shown to rustls a record at a time: it must not open what follows the last record of the
/// handshake, which belongs to [`Records`].
#[derive(Default)]
pub(crate) struct Received {
    bytes: Vec<u8>,
    /// Where what rustls has not taken starts. A message that spans records is taken when it is complete.
    start: usize,
    /// How far rustls has been shown it.
    shown: usize,
    pub(crate) end: usize,
}

impl Received {
    /// A server flight with X25519MLKEM768 is about 1.6 kB.
    const ROOM: usize = 4096;

    /// The most that a handshake may leave lying: two full records. Ours and Go's need a tenth of one.
    const MAX: usize = 2 * crate::records::MAX_SEALED;

    fn starting_with(heard: &[u8]) -> Self {
        Self {
            bytes: heard.to_vec(),
            end: heard.len(),
            ..Self::default()
        }
    }

    fn shown(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.shown]
    }

    /// Shows one more record, if it is there.
    fn show_record(&mut self) -> bool {
        const HEADER: usize = 5;
        let rest = &self.bytes[self.shown..self.end];
        let Some(header) = rest.first_chunk::<HEADER>() else {
            return false;
        };
        let length = HEADER + usize::from(u16::from_be_bytes([header[3], header[4]]));
        // Of TLS 1.3, and of an alert before it was agreed on.
        let is_tls = matches!(header, [20..=23, 3, ..]);
        if !is_tls || length > crate::records::MAX_SEALED {
            // Not to be waited for. rustls has the words for it.
            self.shown = self.end;
        } else if rest.len() >= length {
            self.shown += length;
        } else {
            return false;
        }
        true
    }

    /// Where the next bytes go, never empty.
    pub(crate) fn space(&mut self) -> Result<&mut [u8], Error> {
        self.bytes.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.shown -= self.start;
        self.start = 0;
        if self.bytes.len() - self.end < Self::ROOM / 2 {
            if self.end >= Self::MAX {
                return Err(Error::Tls(InvalidMessage::HandshakePayloadTooLarge.into()));
            }
            self.bytes.resize(self.end + Self::ROOM, 0);
        }
        Ok(&mut self.bytes[self.end..])
    }
}

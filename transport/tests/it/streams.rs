//! The byte stream and what is below it: halves in two tasks, an inner stream that buffers, a handshake padded to the
//! brim. Each was a defect once.

use crate::common::*;
use futures::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ready};
use libp2p_core::Transport as _;
use libp2p_core::transport::MemoryTransport;
use rustls::crypto::cipher::{
    AeadKey, Iv, MessageDecrypter, MessageEncrypter, OutboundChunks, OutboundOpaqueMessage, OutboundPlainMessage,
    Tls13AeadAlgorithm, UnsupportedOperationError,
};
use std::io::{self, Write as _};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

/// The reader's task pushes what the writer's task has written, and must not keep the socket's wake-up to itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_half_that_reads_does_not_stall_the_half_that_writes() {
    const TOTAL: usize = 32 << 20;
    let mut listener = victim(config(2)).await;
    let dial = authenticated(config(1))
        .dial(listener.address.clone(), dialer())
        .unwrap();
    let (_, ours) = soon("the dial", dial).await.unwrap();
    let (_, mut theirs) = listener.upgraded().await.unwrap();
    let (mut reading, mut writing) = ours.split();
    let writer = tokio::spawn(async move {
        let chunk = vec![0; 1 << 16];
        for _ in 0..TOTAL / chunk.len() {
            writing.write_all(&chunk).await.unwrap();
        }
        writing.flush().await.unwrap();
    });
    // Until the writer has to wait: nobody reads over there.
    tokio::time::sleep(Duration::from_millis(300)).await;
    tokio::spawn(async move { while let Ok(1..) = reading.read(&mut [0; 16]).await {} });
    theirs.write_all(b"hello").await.unwrap();
    theirs.flush().await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;

    let mut room = vec![0; 1 << 16];
    let mut received = 0;
    while received < TOTAL {
        received += soon("more of it", theirs.read(&mut room)).await.unwrap();
    }
    soon("the writer", writer).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_read_where_it_was_opened_is_what_was_written_and_ends_where_it_did() {
    let mut listener = victim(config(2)).await;
    let dial = authenticated(config(1))
        .dial(listener.address.clone(), dialer())
        .unwrap();
    let (_, mut ours) = soon("the dial", dial).await.unwrap();
    let (_, mut theirs) = listener.upgraded().await.unwrap();
    let written: Vec<u8> = (0..1_000_003_u32).map(|n| (n ^ (n >> 8)) as u8).collect();
    let sent = written.clone();
    let writer = tokio::spawn(async move {
        ours.write_all(&sent).await.unwrap();
        ours.close().await.unwrap();
    });
    let mut read = Vec::new();
    for turn in 0_usize.. {
        let bytes = soon("more of it", theirs.fill_buf()).await.unwrap();
        let taken = match bytes.len() {
            0 => break,
            // Now all, now some, now by the other way.
            count if turn % 3 == 0 => count,
            count if turn % 3 == 1 => count.div_ceil(3),
            _ => {
                let mut room = [0; 100];
                let count = soon("the same by a copy", theirs.read(&mut room)).await.unwrap();
                read.extend_from_slice(&room[..count]);
                continue;
            }
        };
        read.extend_from_slice(&bytes[..taken]);
        theirs.consume_unpin(taken);
    }
    assert!(read == written);
    soon("the writer", writer).await.unwrap();
}

/// Buffers what is written, and takes two polls to flush.
struct Lazy<S> {
    inner: S,
    buffer: Vec<u8>,
    asked: bool,
}

impl<S: AsyncRead + Unpin> AsyncRead for Lazy<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Lazy<S> {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.buffer.extend_from_slice(buf);
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.buffer.is_empty() && !std::mem::replace(&mut this.asked, true) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        while !this.buffer.is_empty() {
            let n = ready!(Pin::new(&mut this.inner).poll_write(cx, &this.buffer))?;
            this.buffer.drain(..n);
        }
        this.asked = false;
        Pin::new(&mut this.inner).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.as_mut().poll_flush(cx))?;
        Pin::new(&mut self.inner).poll_close(cx)
    }
}

#[tokio::test]
async fn an_inner_stream_that_buffers_is_flushed_to_the_end() {
    let make = || {
        MemoryTransport::default().map(|inner, _| Lazy {
            inner,
            buffer: Vec::new(),
            asked: false,
        })
    };
    crate::inner_transports::echo_over(make, "/memory/0/tls".parse().unwrap()).await;
}

/// Pads every handshake record to as much as a record may hold.
struct Padding(&'static dyn Tls13AeadAlgorithm);

struct Padded(Box<dyn MessageEncrypter>);

impl MessageEncrypter for Padded {
    fn encrypt(&mut self, message: OutboundPlainMessage<'_>, seq: u64) -> Result<OutboundOpaqueMessage, rustls::Error> {
        if message.typ != rustls::ContentType::Handshake {
            return self.0.encrypt(message, seq);
        }
        // RFC 8446, section 5.4: the true type, then zeros. The type that rustls adds behind them is one zero more.
        let mut inner = message.payload.to_vec();
        inner.push(22);
        inner.resize(16_384, 0);
        let padded = OutboundPlainMessage {
            typ: rustls::ContentType::Unknown(0),
            version: message.version,
            payload: OutboundChunks::Single(&inner),
        };
        self.0.encrypt(padded, seq)
    }

    fn encrypted_payload_len(&self, length: usize) -> usize {
        self.0.encrypted_payload_len(length)
    }
}

impl Tls13AeadAlgorithm for Padding {
    fn encrypter(&self, key: AeadKey, iv: Iv) -> Box<dyn MessageEncrypter> {
        Box::new(Padded(self.0.encrypter(key, iv)))
    }

    fn decrypter(&self, key: AeadKey, iv: Iv) -> Box<dyn MessageDecrypter> {
        self.0.decrypter(key, iv)
    }

    fn key_len(&self) -> usize {
        self.0.key_len()
    }

    fn extract_keys(
        &self,
        key: AeadKey,
        iv: Iv,
    ) -> Result<rustls::ConnectionTrafficSecrets, UnsupportedOperationError> {
        self.0.extract_keys(key, iv)
    }
}

/// Bytes behind a `close_notify` are taken by nobody. A handshake that goes on handing them in never ends, and no timeout
/// ends it, as it never waits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_padded_last_flight_with_a_close_and_junk_behind_it_holds_no_thread() {
    let suite = rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
    let plain = suite.tls13().unwrap();
    let suite = Box::leak(Box::new(rustls::Tls13CipherSuite {
        common: rustls::crypto::CipherSuiteCommon {
            suite: plain.common.suite,
            hash_provider: plain.common.hash_provider,
            confidentiality_limit: plain.common.confidentiality_limit,
        },
        hkdf_provider: plain.hkdf_provider,
        aead_alg: Box::leak(Box::new(Padding(plain.aead_alg))),
        quic: None,
    }));
    let provider = rustls::crypto::CryptoProvider {
        cipher_suites: vec![rustls::SupportedCipherSuite::Tls13(suite)],
        ..rustls::crypto::aws_lc_rs::default_provider()
    };
    for junk in [0, 2_000, 4_000, 100_000] {
        let mut listener = victim(old(2)).await;
        let address = listener.socket.unwrap();
        let config = gullible_config_of(provider.clone(), &rustls::version::TLS13, Some((1, 1)));
        let attack = tokio::task::spawn_blocking(move || {
            let mut client = rustls::ClientConnection::new(Arc::new(config), "0.0.0.0".try_into().unwrap()).unwrap();
            let mut socket = std::net::TcpStream::connect(address).unwrap();
            let mut flight = knock(1, 2).to_vec();
            client.write_tls(&mut flight).unwrap();
            socket.write_all(&flight).unwrap();
            while client.is_handshaking() {
                client.read_tls(&mut socket).unwrap();
                client.process_new_packets().unwrap();
            }
            client.send_close_notify();
            let mut last = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut last).unwrap();
            }
            last.resize(last.len() + junk, 0);
            // The other end may have gone before all of it is out.
            let _ = socket.write_all(&last);
        });
        // However it ends, it ends.
        let _ = listener.upgraded().await;
        attack.await.unwrap();
    }
}

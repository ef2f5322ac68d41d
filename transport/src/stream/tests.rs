//! A stream that is polled by hand, over a wire whose every byte and waker is seen.

mod halves;

use super::*;
use crate::identity::{Identity, Key, Local};
use crate::records::{Content, line};
use crate::tls::Tls;
use crate::{KeyExchange as Group, certificate};
use futures::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _};
use futures::task::{ArcWake, waker};
use libp2p_identity::Keypair;
use rustls::{Error as TlsError, NoKeyLog};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// What lies between a stream and the other end.
#[derive(Default)]
struct Wire {
    incoming: Vec<u8>,
    reader: Option<Waker>,
    sent: Vec<u8>,
    full: bool,
    /// It takes bytes, and is not done with them.
    slow: bool,
    writer: Option<Waker>,
    closed: bool,
}

#[derive(Clone, Default)]
struct Below(Arc<Mutex<Wire>>);

impl Below {
    fn wire<R>(&self, act: impl FnOnce(&mut Wire) -> R) -> R {
        act(&mut self.0.lock().expect("no panic"))
    }

    fn set_full(&self, full: bool) {
        let writer = self.wire(|wire| {
            wire.full = full;
            if full { None } else { wire.writer.take() }
        });
        writer.into_iter().for_each(Waker::wake);
    }

    fn set_slow(&self, slow: bool) {
        let writer = self.wire(|wire| {
            wire.slow = slow;
            if slow { None } else { wire.writer.take() }
        });
        writer.into_iter().for_each(Waker::wake);
    }

    fn receive(&self, bytes: &[u8]) {
        let reader = self.wire(|wire| {
            wire.incoming.extend_from_slice(bytes);
            wire.reader.take()
        });
        reader.into_iter().for_each(Waker::wake);
    }

    fn sent(&self) -> Vec<u8> {
        self.wire(|wire| std::mem::take(&mut wire.sent))
    }
}

impl AsyncRead for Below {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        self.wire(|wire| {
            if wire.incoming.is_empty() {
                wire.reader = Some(cx.waker().clone());
                return Poll::Pending;
            }
            let n = buf.len().min(wire.incoming.len());
            buf[..n].copy_from_slice(&wire.incoming[..n]);
            wire.incoming.drain(..n);
            Poll::Ready(Ok(n))
        })
    }
}

impl AsyncWrite for Below {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.wire(|wire| {
            assert!(!wire.closed, "a write after the close");
            if wire.full {
                wire.writer = Some(cx.waker().clone());
                return Poll::Pending;
            }
            wire.sent.extend_from_slice(bytes);
            Poll::Ready(Ok(bytes.len()))
        })
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.wire(|wire| {
            if wire.slow {
                wire.writer = Some(cx.waker().clone());
                return Poll::Pending;
            }
            Poll::Ready(Ok(()))
        })
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = self.as_mut().poll_flush(cx);
        self.wire(|wire| wire.closed |= flushed.is_ready());
        flushed
    }
}

fn tls(seed: u8) -> (Tls, Key) {
    let keypair = Keypair::ed25519_from_bytes([seed; 32]).expect("32 bytes");
    let identity = Arc::new(Local::new(&keypair).expect("Ed25519"));
    let key = Key::check(&identity.public_key()).expect("canonical");
    let certificate = certificate::make(&*identity).expect("signs");
    let tls = Tls::new(identity, certificate, &[Group::X25519], Arc::new(NoKeyLog)).expect("configures");
    (tls, key)
}

/// A stream of the dialer's, what lies below it, and the records of the listener.
fn dialled() -> (TlsStream<Below>, Below, Records) {
    let ((dialer, dialer_key), (listener, listener_key)) = (tls(1), tls(2));
    let [ours, theirs] = line::connect(&dialer, dialer_key, &listener, listener_key);
    let below = Below::default();
    let about = About {
        peer: listener_key.peer_id(),
        role: Role::Dialer,
        mode: Mode::Yamux,
        key_exchange: None,
        close_timeout: Duration::from_millis(100),
        metrics: Metrics::none(),
    };
    (TlsStream::new(below.clone(), ours, Vec::new(), about), below, theirs)
}

fn sealed(records: &mut Records, data: &[u8]) -> Vec<u8> {
    let mut out = VecDeque::new();
    records.seal(&[data], &mut out).expect("seals");
    out.into_iter().flatten().collect()
}

fn sealed_alert(records: &mut Records, alert: AlertDescription) -> Vec<u8> {
    let mut out = VecDeque::new();
    records.seal_alert(alert, &mut out).expect("seals");
    out.into_iter().flatten().collect()
}

fn spoilt(mut record: Vec<u8>) -> Vec<u8> {
    *record.last_mut().expect("not empty") ^= 1;
    record
}

/// What the other end makes of bytes: the data, and how it ends.
#[derive(Debug, PartialEq)]
enum Heard {
    Nothing,
    End,
    Fault(TlsError),
}

fn heard(records: &mut Records, mut bytes: Vec<u8>) -> (Vec<u8>, Heard) {
    let (mut data, mut start) = (Vec::new(), 0);
    loop {
        match records.open(&mut bytes[start..]) {
            Ok(None) => {
                assert_eq!(start, bytes.len(), "whole records");
                return (data, Heard::Nothing);
            }
            Ok(Some(record)) => {
                match record.content {
                    Content::Data(range) => data.extend_from_slice(&bytes[start + range.start..start + range.end]),
                    Content::End => {
                        assert_eq!(start + record.size, bytes.len(), "nothing behind the end");
                        return (data, Heard::End);
                    }
                    Content::Control => {}
                }
                start += record.size;
            }
            Err(fault) => return (data, Heard::Fault(fault)),
        }
    }
}

/// A waker that says whether it was woken.
struct Flag(AtomicBool);

impl Flag {
    fn new() -> Arc<Self> {
        Arc::new(Self(AtomicBool::new(false)))
    }

    fn take(&self) -> bool {
        self.0.swap(false, Ordering::SeqCst)
    }
}

impl ArcWake for Flag {
    fn wake_by_ref(flag: &Arc<Self>) {
        flag.0.store(true, Ordering::SeqCst);
    }
}

fn now<T>(work: impl Future<Output = T>) -> T {
    work.now_or_never().expect("without waiting")
}

fn fault_of(error: &io::Error) -> Option<&TlsError> {
    error.get_ref().and_then(|error| error.downcast_ref())
}

#[test]
fn a_record_that_does_not_open_fails_every_read_and_the_other_end_is_told_once() {
    let (mut stream, below, mut other) = dialled();
    now(stream.write_all(b"before")).expect("writes");
    below.receive(&sealed(&mut other, b"good"));
    below.receive(&spoilt(sealed(&mut other, b"bad")));
    let mut room = [0; 16];
    assert_eq!(now(stream.read(&mut room)).expect("what came before"), 4);
    for _ in 0..5 {
        let error = now(stream.read(&mut room)).expect_err("it does not open");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert_eq!(fault_of(&error), Some(&TlsError::DecryptError));
        let error = now(stream.fill_buf()).expect_err("it does not open");
        assert_eq!(fault_of(&error), Some(&TlsError::DecryptError));
    }
    let fault = Heard::Fault(TlsError::AlertReceived(AlertDescription::BadRecordMac));
    assert_eq!(heard(&mut other, below.sent()), (b"before".to_vec(), fault));
    for _ in 0..2 {
        let error = now(stream.write(b"behind")).expect_err("after a fault");
        assert_eq!(fault_of(&error), Some(&TlsError::DecryptError));
        now(stream.flush()).expect_err("after a fault");
    }
    now(stream.close()).expect("closes");
    drop(stream);
    assert_eq!(below.sent(), b"", "no second alert, and nothing behind it");
    assert!(below.wire(|wire| wire.closed));
}

#[test]
fn a_fault_is_told_behind_what_the_socket_had_not_taken() {
    for close in [true, false] {
        let (mut stream, below, mut other) = dialled();
        below.set_full(true);
        now(stream.write_all(b"before")).expect("writes");
        assert!(stream.flush().now_or_never().is_none());
        below.receive(&spoilt(sealed(&mut other, b"bad")));
        now(stream.read(&mut [0])).expect_err("it does not open");
        below.set_full(false);
        if close {
            now(stream.close()).expect("closes");
        }
        drop(stream);
        let fault = Heard::Fault(TlsError::AlertReceived(AlertDescription::BadRecordMac));
        assert_eq!(heard(&mut other, below.sent()), (b"before".to_vec(), fault));
    }
}

#[test]
fn an_alert_is_not_answered_with_an_alert() {
    let (mut stream, below, mut other) = dialled();
    below.receive(&sealed_alert(&mut other, AlertDescription::InternalError));
    for _ in 0..2 {
        let error = now(stream.read(&mut [0])).expect_err("an alert");
        let alert = TlsError::AlertReceived(AlertDescription::InternalError);
        assert_eq!(fault_of(&error), Some(&alert));
    }
    now(stream.close()).expect("closes");
    assert_eq!(below.sent(), b"");
}

#[test]
fn the_other_ends_close_is_answered_by_a_stream_that_is_dropped() {
    let (mut stream, below, mut other) = dialled();
    below.receive(&sealed_alert(&mut other, AlertDescription::CloseNotify));
    assert_eq!(now(stream.read(&mut [0])).expect("a clean end"), 0);
    assert_eq!(
        below.sent(),
        b"",
        "there may be more to say: it has closed its own direction"
    );
    now(stream.write_all(b"the answer")).expect("writes");
    drop(stream);
    assert_eq!(heard(&mut other, below.sent()), (b"the answer".to_vec(), Heard::End));
}

#[test]
fn a_stream_that_is_dropped_before_its_end_looks_cut() {
    let (mut stream, below, mut other) = dialled();
    below.receive(&sealed(&mut other, b"more to come"));
    assert_eq!(now(stream.read(&mut [0; 64])).expect("data"), 12);
    drop(stream);
    assert_eq!(below.sent(), b"");
}

#[test]
fn nothing_goes_out_behind_our_own_close() {
    let (mut stream, below, mut other) = dialled();
    now(stream.write_all(b"last words")).expect("writes");
    now(stream.close()).expect("closes");
    assert_eq!(heard(&mut other, below.sent()), (b"last words".to_vec(), Heard::End));
    let error = now(stream.write(b"more")).expect_err("closed");
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    below.receive(&sealed(&mut other, b"an answer"));
    let mut room = [0; 64];
    assert_eq!(now(stream.read(&mut room)).expect("the other direction is open"), 9);
    below.receive(&sealed_alert(&mut other, AlertDescription::CloseNotify));
    assert_eq!(now(stream.read(&mut room)).expect("a clean end"), 0);
    // Past the close timeout: what was done in time stays done.
    std::thread::sleep(Duration::from_millis(150));
    now(stream.close()).expect("it was closed in time");
    drop(stream);
    assert_eq!(below.sent(), b"", "one close is enough");
}

#[test]
fn records_without_data_do_not_keep_a_read_busy() {
    let (mut stream, below, mut other) = dialled();
    let empty: Vec<u8> = (0..40_000).flat_map(|_| sealed(&mut other, b"")).collect();
    below.receive(&empty);
    below.receive(&sealed(&mut other, b"!"));
    let (flag, mut turns) = (Flag::new(), 0);
    loop {
        let waker = waker(flag.clone());
        let mut room = [0; 1];
        match Pin::new(&mut stream).poll_read(&mut Context::from_waker(&waker), &mut room) {
            Poll::Ready(read) => {
                assert_eq!((read.expect("reads"), room), (1, *b"!"));
                break;
            }
            Poll::Pending => assert!(flag.take(), "there is more to read"),
        }
        turns += 1;
    }
    assert!(turns >= 2, "{turns} turns for {} bytes", empty.len());
}

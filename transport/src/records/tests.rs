//! Our records against those of a whole rustls connection at the other end.

use super::*;
use crate::handshake;
use crate::identity::{Identity, Key, Local};
use crate::tls::{Tls, no_server_name};
use crate::{KeyExchange, certificate};
use libp2p_identity::Keypair;
use rustls::{ClientConnection, Connection, NoKeyLog, ServerConnection};
use std::io::{Read as _, Write as _};
use std::sync::Arc;

fn tls(seed: u8) -> (Tls, Key) {
    let keypair = Keypair::ed25519_from_bytes([seed; 32]).expect("32 bytes");
    let identity = Arc::new(Local::new(&keypair).expect("Ed25519"));
    let key = Key::check(&identity.public_key()).expect("canonical");
    let certificate = certificate::make(&*identity).expect("signs");
    let groups = [KeyExchange::X25519MlKem768];
    let tls = Tls::new(identity, certificate, &groups, Arc::new(NoKeyLog)).expect("configures");
    (tls, key)
}

/// Our end of a connection, and theirs with all of rustls.
struct Pair {
    ours: Records,
    theirs: Connection,
}

/// Whole bytes one way, then the other, until both are through.
fn shake<H: handshake::Handshake>(mut ours: H, mut theirs: Connection) -> Pair {
    let mut received = handshake::Received::default();
    loop {
        let mut flight = Vec::new();
        handshake::step(&mut ours, &mut received, &mut flight).expect("no fault");
        let mut flight = flight.as_slice();
        while !flight.is_empty() {
            theirs.read_tls(&mut flight).expect("room");
            theirs.process_new_packets().expect("no fault");
        }
        let mut answer = Vec::new();
        while theirs.wants_write() {
            theirs.write_tls(&mut answer).expect("memory");
        }
        if answer.is_empty() && !ours.state().is_handshaking() {
            break;
        }
        for piece in answer.chunks(700) {
            let space = received.space().expect("room");
            space[..piece.len()].copy_from_slice(piece);
            received.end += piece.len();
        }
    }
    let ours = ours.into_records().expect("through");
    Pair { ours, theirs }
}

fn pairs() -> [Pair; 2] {
    let ((dialer, dialer_key), (listener, listener_key)) = (tls(1), tls(2));
    let client = dialer.client(listener_key, None);
    let server = listener.server(dialer_key, None).expect("configures");
    let we_dial = shake(
        UnbufferedClientConnection::new(client.clone(), no_server_name()).expect("starts"),
        ServerConnection::new(server.clone()).expect("starts").into(),
    );
    let they_dial = shake(
        UnbufferedServerConnection::new(server).expect("starts"),
        ClientConnection::new(client, no_server_name()).expect("starts").into(),
    );
    [we_dial, they_dial]
}

impl Pair {
    fn we_send(&mut self, chunks: &[&[u8]]) -> Vec<u8> {
        let mut out = VecDeque::new();
        self.ours.seal(chunks, &mut out).expect("seals");
        self.they_take(out)
    }

    fn they_take(&mut self, out: VecDeque<Vec<u8>>) -> Vec<u8> {
        let mut plain = Vec::new();
        for record in out {
            let mut record = record.as_slice();
            while !record.is_empty() {
                self.theirs.read_tls(&mut record).expect("room");
                self.theirs.process_new_packets().expect("a good record");
            }
            let _ = self.theirs.reader().read_to_end(&mut plain);
        }
        plain
    }

    fn sealed_by_them(&mut self) -> Vec<u8> {
        let mut sealed = Vec::new();
        while self.theirs.wants_write() {
            self.theirs.write_tls(&mut sealed).expect("memory");
        }
        sealed
    }

    fn they_send(&mut self, plain: &[u8]) -> Vec<u8> {
        self.theirs.writer().write_all(plain).expect("memory");
        let sealed = self.sealed_by_them();
        self.we_take(sealed).expect("good records")
    }

    fn we_take(&mut self, mut sealed: Vec<u8>) -> Result<Vec<u8>, Error> {
        let (mut plain, mut start) = (Vec::new(), 0);
        while let Some(record) = self.ours.open(&mut sealed[start..])? {
            if let Content::Data(range) = record.content {
                plain.extend_from_slice(&sealed[start + range.start..start + range.end]);
            }
            start += record.size;
        }
        assert_eq!(start, sealed.len(), "whole records");
        Ok(plain)
    }
}

#[test]
fn what_one_end_says_the_other_hears_in_either_role() {
    for mut pair in pairs() {
        assert_eq!(pair.we_send(&[b"hello ", b"there"]), b"hello there");
        assert_eq!(pair.they_send(b"and back"), b"and back");
        let long: Vec<u8> = (0..MAX_PLAIN).map(|i| i as u8).collect();
        assert_eq!(pair.we_send(&[&long]), long);
        assert_eq!(pair.they_send(&long.repeat(3)), long.repeat(3));
        assert_eq!(pair.we_send(&[]), b"", "an empty record is a record");
    }
}

#[test]
fn a_record_in_pieces_is_waited_for() {
    for mut pair in pairs() {
        pair.theirs.writer().write_all(b"piece by piece").expect("memory");
        let sealed = pair.sealed_by_them();
        for cut in 0..sealed.len() {
            assert!(pair.ours.open(&mut sealed[..cut].to_vec()).expect("no fault").is_none());
        }
        assert_eq!(pair.we_take(sealed).expect("whole"), b"piece by piece");
    }
}

#[test]
fn keys_are_changed_when_they_ask_and_when_they_do_not() {
    for mut pair in pairs() {
        for round in 0..4 {
            pair.theirs.refresh_traffic_keys().expect("TLS 1.3");
            assert_eq!(pair.they_send(b"new key"), b"new key", "round {round}");
            assert_eq!(pair.we_send(&[b"still heard"]), b"still heard");
        }
        // rustls itself never asks for ours; somebody else may.
        pair.ours.sealing.update_requested = true;
        assert_eq!(pair.we_send(&[b"ours is new"]), b"ours is new");
        assert_eq!(pair.ours.sealing.sequence, 1, "counted from the new key on");
        assert_eq!(pair.they_send(b"theirs is not"), b"theirs is not");
    }
}

#[test]
fn our_key_is_changed_before_its_suite_says_that_it_is_worn_out() {
    for mut pair in pairs() {
        assert_eq!(pair.ours.sealing.limit, 1 << 24, "AES-GCM's, by RFC 8446, section 5.5");
        pair.ours.sealing.limit = 8;
        for count in 0..40_u8 {
            assert_eq!(pair.we_send(&[&[count]]), [count]);
            // The eighth record under a key is the one that says that the next key begins.
            assert!(pair.ours.sealing.sequence < 8);
        }
    }
}

#[test]
fn a_key_that_is_not_worn_out_stays() {
    for mut pair in pairs() {
        let mut out = VecDeque::new();
        pair.ours.seal(&[b"one"], &mut out).expect("seals");
        pair.ours.seal(&[b"two"], &mut out).expect("seals");
        assert_eq!(out.len(), 2, "data, and nothing in front of it");
        assert_eq!(pair.they_take(out), b"onetwo");
    }
}

#[test]
fn key_updates_without_end_are_refused() {
    for mut pair in pairs() {
        for _ in 0..MAX_UPDATES {
            pair.theirs.refresh_traffic_keys().expect("TLS 1.3");
        }
        let sealed = pair.sealed_by_them();
        pair.we_take(sealed).expect("as many as are allowed");
        pair.theirs.refresh_traffic_keys().expect("TLS 1.3");
        let sealed = pair.sealed_by_them();
        assert_eq!(
            pair.we_take(sealed),
            Err(PeerMisbehaved::TooManyKeyUpdateRequests.into())
        );
    }
}

#[test]
fn an_empty_record_between_key_updates_does_not_reset_their_count() {
    for mut pair in pairs() {
        for _ in 0..MAX_UPDATES {
            pair.theirs.refresh_traffic_keys().expect("TLS 1.3");
            let sealed = pair.sealed_by_them();
            pair.we_take(sealed).expect("as many as are allowed");
        }
        assert_eq!(pair.they_send(b"a byte of data"), b"a byte of data");
        assert_eq!(pair.ours.opening.updates, 0);
    }
    const UPDATE: [u8; 5] = [KEY_UPDATE, 0, 0, 1, 0];
    for [mut speaker, mut hearer] in [both(), reversed(both())] {
        for count in 0..=MAX_UPDATES {
            let heard = told(&mut speaker, &mut hearer, &[(HANDSHAKE, &UPDATE)]);
            if count == MAX_UPDATES {
                let refusal = PeerMisbehaved::TooManyKeyUpdateRequests.into();
                assert_eq!(heard, Err(refusal));
                break;
            }
            heard.expect("as many as are allowed");
            speaker.update(&mut VecDeque::new()).expect("TLS 1.3");
            told(&mut speaker, &mut hearer, &[(DATA, b"")]).expect("an empty record");
        }
    }
}

#[test]
fn an_empty_alert_or_handshake_record_is_refused_and_an_empty_record_of_data_is_not() {
    for [mut speaker, mut hearer] in [both(), reversed(both())] {
        let heard = told(&mut speaker, &mut hearer, &[(DATA, b"")]).expect("may be empty");
        assert_eq!(heard, [Content::Data(HEADER..HEADER)]);
    }
    for kind in [ALERT, HANDSHAKE] {
        for [mut speaker, mut hearer] in [both(), reversed(both())] {
            let refusal = InvalidMessage::InvalidEmptyPayload.into();
            assert_eq!(told(&mut speaker, &mut hearer, &[(kind, b"")]), Err(refusal));
        }
    }
}

fn reversed([dialer, listener]: [Records; 2]) -> [Records; 2] {
    [listener, dialer]
}

#[test]
fn the_end_is_said_and_heard() {
    for mut pair in pairs() {
        pair.theirs.send_close_notify();
        let mut sealed = pair.sealed_by_them();
        let record = pair.ours.open(&mut sealed).expect("no fault").expect("whole");
        assert_eq!(record.content, Content::End);

        let mut out = VecDeque::new();
        pair.ours
            .seal_alert(AlertDescription::CloseNotify, &mut out)
            .expect("seals");
        assert_eq!(pair.they_take(out), b"");
        assert_eq!(
            pair.theirs.reader().read(&mut [0; 8]).expect("a clean end"),
            0,
            "rustls tells an end from a cut"
        );
    }
}

#[test]
fn an_alert_is_the_error_it_names() {
    for mut pair in pairs() {
        let mut out = VecDeque::new();
        pair.ours
            .seal_alert(alert_for(&Error::DecryptError).expect("has one"), &mut out)
            .expect("seals");
        let mut record = out[0].as_slice();
        pair.theirs.read_tls(&mut record).expect("room");
        assert_eq!(
            pair.theirs.process_new_packets().err(),
            Some(Error::AlertReceived(AlertDescription::BadRecordMac))
        );
    }
}

#[test]
fn an_end_is_a_warning_and_everything_else_is_fatal() {
    let [mut dialer, mut listener] = both();
    let mut out = VecDeque::new();
    for alert in [AlertDescription::CloseNotify, AlertDescription::DecodeError] {
        dialer.seal_alert(alert, &mut out).expect("seals");
    }
    let levels = out.iter_mut().map(|record| {
        let record = InboundOpaqueMessage::new(
            ContentType::ApplicationData,
            ProtocolVersion::TLSv1_2,
            &mut record[HEADER..],
        );
        let sequence = listener.opening.sequence;
        listener.opening.sequence += 1;
        let plain = listener.opening.cipher.decrypt(record, sequence).expect("opens");
        plain.payload[0]
    });
    assert_eq!(levels.collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn every_fault_has_the_alert_that_the_specification_gives_it() {
    for (error, alert) in [
        (Error::DecryptError, AlertDescription::BadRecordMac),
        (Error::PeerSentOversizedRecord, AlertDescription::RecordOverflow),
        (
            InvalidMessage::InvalidContentType.into(),
            AlertDescription::UnexpectedMessage,
        ),
        (
            PeerMisbehaved::TooManyKeyUpdateRequests.into(),
            AlertDescription::UnexpectedMessage,
        ),
        (InvalidMessage::InvalidKeyUpdate.into(), AlertDescription::DecodeError),
        (
            InvalidMessage::InvalidEmptyPayload.into(),
            AlertDescription::UnexpectedMessage,
        ),
    ] {
        assert_eq!(alert_for(&error), Some(alert), "{error}");
    }
    let theirs = Error::AlertReceived(AlertDescription::BadRecordMac);
    assert_eq!(alert_for(&theirs), None, "an alert is not answered");
}

#[test]
fn a_record_of_the_greatest_length_is_taken_and_one_byte_more_is_not() {
    for mut pair in pairs() {
        // Not sealed by anybody: that it does not open shows that it was tried.
        let length = u16::try_from(MAX_SEALED - HEADER).expect("small");
        for (length, error) in [
            (length, Error::DecryptError),
            (length + 1, Error::PeerSentOversizedRecord),
        ] {
            let [high, low] = length.to_be_bytes();
            let mut record = vec![23, 3, 3, high, low];
            record.resize(HEADER + usize::from(length), 0);
            assert_eq!(pair.ours.open(&mut record).err(), Some(error));
        }
    }
}

#[test]
fn every_flipped_bit_is_noticed() {
    for mut pair in pairs() {
        pair.theirs.writer().write_all(b"untouched").expect("memory");
        let sealed = pair.sealed_by_them();
        for bit in 0..sealed.len() * 8 {
            let mut flipped = sealed.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            match pair.ours.open(&mut flipped) {
                // A greater length is waited for, and what comes then does not fit its tag.
                Ok(None) => assert!((3..HEADER).contains(&(bit / 8)), "bit {bit}"),
                // The minor version is nobody's business (RFC 8446, section 5.1) but is under the tag all the same, as
                // is the whole header: rustls writes it anew from what it must be.
                Ok(Some(_)) => assert_eq!(bit / 8, 2, "bit {bit}"),
                Err(_) => continue,
            }
            if bit / 8 == 2 {
                // It was opened: the next number is due.
                pair.ours.opening.sequence -= 1;
            }
        }
        assert_eq!(pair.we_take(sealed).expect("untouched"), b"untouched");
    }
}

#[test]
fn records_in_clear_out_of_order_or_too_long_are_refused() {
    for mut pair in pairs() {
        for kind in [20, 21, 22, 24, 0] {
            let refusal = pair.ours.open(&mut [kind, 3, 3, 0, 1, 0]).err();
            assert_eq!(refusal, Some(InvalidMessage::InvalidContentType.into()));
        }
        let refusal = pair.ours.open(&mut [23, 3, 3, 0x41, 0x01]).err();
        assert_eq!(
            refusal,
            Some(Error::PeerSentOversizedRecord),
            "before its bytes are waited for"
        );

        pair.theirs.writer().write_all(b"first").expect("memory");
        let first = pair.sealed_by_them();
        pair.theirs.writer().write_all(b"second").expect("memory");
        let second = pair.sealed_by_them();
        assert_eq!(pair.we_take(second), Err(Error::DecryptError), "out of order");
        assert_eq!(pair.we_take(first.clone()).expect("in order"), b"first");
        assert_eq!(pair.we_take(first), Err(Error::DecryptError), "a second time");
    }
}

/// Both ends ours, the dialer's first: one of them may then lie to the other.
fn both() -> [Records; 2] {
    let ((dialer, dialer_key), (listener, listener_key)) = (tls(1), tls(2));
    line::connect(&dialer, dialer_key, &listener, listener_key)
}

/// A type and what is sealed under it.
type Said<'a> = (ContentType, &'a [u8]);

/// What the second makes of records that the first seals with any type it likes.
fn told(from: &mut Records, to: &mut Records, records: &[Said<'_>]) -> Result<Vec<Content>, Error> {
    records
        .iter()
        .map(|(typ, payload)| {
            let mut sealed = from.sealing.seal(*typ, OutboundChunks::Single(payload))?;
            Ok(to.open(&mut sealed)?.expect("whole").content)
        })
        .collect()
}

const DATA: ContentType = ContentType::ApplicationData;
const ALERT: ContentType = ContentType::Alert;
const HANDSHAKE: ContentType = ContentType::Handshake;

#[test]
fn a_ticket_is_let_lie_by_the_dialer_and_refused_by_the_listener() {
    let ticket = [&[NEW_SESSION_TICKET, 0, 0, 40][..], &[7; 40]].concat();
    let [mut dialer, mut listener] = both();
    // As Go sends them: two in one record, and one in two records.
    let sent = [
        (HANDSHAKE, &*ticket.repeat(2)),
        (HANDSHAKE, &ticket[..3]),
        (HANDSHAKE, &ticket[3..]),
        (DATA, b"go on"),
    ];
    let heard = told(&mut listener, &mut dialer, &sent).expect("no fault");
    assert_eq!(heard[..3], [Content::Control, Content::Control, Content::Control]);
    assert_eq!(heard[3], Content::Data(HEADER..HEADER + 5));
    assert_eq!(dialer.opening.handshake.capacity(), 0, "nothing is kept");

    let [mut dialer, mut listener] = both();
    assert!(matches!(
        told(&mut dialer, &mut listener, &[(HANDSHAKE, &ticket)]),
        Err(Error::InappropriateHandshakeMessage { .. })
    ));
}

#[test]
fn a_ticket_of_the_greatest_length_is_waited_for_and_a_longer_one_is_not() {
    for (length, fault) in [
        (MAX_HANDSHAKE, None),
        (MAX_HANDSHAKE + 1, Some(InvalidMessage::HandshakePayloadTooLarge.into())),
    ] {
        let [mut dialer, mut listener] = both();
        let [_, a, b, c] = u32::try_from(length).expect("small").to_be_bytes();
        let heard = told(
            &mut listener,
            &mut dialer,
            &[(HANDSHAKE, &[NEW_SESSION_TICKET, a, b, c])],
        );
        assert_eq!(heard.err(), fault);
    }
}

#[test]
fn a_key_update_that_asks_for_ours_is_answered_in_front_of_the_next_data() {
    let [mut dialer, mut listener] = both();
    told(&mut dialer, &mut listener, &[(HANDSHAKE, &[KEY_UPDATE, 0, 0, 1, 1])]).expect("no fault");
    let mut out = VecDeque::new();
    listener.seal(&[b"answer"], &mut out).expect("seals");
    assert_eq!(out.len(), 2);
    let heard: Vec<_> = out
        .iter_mut()
        .map(|record| dialer.open(record).expect("no fault").expect("whole").content)
        .collect();
    assert_eq!(heard, [Content::Control, Content::Data(HEADER..HEADER + 6)]);
}

#[test]
fn whatever_else_is_sealed_in_a_record_is_refused() {
    let update = [KEY_UPDATE, 0, 0, 1, 0];
    let refused: [(&str, &[Said<'_>]); 10] = [
        (
            "an update with something behind it",
            &[(HANDSHAKE, &[KEY_UPDATE, 0, 0, 1, 0, 0])],
        ),
        ("an update of no kind", &[(HANDSHAKE, &[KEY_UPDATE, 0, 0, 1, 2])]),
        ("an empty update", &[(HANDSHAKE, &[KEY_UPDATE, 0, 0, 0])]),
        (
            "an empty update with something behind it",
            &[(HANDSHAKE, &[KEY_UPDATE, 0, 0, 0, 0])],
        ),
        ("data inside a message", &[(HANDSHAKE, &update[..2]), (DATA, b"data")]),
        (
            "an alert inside a message",
            &[(HANDSHAKE, &update[..2]), (ALERT, &[1, 0])],
        ),
        (
            "a message of 16 MiB",
            &[(HANDSHAKE, &[NEW_SESSION_TICKET, 0xff, 0xff, 0xff])],
        ),
        ("a second handshake", &[(HANDSHAKE, &[1, 0, 0, 0])]),
        ("a change of cipher", &[(ContentType::ChangeCipherSpec, &[1])]),
        ("half an alert", &[(ALERT, &[1])]),
    ];
    for (what, records) in refused {
        let [mut dialer, mut listener] = both();
        assert!(
            told(&mut dialer, &mut listener, records).is_err(),
            "{what}, of the dialer's"
        );
        let [mut dialer, mut listener] = both();
        assert!(
            told(&mut listener, &mut dialer, records).is_err(),
            "{what}, of the listener's"
        );
    }
}

#[test]
fn a_warning_that_says_nothing_is_passed_over() {
    let [mut dialer, mut listener] = both();
    let heard = told(&mut dialer, &mut listener, &[(ALERT, &[1, 90]), (ALERT, &[1, 0])]);
    assert_eq!(heard, Ok(vec![Content::Control, Content::End]));
}

use super::super::address::parse;
use super::*;
use libp2p_identity::Keypair;
use serde_json::Value;

/// What the real Go ragedisco sent and took; `interop/go/ragep2p-peer/ragedisco-vectors` prints it.
fn vectors() -> Value {
    serde_json::from_str(include_str!("../../../../tests/vectors/ragedisco.json")).unwrap()
}

fn keypair(seed: u8) -> Keypair {
    Keypair::ed25519_from_bytes([seed; 32]).unwrap()
}

fn signed(seed: u8, counter: u64, addresses: &[&str]) -> Announcement {
    let keypair = keypair(seed).try_into_ed25519().unwrap();
    let addresses = addresses.iter().map(|address| address.as_bytes().to_vec()).collect();
    let sign = |message: &[u8]| Ok::<_, ()>(keypair.sign(message).try_into().unwrap());
    Announcement::sign(addresses, counter, keypair.public().to_bytes(), sign).unwrap()
}

#[test]
fn what_go_sends_we_send_byte_for_byte() {
    let vectors = vectors();
    let sent = vectors["sent"].as_array().unwrap();
    assert_eq!(sent.len(), 7);
    let mut highest = 0;
    for vector in sent {
        let addresses: Vec<&str> = vector["addresses"]
            .as_array()
            .unwrap()
            .iter()
            .map(|a| a.as_str().unwrap())
            .collect();
        let counter = vector["counter"].as_u64().unwrap();
        highest = highest.max(counter);
        let ours = signed(
            u8::try_from(vector["seed"].as_u64().unwrap()).unwrap(),
            counter,
            &addresses,
        );
        let message = match vector["kind"].as_str().unwrap() {
            "announcement" => Message::Announcement(ours.clone()),
            "reconcile" => Message::Reconcile(vec![ours.clone()]),
            kind => panic!("{kind}"),
        };
        let theirs = hex::decode(vector["message"].as_str().unwrap()).unwrap();
        assert_eq!(hex::encode(message.encode()), hex::encode(&theirs));
        assert_eq!(Message::decode(&theirs).unwrap(), message);
        ours.verify().unwrap();
        assert_eq!(ours.addresses().collect::<Vec<_>>(), addresses);
        assert_eq!(Announcement::decode(&ours.encode()).unwrap(), ours, "the stored form");
    }
    assert_eq!(highest, 3);
}

#[test]
fn what_go_takes_we_take_and_what_go_refuses_we_refuse() {
    let vectors = vectors();
    let peer = keypair(1).public().to_peer_id();
    let oracles = [1, 2, 3].map(|seed| keypair(seed).public().to_peer_id());
    let taken = vectors["taken"].as_array().unwrap();
    let mut counts = (0, 0);
    for vector in taken {
        let message = hex::decode(vector["message"].as_str().unwrap()).unwrap();
        // As the protocol does: a message is used or refused as a whole, then each announcement by itself.
        let members = match Message::decode(&message) {
            Ok(Message::Announcement(one)) => vec![one],
            Ok(Message::Reconcile(all)) => all,
            Err(_) => Vec::new(),
        };
        let learned = members
            .iter()
            .any(|member| oracles.contains(&member.peer()) && member.peer() == peer && member.verify().is_ok());
        assert_eq!(learned, vector["learned"], "{}", vector["name"]);
        if learned {
            counts.0 += 1;
        } else {
            counts.1 += 1;
        }
    }
    assert!(counts.0 >= 30 && counts.1 >= 45, "both kinds are there: {counts:?}");
}

#[test]
fn a_message_with_everything_at_its_longest_is_not_too_long() {
    let longest = "[0000:0000:0000:0000:0000:ffff:255.255.255.255]:65535";
    let member = signed(1, u64::MAX, &[longest; MAX_ADDRESSES]);
    let message = Message::Reconcile(vec![member.clone(); MAX_ORACLES]).encode();
    assert!(message.len() <= MAX_MESSAGE_LENGTH, "{}", message.len());
    assert!(Message::decode(&message).is_ok());
    let one_more = Message::Reconcile(vec![member; MAX_ORACLES + 1]).encode();
    assert!(matches!(
        Message::decode(&one_more),
        Err(AnnouncementError::TooLong(_) | AnnouncementError::TooMany(166))
    ));
    assert_eq!(
        Message::decode(&vec![0; MAX_MESSAGE_LENGTH + 1]),
        Err(AnnouncementError::TooLong(MAX_MESSAGE_LENGTH + 1))
    );
}

#[test]
fn a_refusal_says_which_announcement_and_what_is_wrong_with_it() {
    let good = signed(1, 1, &["192.0.2.7:1"]);
    let mut bad = good.clone();
    bad.addresses[0] = b"localhost:1".to_vec();
    let message = Message::Reconcile(vec![good.clone(), bad]).encode();
    let error = Message::decode(&message).unwrap_err();
    assert_eq!(
        error.to_string(),
        "announcement 1 of the message: \"localhost:1\" is not an IP address and a port, such as 192.0.2.7:6690 or [2001:db8::7]:6690"
    );
    let mut forged = good;
    forged.counter += 1;
    assert_eq!(forged.verify(), Err(AnnouncementError::Signature(forged.peer())));
}

#[test]
fn an_announced_address_is_dialled_as_an_address_of_the_knock() {
    let announcement = signed(1, 1, &["192.0.2.7:1", "[2001:db8::7]:2"]);
    let dialled: Vec<String> = announcement.multiaddrs().map(|address| address.to_string()).collect();
    assert_eq!(dialled, ["/ip4/192.0.2.7/tcp/1/tls", "/ip6/2001:db8::7/tcp/2/tls"]);
    assert!(parse(b"192.0.2.7:1").is_ok());
}

#[test]
fn a_peer_id_is_a_key_and_a_key_a_peer_id() {
    let peer = keypair(1).public().to_peer_id();
    let key = key_of(&peer).unwrap();
    assert_eq!(peer_of(&key), peer);
    let other_type: PeerId = "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N".parse().unwrap();
    assert_eq!(key_of(&other_type), None);
}

//! The knock was in order. Whoever made it then does TLS as he likes: he sees one flight of the listener's at most, and
//! after that what a stranger sees.

use super::*;
use libp2p_knock::Version;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use std::io::Read as _;
use std::time::Instant;

/// A TLS client whose bytes go by hand.
pub(super) struct Client(ClientConnection);

impl Client {
    pub(super) fn new(config: ClientConfig) -> Self {
        let name = ServerName::try_from("0.0.0.0").unwrap();
        Self(ClientConnection::new(Arc::new(config), name).unwrap())
    }

    fn written(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while self.0.wants_write() {
            self.0.write_tls(&mut bytes).unwrap();
        }
        bytes
    }
}

/// What an attacker got to see.
pub(super) struct Seen {
    /// Off the wire.
    raw: Vec<u8>,
    /// What of it was said inside TLS.
    inside: Vec<u8>,
    end: std::io::Result<usize>,
    after: Duration,
    /// The close time of whom he spoke to.
    close: Duration,
}

impl Seen {
    /// Nothing, for as long as a stranger sees nothing.
    fn is_silence(&self) {
        assert!(self.raw.is_empty(), "{} bytes", self.raw.len());
        self.ends_quietly();
    }

    /// At most a ServerHello and what is behind it, nothing inside, no alert, and the end of any stranger.
    pub(super) fn is_one_flight_and_a_quiet_end(&self) {
        let types = record_types(&self.raw);
        assert_eq!(types.first(), Some(&HANDSHAKE));
        assert!(!types.contains(&ALERT), "{types:?}");
        assert!(self.raw.len() < 4096, "{} bytes are more than a flight", self.raw.len());
        self.ends_quietly();
    }

    fn ends_quietly(&self) {
        assert!(self.inside.is_empty(), "{} bytes inside TLS", self.inside.len());
        assert!(matches!(self.end, Ok(0)), "a FIN, not {:?}", self.end);
        assert!(self.after >= self.close, "{:?}", self.after);
    }
}

/// Knocks with the client's hello in the knock of `knock`'s making and goes on with TLS. Once there is something from the
/// listener, `more` goes out too, which is shown what has come.
pub(super) async fn drive(
    target: &Target,
    mut client: Client,
    knock: impl Fn(&[u8]) -> Vec<u8>,
    more: impl Fn(&[u8]) -> Vec<u8>,
) -> Seen {
    let started = Instant::now();
    let mut socket = target.listener.connect().await;
    let hello = client.written();
    socket.write_all(&knock(&hello)).await.unwrap();
    let (mut raw, mut inside) = (Vec::new(), Vec::new());
    let end = loop {
        let mut room = [0; 8192];
        let n = match soon("the listener", socket.read(&mut room)).await {
            Ok(n @ 1..) => n,
            end => break end,
        };
        let first = raw.is_empty();
        raw.extend_from_slice(&room[..n]);
        let mut fed = &room[..n];
        while !fed.is_empty() && client.0.read_tls(&mut fed).is_ok() {
            // An attacker goes on where a client would stop.
            let _ = client.0.process_new_packets();
        }
        let _ = client.0.reader().read_to_end(&mut inside);
        let mut answer = client.written();
        if first {
            answer.extend(more(&raw));
        }
        // It may be past its time by now.
        let _ = socket.write_all(&answer).await;
    };
    Seen {
        raw,
        inside,
        end,
        after: started.elapsed(),
        close: target.close,
    }
}

fn v3(hello: &[u8]) -> Vec<u8> {
    sealed_at(1, 2, SystemTime::now(), hello)
}

fn v2(hello: &[u8]) -> Vec<u8> {
    [&knock(1, 2)[..], hello].concat()
}

/// A target for either knock, and how to make it.
async fn targets() -> [(Target, fn(&[u8]) -> Vec<u8>); 2] {
    let config = config(2).with_handshake_timeout(LATE);
    let old = config.clone().with_version(Version::V2).unwrap();
    [
        (Target::closing_after(LATE, config).await, v3),
        (Target::closing_after(LATE, old).await, v2),
    ]
}

/// Offers P-256 first, and a share for nothing else.
fn wants_to_be_asked_again() -> ClientConfig {
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let all = rustls::crypto::aws_lc_rs::kx_group::SECP256R1;
    let kx_groups = vec![all, rustls::crypto::aws_lc_rs::kx_group::X25519];
    let provider = rustls::crypto::CryptoProvider { kx_groups, ..provider };
    gullible_config_of(provider, &rustls::version::TLS13, Some((1, 1)))
}

#[tokio::test]
async fn a_hello_that_would_be_asked_again_is_refused_in_the_sealed_knock() {
    let [(sealed, v3), (mut old, v2)] = targets().await;
    let client = || Client::new(wants_to_be_asked_again());
    // The old one cannot see it coming, and asks.
    let (seen, seen_by_old) = futures::join!(
        drive(&sealed, client(), v3, |_| Vec::new()),
        drive(&old, client(), v2, |_| vec![0xaa; 50])
    );
    seen.is_silence();
    let counted = (sealed.knocks("refused_flight"), sealed.knocks("accepted"));
    assert_eq!(counted, (1, 0), "{}", sealed.all());
    seen_by_old.is_one_flight_and_a_quiet_end();
    assert!(old.listener.upgraded().await.is_err());
}

#[tokio::test]
async fn tls_1_2_gets_no_byte_and_no_alert() {
    let attacks = targets().await.map(async |(target, knock)| {
        let client = Client::new(gullible_config(&rustls::version::TLS12, Some((1, 1))));
        drive(&target, client, knock, |_| Vec::new()).await.is_silence();
    });
    futures::future::join_all(attacks).await;
}

#[tokio::test]
async fn every_wrong_client_certificate_meets_silence_after_one_flight() {
    let certificates = [None, Some((3, 1)), Some((2, 1)), Some((1, 2))];
    let cases = certificates
        .into_iter()
        .flat_map(|certificates| [(certificates, 0), (certificates, 1)]);
    let attacks = cases.map(async |(certificates, which)| {
        let (mut target, knock) = targets().await.into_iter().nth(which).unwrap();
        let client = Client::new(gullible_config(&rustls::version::TLS13, certificates));
        let seen = drive(&target, client, knock, |_| b"let me in".to_vec()).await;
        seen.is_one_flight_and_a_quiet_end();
        assert!(target.listener.upgraded().await.is_err(), "{certificates:?}");
        assert_eq!(target.knocks("accepted"), 1);
    });
    futures::future::join_all(attacks).await;
}

#[tokio::test]
async fn whatever_comes_in_place_of_the_clients_last_flight_meets_silence() {
    let junk: [&[u8]; 6] = [
        &[0xaa; 300],
        b"GET / HTTP/1.1\r\n\r\n",
        // Alerts of his own: one that says what is wrong, one that says goodbye.
        &[21, 3, 3, 0, 2, 2, 40],
        &[21, 3, 3, 0, 2, 1, 0],
        // A record that is too long, and one that does not open.
        &[23, 3, 3, 0xff, 0xff],
        &[
            23, 3, 3, 0, 20, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20,
        ],
    ];
    let cases = junk.into_iter().flat_map(|junk| [(junk, 0), (junk, 1)]);
    let attacks = cases.map(async |(junk, which)| {
        let (mut target, knock) = targets().await.into_iter().nth(which).unwrap();
        let started = Instant::now();
        let mut socket = target.listener.connect().await;
        socket.write_all(&knock(&client_hello())).await.unwrap();
        let mut raw = vec![0; 1];
        soon("the server flight", socket.read_exact(&mut raw)).await.unwrap();
        socket.write_all(junk).await.unwrap();
        let end = soon("the end", socket.read_to_end(&mut raw)).await.map(|_| 0);
        let seen = Seen {
            raw,
            inside: Vec::new(),
            end,
            after: started.elapsed(),
            close: target.close,
        };
        seen.is_one_flight_and_a_quiet_end();
        assert!(target.listener.upgraded().await.is_err());
    });
    futures::future::join_all(attacks).await;
}

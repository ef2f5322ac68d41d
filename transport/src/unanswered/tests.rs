//! The texts, and what stands first in them.

use super::*;
use crate::config::Theirs;

fn unanswered(version: Version, heard: Heard) -> Unanswered {
    let keypair = libp2p_identity::Keypair::ed25519_from_bytes([2; 32]).expect("32 bytes");
    Unanswered {
        peer: keypair.public().to_peer_id(),
        version,
        network: None,
        heard,
        after: Duration::from_secs(5),
        known: KNOWN,
    }
}

const KNOWN: Known = Known {
    own_clock: OwnClock::Unknown,
    answered: None,
    silent: 1,
    skew_ms: None,
    theirs: None,
    holder: None,
};

/// After `Unanswered`'s first words, which are always the same.
fn said(unanswered: &Unanswered) -> String {
    let text = unanswered.to_string();
    let (_, said) = text.split_once(" was not answered: ").expect("says so");
    said.to_owned()
}

#[test]
fn what_came_back_is_told_apart_by_its_first_bytes() {
    let heard = |bytes: &[u8], ended| {
        let mut first = First::default();
        // However it arrives.
        bytes.chunks(3).for_each(|bytes| first.take(bytes));
        first.heard(ended)
    };
    assert_eq!(heard(b"", false), Some(Heard::Nothing));
    assert_eq!(heard(b"", true), Some(Heard::Closed));
    let mut reset = First::default();
    reset.broke(&std::io::ErrorKind::ConnectionReset.into());
    assert_eq!(reset.heard(true), Some(Heard::Reset));
    assert_eq!(heard(b"\x13/multistream/1.0.0\n", true), Some(Heard::Multistream));
    assert_eq!(heard(b"HTTP/1.1 400 Bad Request\r\n", true), Some(Heard::Http));
    assert_eq!(heard(&[21, 3, 3, 0, 2, 2, 40], true), Some(Heard::Alert(40)));
    let other = Heard::Other(b"SSH-2.0-OpenSSH_9.2p1 De".to_vec());
    assert_eq!(heard(b"SSH-2.0-OpenSSH_9.2p1 Debian", false), Some(other));
    assert_eq!(heard(&[22, 4], false), Some(Heard::Other(vec![22, 4])));
    for answer in [
        &[22][..],
        &[22, 3],
        &[22, 3, 3, 0, 122, 2],
        &[20, 3, 3, 0, 1, 1],
        &[23, 3, 3],
    ] {
        assert_eq!(heard(answer, true), None, "{answer:?} is TLS");
    }
}

#[test]
fn each_text_says_what_is_known_and_what_the_reason_may_be_once() {
    let silence = unanswered(Version::V3, Heard::Nothing);
    assert_eq!(
        silence.to_string(),
        format!(
            "the knock at {} was not answered: no byte came within 5s; perhaps another peer listens there, it is in \
             a private network, it expects another knock than version 3, it does not admit us, it is at a limit or \
             has just been started, its clock and ours differ by more than 120 s, or the port is not that of a knock",
            silence.peer
        )
    );
    let old = unanswered(Version::V2, Heard::Nothing);
    assert!(
        !said(&old).contains("clock") && !said(&old).contains("network"),
        "{old}"
    );
    let closed = said(&unanswered(Version::V3, Heard::Reset));
    assert!(
        closed.starts_with("the other end reset the connection after 5s; perhaps the port is not"),
        "{closed}"
    );
    assert!(closed.contains("`Config::ragep2p_compatible`"), "{closed}");
    for (heard, text) in [
        (
            Heard::Multistream,
            "stock libp2p listens there, and answered with multistream-select",
        ),
        (Heard::Http, "an HTTP server answered"),
        (Heard::Alert(70), "a TLS server answered, with alert 70"),
        (
            Heard::Other(b"220 \x1b[2J\n".to_vec()),
            "bytes came that are no TLS, \"220 \\x1b[2J\\n\"",
        ),
    ] {
        let unanswered = unanswered(Version::V3, heard);
        assert_eq!(said(&unanswered), format!("{text}; the port of a knock is another one"));
    }
    let private = Unanswered {
        network: Some("mine".into()),
        known: Known {
            answered: Some(Duration::from_millis(90_400)),
            ..KNOWN
        },
        ..silence.clone()
    };
    assert!(
        said(&private).contains("it is not in our network \"mine\""),
        "{private}"
    );
    assert!(
        said(&private).contains("within 5s; it last answered 90s ago; perhaps it does not admit us, "),
        "{private}"
    );
    assert_eq!(private.causes()[0], Cause::NotAdmitted, "it is where it was");
}

#[test]
fn a_close_as_late_as_a_listeners_says_no_more_than_silence_does() {
    let closed = |seconds| Unanswered {
        after: Duration::from_secs(seconds),
        ..unanswered(Version::V3, Heard::Closed)
    };
    assert_eq!(closed(119).causes()[0], Cause::OtherProtocol);
    assert_eq!(closed(120).causes(), unanswered(Version::V3, Heard::Nothing).causes());
}

#[test]
fn a_clock_of_our_own_that_is_suspect_comes_first_and_says_why() {
    let ago = Duration::from_secs(40);
    let own = |own_clock, silent| Unanswered {
        known: Known {
            own_clock,
            silent,
            ..KNOWN
        },
        ..unanswered(Version::V3, Heard::Nothing)
    };
    for (unanswered, text) in [
        (
            own(OwnClock::Set { seconds: -400, ago }, 1),
            "our clock is wrong: it was set by -400 s since a peer last answered",
        ),
        (
            own(
                OwnClock::Differs {
                    seconds_ahead: 400,
                    callers: 3,
                },
                1,
            ),
            "our clock is wrong: it is 400 s ahead of those of 3 callers",
        ),
        (
            own(OwnClock::Unknown, 4),
            "our clock is off by more than 120 s: 4 peers in a row have not answered",
        ),
    ] {
        assert_eq!(unanswered.causes()[0], Cause::Clock);
        assert!(
            unanswered.to_string().contains(&format!("; perhaps {text}, ")),
            "{unanswered}"
        );
    }
    for not in [own(OwnClock::Unknown, 2), own(OwnClock::Agreed { ago }, 9)] {
        assert_eq!(not.causes()[0], Cause::WrongPeer, "{not}");
    }
    let agreed = own(OwnClock::Agreed { ago }, 1).to_string();
    assert!(
        agreed.contains("its clock is off by more than 120 s (ours agreed"),
        "{agreed}"
    );
    let itself = Unanswered {
        known: Known {
            answered: Some(ago),
            ..own(OwnClock::Agreed { ago }, 1).known
        },
        ..unanswered(Version::V3, Heard::Nothing)
    };
    assert!(
        itself.to_string().contains(", its clock was set since then, "),
        "{itself}"
    );
    // Where no knock has a time in it no clock is to blame.
    let old = Unanswered {
        version: Version::V2,
        ..own(OwnClock::Set { seconds: 9999, ago }, 9)
    };
    assert!(!old.causes().contains(&Cause::Clock));
}

#[test]
fn a_cause_that_there_is_a_sign_of_comes_first_and_the_text_shows_the_sign() {
    let of = |known| Unanswered {
        known,
        ..unanswered(Version::V3, Heard::Nothing)
    };
    let theirs = Some(Theirs {
        version: Version::V2,
        mode: None,
    });
    let otherwise = of(Known { theirs, ..KNOWN });
    assert_eq!(
        (otherwise.causes()[0], otherwise.its_version()),
        (Cause::OtherVersion, Some(Version::V2))
    );
    let text = "; perhaps it is configured otherwise: it knocks here with knock version 2, as Go's ragep2p does (`Con";
    assert!(said(&otherwise).contains(text), "{otherwise}");
    for (skew_ms, text) in [
        (400_900, "400 s ahead of our clock"),
        (-90_000, "90 s behind our clock"),
    ] {
        let skewed = of(Known {
            skew_ms: Some(skew_ms),
            ..KNOWN
        });
        assert_eq!(
            (skewed.causes()[0], skewed.its_seconds_ahead()),
            (Cause::Clock, Some(skew_ms / 1000))
        );
        assert!(said(&skewed).contains(text), "{skewed}");
    }
    let closed = Unanswered {
        heard: Heard::Closed,
        ..otherwise.clone()
    };
    assert_eq!(closed.causes()[0], Cause::OtherVersion, "as Go closes");
    let near = of(Known {
        skew_ms: Some(59_000),
        ..KNOWN
    });
    assert_eq!(near.causes()[0], Cause::WrongPeer);
    let keypair = libp2p_identity::Keypair::ed25519_from_bytes([3; 32]).expect("32 bytes");
    let other = keypair.public().to_peer_id();
    let key = Key::of_peer(&other).expect("Ed25519").bytes();
    let moved = of(Known {
        answered: Some(Duration::from_secs(9)),
        holder: Some((key, Duration::from_secs(4))),
        ..KNOWN
    });
    assert_eq!(
        (moved.causes()[0], moved.answered_there()),
        (Cause::WrongPeer, Some(other))
    );
    let text = format!("; perhaps another peer listens there ({other} answered at this address 4s ago), ");
    assert!(said(&moved).contains(&text), "{moved}");
    // Each cause is named once.
    for unanswered in [otherwise, moved, near] {
        let causes = unanswered.causes();
        assert_eq!(causes.len(), 7, "{causes:?}");
        assert!((0..7).all(|n| !causes[..n].contains(&causes[n])), "{causes:?}");
    }
}

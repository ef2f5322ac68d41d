//! Which series there are.

use super::*;
use prometheus_client::encoding::text::encode;
use std::collections::BTreeSet;

/// All that there is, without the values.
fn series(registry: &Registry) -> BTreeSet<String> {
    let mut text = String::new();
    encode(&mut text, registry).expect("into a string");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let series = lines.filter_map(|line| line.rsplit_once(' '));
    series.map(|(series, _)| series.to_owned()).collect()
}

#[test]
fn whatever_happens_first_is_counted_from_zero_and_nothing_gets_a_label_later() {
    let mut registry = Registry::default();
    let user_code = UserCode::default();
    let metrics = Metrics::none().register(&mut registry, &user_code).expect("empty");
    let before = series(&registry);
    let refusals = [
        Refusal::Version(7),
        Refusal::Box,
        Refusal::Replayed,
        Refusal::Budget,
        Refusal::Noise,
        Refusal::Reserved,
        Refusal::Mode(9),
        Refusal::FlightLength(0),
        Refusal::Time,
        Refusal::Floor,
        Refusal::SelfDial,
        Refusal::Key,
        Refusal::Signature,
        Refusal::NotConfigured,
        Refusal::Flight,
        Refusal::Hello,
        Refusal::TlsVersion,
        Refusal::KeyShare,
    ];
    let others = [
        KnockOutcome::Accepted,
        KnockOutcome::Denied,
        KnockOutcome::Displaced,
        KnockOutcome::Evicted,
        KnockOutcome::Incomplete,
        KnockOutcome::Timeout,
    ];
    for outcome in refusals.map(KnockOutcome::Refused).into_iter().chain(others) {
        metrics.knock(outcome);
    }
    for outcome in OUTCOMES {
        metrics.dial(outcome);
    }
    for label in handshakes() {
        let role = if label.role == "dialer" {
            Role::Dialer
        } else {
            Role::Listener
        };
        let outcome = OUTCOMES.into_iter().find(|outcome| name(*outcome) == label.outcome);
        let outcome = outcome.expect("one of them");
        metrics.handshake(role, outcome, label.group, Duration::from_millis(1));
    }
    metrics.accepted();
    metrics.waiting(0, 3);
    metrics.listening_ended();
    metrics.read(1);
    metrics.written(1);
    assert_eq!(series(&registry), before);
    let distinct: BTreeSet<_> = KNOCKS.into_iter().collect();
    assert_eq!(distinct.len(), KNOCKS.len());
    assert!(before.len() < 130, "{} series", before.len());
}

#[test]
fn a_second_configuration_in_a_registry_is_an_error() {
    let mut registry = Registry::default();
    let user_code = UserCode::default();
    let first = Metrics::none().register(&mut registry, &user_code).expect("empty");
    for again in [Metrics::none(), first] {
        let refused = again.register(&mut registry, &user_code).err().expect("twice");
        assert!(refused.name().starts_with("libp2p_knock_"), "{refused}");
    }
}

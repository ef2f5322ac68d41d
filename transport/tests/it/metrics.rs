//! What is counted, by the names that a dashboard reads.

#![cfg(feature = "metrics")]

use crate::common::*;
use libp2p_core::Transport as _;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use std::time::Duration;

pub(crate) fn rendered(registry: &Registry) -> String {
    let mut text = String::new();
    encode(&mut text, registry).unwrap();
    text
}

/// The value of the line that starts with `name`, 0 if there is none.
pub(crate) fn value(registry: &Registry, name: &str) -> f64 {
    let text = rendered(registry);
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.map_or(0.0, |value| value.trim().parse().unwrap())
}

#[tokio::test]
async fn dials_knocks_handshakes_and_bytes_are_counted_on_both_sides() {
    let (mut near, mut far) = (Registry::default(), Registry::default());
    // Of two registries neither is forgotten.
    let mut also_far = Registry::default();
    let listening = config(2)
        .dangerous()
        .with_close_time(Duration::from_millis(200))
        .with_metrics(&mut far)
        .unwrap()
        .with_metrics(&mut also_far)
        .unwrap();
    let mut listener = victim(listening).await;
    let mut dialling = authenticated(config(1).with_metrics(&mut near).unwrap());

    let (_, ours) = dialling
        .dial(listener.address.clone(), dialer())
        .unwrap()
        .await
        .unwrap();
    let (_, theirs) = listener.upgraded().await.unwrap();
    listener.probe(&[0; 204]).await;
    listener.probe(b"").await;
    drop((ours, theirs));
    let nowhere = format!("/ip4/127.0.0.1/tcp/1/tls/p2p/{}", peer(2)).parse().unwrap();
    dialling.dial(nowhere, dialer()).unwrap().await.unwrap_err();

    for (name, expected) in [
        ("libp2p_knock_dials_total{outcome=\"ok\"}", 1.0),
        ("libp2p_knock_dials_total{outcome=\"connect\"}", 1.0),
        (
            "libp2p_knock_handshakes_total{role=\"dialer\",outcome=\"ok\",group=\"x25519mlkem768\"}",
            1.0,
        ),
        ("libp2p_knock_handshake_duration_seconds_count{role=\"dialer\"}", 1.0),
    ] {
        assert_eq!(value(&near, name), expected, "{name} in\n{}", rendered(&near));
    }
    for (name, expected) in [
        ("libp2p_knock_accepts_total", 3.0),
        ("libp2p_knock_knocks_total{outcome=\"accepted\"}", 1.0),
        ("libp2p_knock_knocks_total{outcome=\"refused_box\"}", 1.0),
        ("libp2p_knock_knocks_total{outcome=\"timeout\"}", 1.0),
        ("libp2p_knock_sockets_waiting", 0.0),
        (
            "libp2p_knock_handshakes_total{role=\"listener\",outcome=\"ok\",group=\"x25519mlkem768\"}",
            1.0,
        ),
    ] {
        for far in [&far, &also_far] {
            assert_eq!(value(far, name), expected, "{name} in\n{}", rendered(far));
        }
    }
    let sent = value(&near, "libp2p_knock_wire_bytes_total{direction=\"sent\"}");
    assert!(sent > 1_000.0, "{sent}");
    assert_eq!(
        sent,
        value(&far, "libp2p_knock_wire_bytes_total{direction=\"received\"}")
    );
}

#[test]
fn two_configurations_in_one_registry_are_an_error_and_below_a_prefix_each_they_are_not() {
    let mut registry = Registry::default();
    config(1).with_metrics(&mut registry).unwrap();
    let refused = config(2).with_metrics(&mut registry).unwrap_err();
    assert!(refused.name().starts_with("libp2p_knock_"), "{refused}");
    assert!(refused.to_string().contains(refused.name()), "{refused}");
    let mut registry = Registry::default();
    for (seed, prefix) in [(1, "one"), (2, "two")] {
        let below = registry.sub_registry_with_prefix(prefix);
        config(seed).with_metrics(below).unwrap();
    }
    // What a scrape describes it describes once.
    let text = rendered(&registry);
    let described: Vec<&str> = text.lines().filter(|line| line.starts_with("# TYPE")).collect();
    let distinct: std::collections::BTreeSet<&str> = described.iter().copied().collect();
    assert_eq!((described.len(), distinct.len()), (18, 18), "{described:#?}");
}

#[tokio::test]
async fn transports_on_clones_of_one_configuration_add_up_their_sockets_and_take_them_along() {
    let mut registry = Registry::default();
    let config = config(2).with_metrics(&mut registry).unwrap();
    let shows = async |sockets: f64| {
        let wait = async {
            while value(&registry, "libp2p_knock_sockets_waiting ") != sockets {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        soon("the sockets that wait", wait).await;
    };
    let one = victim(config.clone()).await;
    let two = victim(config.clone()).await;
    let _callers = (one.connect().await, one.connect().await, two.connect().await);
    shows(3.0).await;
    drop(one);
    shows(1.0).await;
    drop(two);
    shows(0.0).await;
    // A transport that is made anew goes on.
    let next = victim(config).await;
    let _caller = next.connect().await;
    shows(1.0).await;
    assert_eq!(value(&registry, "libp2p_knock_accepts_total "), 4.0);
}

//! What a scrape shows of goodbyes.

#![cfg(feature = "metrics")]

use crate::swarms::{Mute, connected, listening, mute, swarm_of};
use crate::{closed, say_goodbye, trimmed};
use libp2p::swarm::dial_opts::DialOpts;
use libp2p_gater::goodbye::{Behaviour, Code, Goodbye, Said};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use std::time::Duration;

fn shown(registry: &Registry, name: &str) -> u64 {
    let mut text = String::new();
    encode(&mut text, registry).unwrap();
    let name = format!("libp2p_gater_goodbye_{name} ");
    let line = text.lines().find_map(|line| line.strip_prefix(&name));
    line.unwrap_or_else(|| panic!("no {name}in\n{text}")).parse().unwrap()
}

fn counting(registry: &mut Registry) -> Behaviour {
    Behaviour::default().with_metrics(registry).unwrap()
}

#[tokio::test]
async fn goodbyes_are_counted_at_both_ends_and_back_offs_while_they_hold() {
    let (mut near, mut far) = (Registry::default(), Registry::default());
    let (mut host, mut guest) = (swarm_of(counting(&mut near)), swarm_of(counting(&mut far)));
    let at = listening(&mut host).await;
    let host_peer = *host.local_peer_id();
    say_goodbye(&mut host, &mut guest, &at, trimmed()).await;
    assert_eq!(shown(&near, "said_total{code=\"trimmed\",outcome=\"heard\"}"), 1);
    assert_eq!(shown(&far, "heard_total{code=\"trimmed\"}"), 1);
    assert_eq!((shown(&near, "back_offs"), shown(&far, "back_offs")), (0, 1));

    let dial = || DialOpts::peer_id(host_peer).addresses(vec![at.clone()]).build();
    guest.dial(dial()).unwrap_err();
    guest.dial(dial()).unwrap_err();
    assert_eq!(shown(&far, "dials_denied_total"), 2);
    guest.behaviour_mut().goodbye.forgive(&host_peer);
    assert_eq!(shown(&far, "back_offs"), 0);

    // A code that has no name here, and a back-off that ends by itself: nothing happens when it does.
    let goodbye = Goodbye::new(Code::Other(4711)).with_retry_after(Duration::from_secs(1));
    say_goodbye(&mut host, &mut guest, &at, goodbye).await;
    assert_eq!(shown(&far, "heard_total{code=\"other\"}"), 1);
    while shown(&far, "back_offs") > 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(shown(&far, "heard_total{code=\"other\"}"), 1);
    // What a behaviour counted ends with it.
    drop(guest);
    let mut text = String::new();
    encode(&mut text, &far).unwrap();
    assert_eq!(text, "# EOF\n");
}

#[tokio::test]
async fn a_goodbye_that_is_not_understood_is_counted_as_that() {
    let mut registry = Registry::default();
    let mut host = swarm_of(counting(&mut registry));
    let mut guest = mute(Mute::Unable);
    let at = listening(&mut host).await;
    let (connection, _) = connected(&mut host, &mut guest, at).await;
    let peer = *guest.local_peer_id();
    host.behaviour_mut().goodbye.close(peer, connection, trimmed());
    assert_eq!(closed(&mut host, &mut guest).await, Said::Unsupported);
    let of = |outcome: &str| {
        shown(
            &registry,
            &format!("said_total{{code=\"trimmed\",outcome=\"{outcome}\"}}"),
        )
    };
    assert_eq!([of("heard"), of("unheard"), of("unsupported")], [0, 0, 1]);
}

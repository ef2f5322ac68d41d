//! Both ends in one process, and that process new: what a test of an application is.
#![cfg(feature = "tokio")]

#[cfg(test)]
mod tests {
    use futures::StreamExt as _;
    use libp2p::swarm::{Swarm, SwarmEvent, dummy};
    use libp2p::{Multiaddr, SwarmBuilder};
    use std::process::Command;
    use std::time::Duration;

    const CHILD: &str = "KNOCK_YOUNG_CHILD";

    fn swarm() -> Swarm<dummy::Behaviour> {
        SwarmBuilder::with_new_identity()
            .with_tokio()
            .with_other_transport(|key| Ok(libp2p_knock::tokio::Transport::new(libp2p_knock::Config::new(key)?)))
            .unwrap()
            .with_behaviour(|_| dummy::Behaviour)
            .unwrap()
            .build()
    }

    /// Nothing before it that takes time.
    async fn dial_at_once() {
        let (mut listening, mut dialling) = (swarm(), swarm());
        listening
            .listen_on("/ip4/127.0.0.1/tcp/0/tls".parse().unwrap())
            .unwrap();
        let address: Multiaddr = loop {
            if let SwarmEvent::NewListenAddr { address, .. } = listening.select_next_some().await {
                break address.with_p2p(*listening.local_peer_id()).unwrap();
            }
        };
        dialling.dial(address).unwrap();
        tokio::spawn(async move { while listening.next().await.is_some() {} });
        loop {
            match dialling.select_next_some().await {
                SwarmEvent::ConnectionEstablished { .. } => return,
                SwarmEvent::OutgoingConnectionError { error, .. } => panic!("{error}"),
                _ => {}
            }
        }
    }

    #[test]
    fn whoever_dials_in_the_first_millisecond_of_a_process_is_heard() {
        if std::env::var_os(CHILD).is_some() {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            return runtime.block_on(async {
                tokio::time::timeout(Duration::from_secs(60), dial_at_once())
                    .await
                    .unwrap()
            });
        }
        let this = std::env::current_exe().unwrap();
        for round in 0..40 {
            let child = Command::new(&this)
                .args(["--exact", NAME])
                .env(CHILD, "1")
                .output()
                .unwrap();
            assert!(
                child.status.success(),
                "round {round}: {}",
                String::from_utf8_lossy(&child.stdout)
            );
        }
    }

    const NAME: &str = "tests::whoever_dials_in_the_first_millisecond_of_a_process_is_heard";
}

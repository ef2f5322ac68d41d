//! What is told on standard output.

use crate::Listeners;
use crate::behaviour::{Behaviour, BehaviourEvent};
use crate::commands::text;
use libp2p::core::transport::TransportError;
use libp2p::request_response::{self, Message};
use libp2p::swarm::{DialError, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Swarm, autonat, gossipsub, identify, kad, ping, relay, rendezvous};
use libp2p_knock::Failure;
use serde_json::{Value, json};
use std::io;

/// Writes one event.
pub(crate) fn report(event: &Value) {
    // Rust's standard output flushes at every newline, into a pipe too.
    println!("{event}");
}

/// Reports what the swarm did, and does the wiring between behaviours that libp2p leaves to the application.
pub(crate) fn swarm_event(swarm: &mut Swarm<Behaviour>, listeners: &Listeners, event: SwarmEvent<BehaviourEvent>) {
    match event {
        SwarmEvent::Behaviour(event) => behaviour_event(swarm, event),
        SwarmEvent::NewListenAddr { listener_id, address } => report(&json!({
            "event": "listening",
            "by": listeners.name(listener_id),
            "address": address.to_string(),
        })),
        SwarmEvent::ConnectionEstablished {
            peer_id,
            endpoint,
            concurrent_dial_errors,
            ..
        } => report(&json!({
            "event": "connected",
            "peer": peer_id.to_string(),
            // Now, before what the peer says of itself adds to it: what kad made of the dial.
            "known": kad_addresses(swarm, peer_id),
            "as": if endpoint.is_dialer() { "dialer" } else { "listener" },
            "relayed": endpoint.is_relayed(),
            "address": endpoint.get_remote_address().to_string(),
            "local": match &endpoint {
                libp2p::core::ConnectedPoint::Listener { local_addr, .. } => Some(local_addr.to_string()),
                libp2p::core::ConnectedPoint::Dialer { .. } => None,
            },
            "failed": attempts(&concurrent_dial_errors.unwrap_or_default()),
        })),
        SwarmEvent::ConnectionClosed {
            peer_id,
            num_established,
            ..
        } => report(&json!({"event": "closed", "peer": peer_id.to_string(), "left": num_established})),
        SwarmEvent::OutgoingConnectionError { peer_id, error, .. } => {
            let attempts = match &error {
                DialError::Transport(errors) => attempts(errors),
                _ => Value::Null,
            };
            report(&json!({
                "event": "dial_failed",
                "peer": peer_id.map(|peer| peer.to_string()),
                "error": chain(&error),
                "attempts": attempts,
            }));
        }
        SwarmEvent::IncomingConnectionError {
            local_addr,
            send_back_addr,
            error,
            ..
        } => report(&json!({
            "event": "inbound_failed",
            "local": local_addr.to_string(),
            "address": send_back_addr.to_string(),
            "error": chain(&error),
        })),
        SwarmEvent::ListenerClosed {
            listener_id, reason, ..
        } => report(&json!({
            "event": "listener_closed",
            "by": listeners.name(listener_id),
            "error": reason.err().map(|error| chain(&error)),
        })),
        SwarmEvent::NewExternalAddrCandidate { address } => {
            report(&json!({"event": "external_candidate", "address": address.to_string()}));
        }
        SwarmEvent::ExternalAddrConfirmed { address } => {
            report(&json!({"event": "external_confirmed", "address": address.to_string()}));
        }
        _ => {}
    }
}

fn behaviour_event(swarm: &mut Swarm<Behaviour>, event: BehaviourEvent) {
    let told = match event {
        BehaviourEvent::Ping(ping::Event { peer, result, .. }) => json!({
            "event": "ping",
            "peer": peer.to_string(),
            "ok": result.is_ok(),
        }),
        BehaviourEvent::Identify(identify::Event::Received { peer_id, info, .. }) => {
            // As every application with both does: without it kad knows nobody who dialled us.
            if let Some(kad) = swarm.behaviour_mut().kad.as_mut() {
                for address in &info.listen_addrs {
                    kad.add_address(&peer_id, address.clone());
                }
            }
            json!({
                "event": "identified",
                "peer": peer_id.to_string(),
                "listen": strings(&info.listen_addrs),
                "observed": info.observed_addr.to_string(),
            })
        }
        BehaviourEvent::Kad(event) => return kad_event(event),
        BehaviourEvent::Gossipsub(gossipsub::Event::Message {
            propagation_source,
            message,
            ..
        }) => json!({
            "event": "message",
            "author": message.source.map(|peer| peer.to_string()),
            "through": propagation_source.to_string(),
            "text": String::from_utf8_lossy(&message.data),
        }),
        BehaviourEvent::Gossipsub(gossipsub::Event::Subscribed { peer_id, topic }) => {
            json!({"event": "subscribed", "peer": peer_id.to_string(), "topic": topic.to_string()})
        }
        BehaviourEvent::Echo(event) => return echo_event(swarm, event),
        BehaviourEvent::RendezvousServer(rendezvous::server::Event::PeerRegistered { peer, .. }) => {
            json!({"event": "registration", "peer": peer.to_string()})
        }
        BehaviourEvent::RendezvousClient(rendezvous::client::Event::Registered { rendezvous_node, .. }) => {
            json!({"event": "registered", "at": rendezvous_node.to_string()})
        }
        BehaviourEvent::RendezvousClient(rendezvous::client::Event::Discovered { registrations, .. }) => {
            let found = registrations.iter().map(|registration| {
                json!({
                    "peer": registration.record.peer_id().to_string(),
                    "addresses": strings(registration.record.addresses()),
                })
            });
            json!({"event": "discovered", "registrations": found.collect::<Vec<_>>()})
        }
        BehaviourEvent::AutonatClient(autonat::v2::client::Event {
            tested_addr,
            server,
            result,
            ..
        }) => json!({
            "event": "reachability",
            "address": tested_addr.to_string(),
            "by": server.to_string(),
            "error": result.err().map(|error| error.to_string()),
        }),
        BehaviourEvent::AutonatServer(autonat::v2::server::Event {
            tested_addr,
            client,
            result,
            ..
        }) => json!({
            "event": "dialled_back",
            "address": tested_addr.to_string(),
            "peer": client.to_string(),
            "error": result.err().map(|error| error.to_string()),
        }),
        BehaviourEvent::RelayClient(relay::client::Event::ReservationReqAccepted { relay_peer_id, .. }) => {
            json!({"event": "reserved", "relay": relay_peer_id.to_string()})
        }
        BehaviourEvent::Relay(relay::Event::CircuitReqAccepted {
            src_peer_id,
            dst_peer_id,
        }) => json!({"event": "circuit", "from": src_peer_id.to_string(), "to": dst_peer_id.to_string()}),
        // The rest is for whoever has to find out why a test failed.
        other => json!({"event": "other", "what": format!("{other:?}")}),
    };
    report(&told);
}

fn kad_event(event: kad::Event) {
    report(&match event {
        kad::Event::RoutingUpdated { peer, addresses, .. } => json!({
            "event": "kad_routing",
            "peer": peer.to_string(),
            "addresses": addresses.iter().map(Multiaddr::to_string).collect::<Vec<_>>(),
        }),
        kad::Event::InboundRequest {
            request: kad::InboundRequest::PutRecord { source, .. },
        } => json!({"event": "kad_stored", "for": source.to_string()}),
        kad::Event::OutboundQueryProgressed { result, step, .. } => match result {
            kad::QueryResult::PutRecord(result) => json!({
                "event": "kad_put",
                "error": result.err().map(|error| chain(&error)),
            }),
            kad::QueryResult::GetRecord(Ok(kad::GetRecordOk::FoundRecord(found))) => json!({
                "event": "kad_found",
                "at": found.peer.map(|peer| peer.to_string()),
                "value": String::from_utf8_lossy(&found.record.value),
            }),
            kad::QueryResult::GetRecord(Err(error)) => json!({"event": "kad_not_found", "error": chain(&error)}),
            kad::QueryResult::Bootstrap(result) if step.last => json!({
                "event": "kad_joined",
                "error": result.err().map(|error| chain(&error)),
            }),
            _ => return,
        },
        _ => return,
    });
}

fn echo_event(swarm: &mut Swarm<Behaviour>, event: request_response::Event<String, String>) {
    match event {
        request_response::Event::Message { peer, message, .. } => match message {
            Message::Request { request, channel, .. } => {
                report(&received("request", &peer, &peer, &request));
                if let Some(echo) = swarm.behaviour_mut().echo.as_mut() {
                    // Fails when the asker has gone, which its own events tell.
                    let _ = echo.send_response(channel, request);
                }
            }
            Message::Response { response, .. } => {
                report(&received("response", &peer, swarm.local_peer_id(), &response));
            }
        },
        request_response::Event::OutboundFailure { peer, error, .. } => {
            report(&json!({"event": "request_failed", "peer": peer.to_string(), "error": error.to_string()}));
        }
        _ => {}
    }
}

fn received(event: &str, from: &PeerId, author: &PeerId, body: &str) -> Value {
    let intact = body == text(author, body.len());
    json!({"event": event, "peer": from.to_string(), "bytes": body.len(), "intact": intact})
}

/// Why a `listen_on` was refused.
pub(crate) fn listen_failure(address: &Multiaddr, error: &TransportError<io::Error>) -> Value {
    let mut told = attempt(address, error);
    told["event"] = "listen_failed".into();
    told
}

fn attempts(errors: &[(Multiaddr, TransportError<io::Error>)]) -> Value {
    errors.iter().map(|(address, error)| attempt(address, error)).collect()
}

fn attempt(address: &Multiaddr, error: &TransportError<io::Error>) -> Value {
    // The name of the variant, which is what a test asks for.
    let knock = Failure::find(error).map(|error| {
        let shown = format!("{error:?}");
        let name = shown.split(|c: char| !c.is_alphanumeric()).next();
        name.unwrap_or_default().to_owned()
    });
    json!({
        "address": address.to_string(),
        "unsupported": matches!(error, TransportError::MultiaddrNotSupported(_)),
        "knock": knock,
        "error": chain(error),
    })
}

/// The addresses of a peer in the routing table.
fn kad_addresses(swarm: &mut Swarm<Behaviour>, peer: PeerId) -> Vec<String> {
    let Some(kad) = swarm.behaviour_mut().kad.as_mut() else {
        return Vec::new();
    };
    let key = kad::KBucketKey::from(peer);
    let Some(bucket) = kad.kbucket(peer) else {
        return Vec::new();
    };
    let entry = bucket.iter().find(|entry| *entry.node.key == key);
    entry.map_or_else(Vec::new, |entry| {
        entry.node.value.iter().map(Multiaddr::to_string).collect()
    })
}

fn strings(addresses: &[Multiaddr]) -> Vec<String> {
    addresses.iter().map(Multiaddr::to_string).collect()
}

/// An error with what is below it, in one line.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut all = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        all.push_str(&format!(": {error}"));
        next = error.source();
    }
    all
}

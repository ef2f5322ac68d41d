//! The task that drives one swarm: commands in, events out.

use crate::explain;
use crate::inbox::Inbox;
use crate::link::{Answer, Asked, Command, Event, Link};
use crate::swarm::{Behaviour, BehaviourEvent, topic};
use crate::transfer::{self, Error, Offer, Request, Response};
use futures::StreamExt as _;
use libp2p::request_response::{self, Message, OutboundRequestId};
use libp2p::swarm::{DialError, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Swarm, gossipsub, identify, ping};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot, watch};

/// Drives `swarm` until the runtime ends.
pub(crate) fn spawn(swarm: Swarm<Behaviour>, inbox: Inbox) -> (Link, mpsc::Receiver<Event>) {
    let (link, ends, events) = Link::new();
    let node = Node {
        swarm,
        link: link.clone(),
        inbox: Arc::new(inbox),
        peers: ends.peers,
        asked: HashMap::new(),
        serving: HashMap::new(),
    };
    tokio::spawn(node.drive(ends.commands));
    (link, events)
}

struct Node {
    swarm: Swarm<Behaviour>,
    link: Link,
    inbox: Arc<Inbox>,
    peers: watch::Sender<BTreeMap<PeerId, Multiaddr>>,
    /// Requests of ours without an answer yet.
    asked: HashMap<OutboundRequestId, oneshot::Sender<Result<Response, Error>>>,
    /// Who answers for the files that we have offered.
    serving: HashMap<(PeerId, u64), mpsc::Sender<Asked>>,
}

impl Node {
    async fn drive(mut self, mut commands: mpsc::UnboundedReceiver<Command>) {
        loop {
            let event = tokio::select! {
                Some(command) = commands.recv() => self.obey(command),
                event = self.swarm.select_next_some() => self.interpret(event),
            };
            if let Some(event) = event {
                self.link.emit(event).await;
            }
        }
    }

    fn obey(&mut self, command: Command) -> Option<Event> {
        match command {
            Command::Listen(address) => {
                let error = self.swarm.listen_on(address.clone()).err()?;
                let why = explain::transport(&error);
                return Some(Event::NotListening { address, why });
            }
            Command::Dial(address) => {
                let error = self.swarm.dial(address).err()?;
                let why = explain::dial(&error);
                return Some(Event::DialFailed { why });
            }
            Command::Say(text) => {
                let error = self.swarm.behaviour_mut().gossip.publish(topic(), text).err()?;
                let why = explain::publish(&error);
                return Some(Event::NotSaid { why });
            }
            Command::Ask(peer, request, reply) => {
                let id = self.swarm.behaviour_mut().transfer.send_request(&peer, request);
                self.asked.insert(id, reply);
            }
            Command::Answer(channel, response) => {
                // Fails when the connection is gone, which whoever asked has noticed.
                let _ = self.swarm.behaviour_mut().transfer.send_response(channel, response);
            }
            Command::Serve(peer, id, questions) => {
                self.serving.retain(|_, questions| !questions.is_closed());
                self.serving.insert((peer, id), questions);
            }
        }
        None
    }

    fn interpret(&mut self, event: SwarmEvent<BehaviourEvent>) -> Option<Event> {
        match event {
            SwarmEvent::NewListenAddr { address, .. } => Some(Event::Listening(address)),
            SwarmEvent::ConnectionEstablished {
                peer_id: peer,
                endpoint,
                ..
            } => {
                let (address, dialled) = (endpoint.get_remote_address().clone(), endpoint.is_dialer());
                self.peers
                    .send_modify(|peers| drop(peers.insert(peer, address.clone())));
                Some(Event::Connected { peer, address, dialled })
            }
            SwarmEvent::ConnectionClosed {
                peer_id: peer,
                num_established: 0,
                cause,
                ..
            } => {
                self.peers.send_modify(|peers| drop(peers.remove(&peer)));
                // Who was fetching a file from us will not come back for it.
                self.serving.retain(|(fetching, _), _| *fetching != peer);
                let why = cause.as_ref().and_then(explain::disconnect);
                Some(Event::Disconnected { peer, why })
            }
            // Not a dial of ours: something was to be sent to somebody who has just gone, which its sender is told.
            SwarmEvent::OutgoingConnectionError {
                error: DialError::NoAddresses,
                ..
            } => None,
            SwarmEvent::OutgoingConnectionError { error, .. } => {
                let why = explain::dial(&error);
                Some(Event::DialFailed { why })
            }
            SwarmEvent::Behaviour(BehaviourEvent::Ping(ping::Event {
                peer, result: Ok(rtt), ..
            })) => Some(Event::Pinged { peer, rtt }),
            SwarmEvent::Behaviour(BehaviourEvent::Identify(identify::Event::Received {
                peer_id: peer, info, ..
            })) => {
                let (agent, addresses) = (info.agent_version, info.listen_addrs);
                Some(Event::Identified { peer, agent, addresses })
            }
            SwarmEvent::Behaviour(BehaviourEvent::Gossip(gossipsub::Event::Subscribed { peer_id, .. })) => {
                Some(Event::Subscribed(peer_id))
            }
            SwarmEvent::Behaviour(BehaviourEvent::Gossip(gossipsub::Event::Message { message, .. })) => {
                let text = String::from_utf8_lossy(&message.data).into_owned();
                Some(Event::Chat {
                    from: message.source?,
                    text,
                })
            }
            SwarmEvent::Behaviour(BehaviourEvent::Transfer(event)) => {
                self.transfer(event);
                None
            }
            _ => None,
        }
    }

    fn transfer(&mut self, event: request_response::Event<Request, Response>) {
        match event {
            request_response::Event::Message {
                peer,
                message: Message::Request { request, channel, .. },
                ..
            } => {
                self.asked_by(peer, request, Answer::new(channel, &self.link));
            }
            request_response::Event::Message {
                message: Message::Response { request_id, response },
                ..
            } => {
                if let Some(reply) = self.asked.remove(&request_id) {
                    let _ = reply.send(Ok(response));
                }
            }
            request_response::Event::OutboundFailure { request_id, error, .. } => {
                if let Some(reply) = self.asked.remove(&request_id) {
                    let _ = reply.send(Err(Error::Request(error)));
                }
            }
            request_response::Event::InboundFailure { .. } | request_response::Event::ResponseSent { .. } => {}
        }
    }

    fn asked_by(&self, peer: PeerId, request: Request, answer: Answer) {
        match request {
            Request::Offer(offer) => {
                tokio::spawn(offered(self.link.clone(), self.inbox.clone(), peer, offer, answer));
            }
            Request::Chunk { id, .. } | Request::Done { id, .. } => {
                let Some(questions) = self.serving.get(&(peer, id)) else {
                    return answer.send(Response::No("nothing is offered under this number".into()));
                };
                if let Err(refused) = questions.try_send(Asked { request, answer }) {
                    refused.into_inner().answer.send(Response::No("not now".into()));
                }
            }
        }
    }
}

/// Every file that is offered and small enough is welcome.
async fn offered(link: Link, inbox: Arc<Inbox>, peer: PeerId, offer: Offer, answer: Answer) {
    let result = match inbox.admit(offer.size) {
        Ok(_slot) => {
            answer.send(Response::Yes);
            link.emit(Event::Offered {
                peer,
                offer: offer.clone(),
            })
            .await;
            transfer::receive(&link, peer, &offer, &inbox).await
        }
        Err(error) => {
            answer.send(Response::No(error.to_string()));
            Err(error)
        }
    };
    let Offer { id, name, .. } = offer;
    link.emit(Event::Received { peer, id, name, result }).await;
}

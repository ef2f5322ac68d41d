//! What the user types, and what the user gets to see.

use super::bars::Bars;
use crate::explain;
use crate::link::{Event, Link, Way};
use crate::swarm::short;
use crate::term::{self, printable};
use crate::transfer;
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};
use std::collections::HashMap;
use std::io;
use std::ops::ControlFlow;
use std::path::Path;

const HELP: &str = concat!(
    "  any other line   goes to everybody who is connected\n",
    "  /send FILE       sends a file to everybody who is connected\n",
    "  /send PEER FILE  sends a file to one peer: the last letters of its id\n",
    "  /dial ADDR       connects to /ip4/…/tcp/…/tls/p2p/…\n",
    "  /peers           who is connected\n",
    "  /quit            ends the program, as does Ctrl-C",
);

/// What is known of a peer beyond its address.
#[derive(Debug, Default)]
struct Known {
    agent: Option<String>,
    rtt: Option<std::time::Duration>,
}

#[derive(Debug)]
pub(super) struct Chat {
    us: PeerId,
    link: Link,
    known: HashMap<PeerId, Known>,
    bars: Bars,
}

impl Chat {
    pub(super) fn new(us: PeerId, link: Link) -> Self {
        let (known, bars) = (HashMap::new(), Bars::new());
        Self { us, link, known, bars }
    }

    pub(super) fn line(&mut self, text: &str) -> io::Result<()> {
        self.bars.line(text)
    }

    /// To be called about once a second.
    pub(super) fn tick(&mut self) {
        self.bars.tick();
    }

    pub(super) fn show(&mut self, event: Event) -> io::Result<()> {
        match event {
            Event::Listening(address) => self.line(&format!("* listening on {address}")),
            Event::NotListening { address, why } => self.line(&format!("! cannot listen on {address}: {why}")),
            Event::Connected {
                peer,
                mut address,
                dialled,
            } => {
                self.known.entry(peer).or_default();
                if matches!(address.iter().last(), Some(Protocol::P2p(_))) {
                    address.pop();
                }
                let way = if dialled { "to" } else { "from" };
                self.line(&format!("+ {} connected, {way} {address}", short(&peer)))
            }
            Event::Disconnected { peer, why } => {
                self.known.remove(&peer);
                let why = why.map(|why| format!(": {}", printable(&why)));
                self.line(&format!("- {} disconnected{}", short(&peer), why.unwrap_or_default()))
            }
            Event::DialFailed { why } => self.line(&format!("! cannot connect: {}", printable(&why))),
            Event::Pinged { peer, rtt } => {
                if let Some(known) = self.known.get_mut(&peer) {
                    known.rtt = Some(rtt);
                }
                Ok(())
            }
            Event::Identified { peer, agent, .. } => {
                if let Some(known) = self.known.get_mut(&peer) {
                    known.agent = Some(printable(&agent));
                }
                Ok(())
            }
            Event::Subscribed(_) => Ok(()),
            Event::Chat { from, text } => self.line(&format!("{}: {}", short(&from), printable(&text))),
            Event::NotSaid { why } => self.line(&format!("! not sent: {why}")),
            Event::Offered { peer, offer } => {
                let name = printable(&offer.name);
                self.bars.put((Way::In, peer, offer.id), "", &name, offer.size);
                self.line(&format!("* {} sends {name}, {}", short(&peer), term::size(offer.size)))
            }
            Event::Sending {
                peer,
                id,
                name,
                size,
                hashing,
            } => {
                let name = printable(&name);
                self.bars
                    .put((Way::Out, peer, id), if hashing { "reading " } else { "" }, &name, size);
                if hashing {
                    return Ok(());
                }
                self.line(&format!("* sending {name} to {}, {}", short(&peer), term::size(size)))
            }
            Event::Progress { peer, id, way, done } => {
                self.bars.moved(&(way, peer, id), done);
                Ok(())
            }
            Event::Received { peer, id, name, result } => {
                self.bars.remove(&(Way::In, peer, id));
                self.line(&match result {
                    Ok(file) => format!(
                        "* received {} from {}, {}\n  SHA-256 {}",
                        file.path.display(),
                        short(&peer),
                        term::size(file.size),
                        transfer::hex(&file.sha256)
                    ),
                    Err(error) => {
                        let (name, error) = (printable(&name), printable(&error.to_string()));
                        format!("! {name} from {} not received: {error}", short(&peer))
                    }
                })
            }
            Event::Sent { peer, id, name, result } => {
                let name = printable(&name);
                self.bars.remove(&(Way::Out, peer, id));
                self.line(&match result {
                    Ok((size, hash)) => {
                        let (size, hash) = (term::size(size), transfer::hex(&hash));
                        format!("* sent {name} to {}, {size}\n  SHA-256 {hash}", short(&peer))
                    }
                    Err(error) => format!(
                        "! {name} not sent to {}: {}",
                        short(&peer),
                        printable(&error.to_string())
                    ),
                })
            }
        }
    }

    pub(super) fn typed(&mut self, line: &str) -> io::Result<ControlFlow<()>> {
        let line = line.trim();
        self.bars.entered();
        let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let rest = rest.trim();
        match word {
            "" => {}
            "/quit" | "/exit" => return Ok(ControlFlow::Break(())),
            "/help" => self.line(HELP)?,
            "/peers" => self.peers()?,
            "/dial" => self.dial(rest)?,
            "/send" => self.send(rest)?,
            _ if word.starts_with('/') => self.line(&format!("! there is no {word}, see /help"))?,
            _ => self.link.say(line),
        }
        Ok(ControlFlow::Continue(()))
    }

    fn peers(&mut self) -> io::Result<()> {
        let peers = self.link.peers();
        if peers.is_empty() {
            return self.line("nobody is connected");
        }
        let mut lines = Vec::new();
        for (peer, mut address) in peers {
            if matches!(address.iter().last(), Some(Protocol::P2p(_))) {
                address.pop();
            }
            let known = self.known.get(&peer);
            let agent = known.and_then(|known| known.agent.as_deref()).unwrap_or_default();
            let rtt = known
                .and_then(|known| known.rtt)
                .map(term::duration)
                .unwrap_or_default();
            lines.push(format!("  {peer}  {rtt}").trim_end().to_owned());
            lines.push(format!("    {address}  {agent}").trim_end().to_owned());
        }
        self.line(&lines.join("\n"))
    }

    fn dial(&mut self, address: &str) -> io::Result<()> {
        match address.parse::<Multiaddr>() {
            Err(error) => self.line(&format!("! this is no multiaddr: {error}")),
            Ok(address) => match explain::undiallable(&address, &self.us) {
                Some(wrong) => self.line(&format!("! {wrong}")),
                None => {
                    self.link.dial(address);
                    Ok(())
                }
            },
        }
    }

    fn send(&mut self, rest: &str) -> io::Result<()> {
        let everybody: Vec<PeerId> = self.link.peers().into_keys().collect();
        let (to, path) = match addressee(rest, &everybody) {
            Ok(found) => found,
            Err(why) => return self.line(&format!("! {why}")),
        };
        let path = Path::new(path);
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
        for peer in to {
            let (link, path, name) = (self.link.clone(), path.to_owned(), name.clone().into_owned());
            tokio::spawn(async move {
                let id = link.number();
                let result = transfer::send(&link, peer, id, &path).await;
                link.emit(Event::Sent { peer, id, name, result }).await;
            });
        }
        Ok(())
    }
}

/// Who is to get which file, from what follows `/send`.
fn addressee<'a>(rest: &'a str, everybody: &[PeerId]) -> Result<(Vec<PeerId>, &'a str), String> {
    /// Fewer letters than this are more likely the start of a file name.
    const LETTERS: usize = 4;
    if rest.is_empty() {
        return Err("which file? /send FILE, or /send PEER FILE".into());
    }
    if everybody.is_empty() {
        return Err("nobody is connected yet".into());
    }
    if let Some((first, file)) = rest.split_once(char::is_whitespace)
        && first.len() >= LETTERS
    {
        let named = everybody.iter().filter(|peer| peer.to_string().ends_with(first));
        match named.copied().collect::<Vec<_>>() {
            none if none.is_empty() => {}
            one if one.len() == 1 => return Ok((one, file.trim())),
            several => return Err(format!("{first} names {} peers, give more letters", several.len())),
        }
    }
    Ok((everybody.to_vec(), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_goes_to_one_peer_or_to_all() {
        let (a, b) = (PeerId::random(), PeerId::random());
        let all = [a, b];
        assert_eq!(addressee("my file.txt", &all), Ok((vec![a, b], "my file.txt")));
        let one = format!("{} my file.txt", short(&a));
        assert_eq!(addressee(&one, &all), Ok((vec![a], "my file.txt")));
        let whole = format!("{b}  x");
        assert_eq!(addressee(&whole, &all), Ok((vec![b], "x")));
        assert!(addressee("", &all).is_err());
        assert!(addressee("x", &[]).is_err());
        assert!(addressee(&one, &[a, a]).is_err());
    }
}

//! Which formats of lists there are, and how one is told from another.

use super::line::{self, Entry};

/// How a list of networks is written.
///
/// | format | in a file of rules | what has it | an entry |
/// | --- | --- | --- | --- |
/// | `Plain` | `plain` | FireHOL netsets and ipsets, Spamhaus DROP as text, Kubo's filters one a line, lists of ranges | `192.0.2.0/24`, `192.0.2.7`, `192.0.2.0-192.0.2.255`, `/ip4/192.0.2.0/ipcidr/24`; comments from `#` or `;` |
/// | `JsonLines` | `json-lines` | Spamhaus DROP as JSON | `{"cidr":"192.0.2.0/24",…}`; one of `"type":"metadata"` is no network |
/// | `Kubo` | `kubo` | a configuration of Kubo, or `ipfs config Swarm.AddrFilters` | `Swarm.AddrFilters`, or an array of strings |
/// | `PeerGuardian` | `p2p` | PeerGuardian, as text | `name:192.0.2.0-192.0.2.255`, IPv4 alone; the name may hold colons |
/// | `Emule` | `emule` | eMule's `ipfilter.dat` | `192.000.002.000 - 192.000.002.255 , 100 , name`; up to level 127 it is blocked, above it is no entry |
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ListFormat {
    /// A network, an address or a range on each line.
    Plain,
    /// A JSON object with a `cidr` on each line.
    JsonLines,
    /// A JSON document with `Swarm.AddrFilters`.
    Kubo,
    /// A name, a colon and a range on each line.
    PeerGuardian,
    /// A range, a comma and an access level on each line.
    Emule,
}

impl ListFormat {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Plain,
        Self::JsonLines,
        Self::Kubo,
        Self::PeerGuardian,
        Self::Emule,
    ];

    /// In lower case, for files of rules.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::JsonLines => "json-lines",
            Self::Kubo => "kubo",
            Self::PeerGuardian => "p2p",
            Self::Emule => "emule",
        }
    }

    /// The format of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.name() == name)
    }

    /// Which format something has that begins like this. JSON is told by its first byte; of the
    /// others it is the one in which most of the lines are entries, in the order of [`Self::ALL`].
    /// What is cut off in its last line may be told by the lines before it.
    pub fn detect(beginning: &[u8]) -> Self {
        let beginning = beginning.strip_prefix(super::read::BOM).unwrap_or(beginning);
        let text = beginning.trim_ascii_start();
        let first = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let has = |key: &[u8]| first.windows(key.len()).any(|window| window == key);
        match text.first() {
            Some(b'{') if has(b"\"cidr\"") || has(b"\"metadata\"") || has(b"\"asn\"") => return Self::JsonLines,
            Some(b'{' | b'[') => return Self::Kubo,
            _ => {}
        }
        let mut best = (Self::Plain, 0);
        for format in [Self::Plain, Self::PeerGuardian, Self::Emule] {
            let lines = text.split(|byte| *byte == b'\n');
            let entries = lines.filter(|line| !matches!(line::entry(format, line), None | Some(Entry::Nothing)));
            let entries = entries.count();
            if entries > best.1 {
                best = (format, entries);
            }
        }
        best.0
    }
}

impl std::fmt::Display for ListFormat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

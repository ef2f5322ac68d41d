//! Named lists of networks, as others publish them: each is replaced as a whole.

mod error;
mod format;
mod json;
mod line;
mod read;

pub use error::ListError;
pub use format::ListFormat;

use super::cidr::Cidr;
use super::networks::{ByFamily, Networks, Value};
use super::print::Print;
use super::sets::Standing;
use std::fmt;
use std::io::Read;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A list of networks: for [`Change::list`](crate::Change::list). A clone is the same list.
///
/// ```
/// use libp2p_gater::{Cidr, ListFormat, NetworkList, RuleError, Rules, Standing};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // Spamhaus DROP, as text. The format is told from the content, or given.
/// let drop = NetworkList::read(&b"192.0.2.0/24 ; SBL000001\n198.51.100.0/25 ; SBL000002\n"[..], None)?;
/// assert_eq!((drop.len(), drop.format()), (2, Some(ListFormat::Plain)));
///
/// let rules = Rules::new();
/// rules.change(|change| change.list("drop", Standing::Blocked, drop))?;
/// // From a file, in one step; again for what the file says by then.
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("level1.netset");
/// # std::fs::write(&path, "203.0.113.64/26\n")?;
/// rules.import("level1", Standing::Blocked, &path, None)?;
/// for (name, result) in rules.reload_lists() {
///     println!("{name}: {} networks", result?);
/// }
/// # Ok(()) }
/// ```
///
/// One network takes 8 bytes, in IPv6 32 to 80, and a list some 400 kB besides. A million lines take
/// about a second to read.
#[derive(Clone)]
pub struct NetworkList(Arc<Inner>);

#[derive(Clone, Default)]
struct Inner {
    networks: Networks<Member>,
    /// Entries that are no network to be listed.
    passed_over: usize,
    format: Option<ListFormat>,
    source: Option<Source>,
}

/// The file that a list is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Source {
    /// Absolute.
    pub(super) path: PathBuf,
    /// As it stands in a file of rules.
    pub(super) written: String,
    /// What it is to be read as; `None` if its content says so.
    pub(super) format: Option<ListFormat>,
    /// What it said; `None` if it has not been read.
    pub(super) print: Option<Print>,
}

/// What stands at each network: nothing but that it is there.
#[derive(Clone, PartialEq, Default)]
struct Member;

impl Value for Member {
    fn usual() -> Self {
        Self
    }
}

impl NetworkList {
    /// What `input` says, read to its end. With `None` the format is told from its first 64 KiB
    /// ([`ListFormat::detect`]).
    ///
    /// A range from a first to a last address becomes the fewest networks that hold it. While it is
    /// read, a network takes up to 32 bytes, in IPv6 up to 100: the longest lists 150 and 450 MB.
    ///
    /// # Errors
    ///
    /// [`ListError`], with the line. The first entry that cannot be understood is one: half a block
    /// list is none. So is a list without a single network, as a failed download leaves it.
    pub fn read(input: impl Read, format: impl Into<Option<ListFormat>>) -> Result<Self, ListError> {
        let content = read::read(input, format.into())?;
        let mut inner = Inner {
            networks: Networks::default(),
            passed_over: content.passed_over,
            format: Some(content.format),
            source: None,
        };
        inner.put(content.networks);
        Ok(Self(Arc::new(inner)))
    }

    /// What `source` says.
    pub(super) fn from_source(input: impl Read, mut source: Source) -> Result<Self, ListError> {
        let content = read::read(input, source.format)?;
        source.print = Some(content.print);
        let mut inner = Inner {
            networks: Networks::default(),
            passed_over: content.passed_over,
            format: Some(content.format),
            source: Some(source),
        };
        inner.put(content.networks);
        Ok(Self(Arc::new(inner)))
    }

    /// A list of which nothing is read.
    pub(super) fn unread(source: Source) -> Self {
        Self(Arc::new(Inner {
            source: Some(source),
            ..Inner::default()
        }))
    }

    /// How many different networks are in it.
    pub fn len(&self) -> usize {
        self.0.networks.len()
    }

    /// Whether no network is in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The networks, in no order.
    pub fn iter(&self) -> impl Iterator<Item = Cidr> {
        self.0.networks.iter().map(|(network, _)| network)
    }

    /// The narrowest network of the list that `ip` is in. A mapped address is the IPv4 address.
    pub fn around(&self, ip: IpAddr) -> Option<Cidr> {
        let mut found = None;
        self.0.networks.around(ip.to_canonical(), |network, _| {
            found = found.or(Some(network));
        });
        found
    }

    /// As what it was read; `None` if it was not.
    pub fn format(&self) -> Option<ListFormat> {
        self.0.format
    }

    /// The file that it was read from, as an absolute path.
    pub fn path(&self) -> Option<&Path> {
        self.0.source.as_ref().map(|source| &*source.path)
    }

    /// How many entries of what was read are none to be listed: metadata, and what a list of eMule's
    /// has an access level above 127 for.
    pub fn passed_over(&self) -> usize {
        self.0.passed_over
    }

    pub(super) fn source(&self) -> Option<&Source> {
        self.0.source.as_ref()
    }
}

impl Inner {
    fn put(&mut self, networks: ByFamily<()>) {
        self.networks.apply(networks, |_, ()| Some(Member));
    }
}

impl FromIterator<Cidr> for NetworkList {
    fn from_iter<I: IntoIterator<Item = Cidr>>(networks: I) -> Self {
        let mut inner = Inner::default();
        inner.put(networks.into_iter().map(|network| (network, ())).collect());
        Self(Arc::new(inner))
    }
}

impl fmt::Debug for NetworkList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NetworkList")
            .field("networks", &self.len())
            .field("format", &self.format())
            .field("path", &self.path())
            .finish_non_exhaustive()
    }
}

/// A list as the rules have it.
#[derive(Clone)]
pub(super) struct NamedList {
    pub(super) name: String,
    pub(super) standing: Standing,
    pub(super) list: NetworkList,
}

/// As a line of the rules' file.
impl fmt::Display for NamedList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, standing, list } = self;
        match list.source() {
            None => write!(f, "list {name} {}", standing.name()),
            Some(source) => write!(f, "{}", self.line(source, &source.written)),
        }
    }
}

impl NamedList {
    /// The line of a file of rules in the directory `base`.
    pub(super) fn line_in(&self, base: &Path) -> String {
        match self.list.source() {
            // It may have been read by a file elsewhere, in which the same words mean another file.
            Some(source) if absolute(&base.join(&source.written)) != source.path => {
                self.line(source, &source.path.display().to_string())
            }
            _ => self.to_string(),
        }
    }

    fn line(&self, source: &Source, path: &str) -> String {
        let format = source.format.map_or(DETECT, ListFormat::name);
        format!("import {} {} {format} {path}", self.name, self.standing.name())
    }
}

/// In place of a format, that which the content has.
pub(super) const DETECT: &str = "detect";

/// From the root of the file system. Where there is none, as it is.
pub(super) fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

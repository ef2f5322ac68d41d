//! A range of IP addresses, written as people write it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A range of IP addresses that share their first bits: `192.0.2.0/24`, `2001:db8::/32`.
///
/// IPv4-mapped IPv6 is IPv4: `::ffff:192.0.2.0/120` is `192.0.2.0/24`. Other IPv6 ranges hold no IPv4 address, `::/0`
/// included.
///
/// ```
/// use libp2p_gater::{Cidr, CidrError};
///
/// let range: Cidr = "192.0.2.0/24".parse()?;
/// assert!(range.contains("::ffff:192.0.2.7".parse().unwrap()));
/// // A typing error, more often than not.
/// assert_eq!("192.0.2.7/24".parse::<Cidr>(), Err(CidrError::HostBits { meant: range }));
/// # Ok::<(), CidrError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cidr {
    first: IpAddr,
    length: u8,
}

/// Why something is no [`Cidr`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CidrError {
    /// What stands before the slash is no IP address.
    #[error("expected a network such as 192.0.2.0/24")]
    Address,
    /// A multiaddr that is no filter of Kubo's.
    #[error("expected a filter such as /ip4/192.0.2.0/ipcidr/24")]
    Filter,
    /// What stands behind the slash is no number, or too high a number.
    #[error("expected a prefix length from 0 to {at_most}")]
    Length {
        /// 32 or 128.
        at_most: u8,
    },
    /// The address has bits behind the prefix.
    #[error("bits are set behind the prefix: expected {meant}")]
    HostBits {
        /// The range that the address is in.
        meant: Cidr,
    },
    /// The first address stands behind the last.
    #[error("{first} is above {last}: expected the lower address first")]
    Order {
        /// The first.
        first: IpAddr,
        /// The last.
        last: IpAddr,
    },
    /// One end is IPv4, the other is IPv6.
    #[error("{first} and {last}: expected two addresses of one family")]
    Families {
        /// The first.
        first: IpAddr,
        /// The last.
        last: IpAddr,
    },
}

impl Cidr {
    /// The range of `length` bits that begins with `first`.
    ///
    /// # Errors
    ///
    /// [`CidrError::Length`] beyond 32 or 128; [`CidrError::HostBits`] if `first` is not the first of its range.
    pub fn new(first: IpAddr, length: u8) -> Result<Self, CidrError> {
        let meant = Self::around(first, length)?;
        // Of a mapped address that is now IPv4, the bits before the last 32 are in order whatever the length was.
        if meant.first != first.to_canonical() {
            return Err(CidrError::HostBits { meant });
        }
        Ok(meant)
    }

    /// The range of `length` bits that `ip` is in.
    ///
    /// # Errors
    ///
    /// [`CidrError::Length`] beyond 32 or 128.
    pub fn around(ip: IpAddr, length: u8) -> Result<Self, CidrError> {
        let at_most = if ip.is_ipv4() { 32 } else { 128 };
        if length > at_most {
            return Err(CidrError::Length { at_most });
        }
        Ok(match (ip, ip.to_canonical()) {
            (IpAddr::V6(_), IpAddr::V4(mapped)) if length >= 96 => Self::v4(mapped, length - 96),
            (IpAddr::V6(ip), _) => Self {
                first: Ipv6Addr::from_bits(ip.to_bits() & mask_128(length)).into(),
                length,
            },
            (IpAddr::V4(ip), _) => Self::v4(ip, length),
        })
    }

    /// The fewest ranges that hold every address from `first` to `last`, both included, and no
    /// other; in their order. At most 62 of IPv4 and 254 of IPv6.
    ///
    /// ```
    /// use libp2p_gater::Cidr;
    /// use std::net::IpAddr;
    ///
    /// let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    /// let ranges = Cidr::covering(ip("192.0.2.0"), ip("192.0.2.130"))?;
    /// let ranges: Vec<String> = ranges.map(|range| range.to_string()).collect();
    /// assert_eq!(ranges, ["192.0.2.0/25", "192.0.2.128/31", "192.0.2.130/32"]);
    /// # Ok::<(), libp2p_gater::CidrError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`CidrError::Order`] if `first` stands behind `last`, [`CidrError::Families`] for IPv4 and
    /// IPv6.
    pub fn covering(first: IpAddr, last: IpAddr) -> Result<impl Iterator<Item = Self> + use<>, CidrError> {
        let (first, last) = (first.to_canonical(), last.to_canonical());
        let (bits, from, to) = match (first, last) {
            (IpAddr::V4(first), IpAddr::V4(last)) => (32, first.to_bits().into(), last.to_bits().into()),
            (IpAddr::V6(first), IpAddr::V6(last)) => (128, first.to_bits(), last.to_bits()),
            _ => return Err(CidrError::Families { first, last }),
        };
        if from > to {
            return Err(CidrError::Order { first, last });
        }
        let mut next = Some(from);
        let all = std::iter::from_fn(move || {
            let from: u128 = next?;
            // As wide as its first bits and what is left allow.
            let aligned = from.trailing_zeros().min(bits);
            let left = (to - from).checked_add(1).map_or(bits, u128::ilog2);
            let free = aligned.min(left);
            let size = 1_u128.checked_shl(free);
            next = size.and_then(|size| from.checked_add(size)).filter(|next| *next <= to);
            Some(Self::of_bits(bits, from, u8::try_from(bits - free).ok()?))
        });
        // Of the mapped addresses inside a range of IPv6 no connection has any: they are IPv4.
        Ok(all.filter(|range| range.length < 96 || range.first.to_canonical() == range.first))
    }

    fn of_bits(bits: u32, first: u128, length: u8) -> Self {
        match u32::try_from(first) {
            Ok(first) if bits == 32 => Self::of_v4(first, length),
            _ => Self::of_v6(first, length),
        }
    }

    fn v4(ip: Ipv4Addr, length: u8) -> Self {
        Self {
            first: Ipv4Addr::from_bits(ip.to_bits() & mask_32(length)).into(),
            length,
        }
    }

    /// Of bits that are those of a range.
    pub(super) const fn of_v4(first: u32, length: u8) -> Self {
        let first = IpAddr::V4(Ipv4Addr::from_bits(first));
        Self { first, length }
    }

    /// The same of IPv6 that is not mapped IPv4.
    pub(super) const fn of_v6(first: u128, length: u8) -> Self {
        let first = IpAddr::V6(Ipv6Addr::from_bits(first));
        Self { first, length }
    }

    /// The first address.
    pub const fn first(&self) -> IpAddr {
        self.first
    }

    /// How many bits all of it share.
    pub const fn prefix_len(&self) -> u8 {
        self.length
    }

    /// Whether it is one address.
    pub const fn is_single(&self) -> bool {
        self.length == if self.first.is_ipv4() { 32 } else { 128 }
    }

    /// Whether `ip` is in it. A mapped address is the IPv4 address.
    pub fn contains(&self, ip: IpAddr) -> bool {
        match (self.first, ip.to_canonical()) {
            (IpAddr::V4(first), IpAddr::V4(ip)) => (first.to_bits() ^ ip.to_bits()) & mask_32(self.length) == 0,
            (IpAddr::V6(first), IpAddr::V6(ip)) => (first.to_bits() ^ ip.to_bits()) & mask_128(self.length) == 0,
            _ => false,
        }
    }
}

pub(crate) const fn mask_32(length: u8) -> u32 {
    match length {
        0 => 0,
        _ => u32::MAX << (32 - length),
    }
}

pub(crate) const fn mask_128(length: u8) -> u128 {
    match length {
        0 => 0,
        _ => u128::MAX << (128 - length),
    }
}

impl From<IpAddr> for Cidr {
    fn from(ip: IpAddr) -> Self {
        let first = ip.to_canonical();
        let length = if first.is_ipv4() { 32 } else { 128 };
        Self { first, length }
    }
}

impl From<Ipv4Addr> for Cidr {
    fn from(ip: Ipv4Addr) -> Self {
        IpAddr::from(ip).into()
    }
}

impl From<Ipv6Addr> for Cidr {
    fn from(ip: Ipv6Addr) -> Self {
        IpAddr::from(ip).into()
    }
}

/// `192.0.2.0/24`; a bare address is the range of that one. And `/ip4/192.0.2.0/ipcidr/24`, as Kubo
/// writes it.
impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.starts_with("/ip4/") || text.starts_with("/ip6/") {
            return of_filter(text);
        }
        let Some((ip, length)) = text.split_once('/') else {
            return text.parse::<IpAddr>().map(Self::from).map_err(|_| CidrError::Address);
        };
        let ip: IpAddr = ip.parse().map_err(|_| CidrError::Address)?;
        let at_most = if ip.is_ipv4() { 32 } else { 128 };
        // `parse` would take "+8" and "008".
        let plain = length.bytes().all(|byte| byte.is_ascii_digit()) && (length == "0" || !length.starts_with('0'));
        match length.parse() {
            Ok(length) if plain => Self::new(ip, length),
            _ => Err(CidrError::Length { at_most }),
        }
    }
}

fn of_filter(filter: &str) -> Result<Cidr, CidrError> {
    let mut parts = filter.split('/').skip(1);
    let (Some(family), Some(ip), Some("ipcidr"), Some(length), None) =
        (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(CidrError::Filter);
    };
    match (family, ip.parse::<IpAddr>()) {
        ("ip4", Ok(IpAddr::V4(_))) | ("ip6", Ok(IpAddr::V6(_))) => format!("{ip}/{length}").parse(),
        _ => Err(CidrError::Filter),
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.length)
    }
}

impl fmt::Debug for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> Cidr {
        text.parse().expect(text)
    }

    #[test]
    fn a_mapped_range_is_the_ipv4_range() {
        assert_eq!(range("::ffff:192.0.2.0/120"), range("192.0.2.0/24"));
        assert_eq!(range("::ffff:0:0/96"), range("0.0.0.0/0"));
        assert_eq!(range("::ffff:192.0.2.7"), range("192.0.2.7/32"));
        assert!(range("192.0.2.0/24").contains("::ffff:192.0.2.9".parse().expect("an IP")));
        assert!(!range("::/0").contains("192.0.2.9".parse().expect("an IP")));
    }

    #[test]
    fn the_extremes_are_ranges_too() {
        assert!(range("0.0.0.0/0").contains("255.255.255.255".parse().expect("an IP")));
        assert!(range("::/0").contains("ffff::1".parse().expect("an IP")));
        assert!(range("255.255.255.255/32").is_single() && range("ffff::1/128").is_single());
        assert!(!range("ffff::/127").is_single());
    }

    #[test]
    fn what_is_no_range_is_refused_and_says_why() {
        for (text, error) in [
            ("", CidrError::Address),
            ("/8", CidrError::Address),
            ("192.0.2/24", CidrError::Address),
            ("192.0.2.0 /24", CidrError::Address),
            ("192.0.2.0/33", CidrError::Length { at_most: 32 }),
            ("192.0.2.0/", CidrError::Length { at_most: 32 }),
            ("192.0.2.0/+8", CidrError::Length { at_most: 32 }),
            ("192.0.2.0/024", CidrError::Length { at_most: 32 }),
            ("192.0.2.0/-1", CidrError::Length { at_most: 32 }),
            ("192.0.2.0/24/8", CidrError::Length { at_most: 32 }),
            ("2001:db8::/129", CidrError::Length { at_most: 128 }),
            ("2001:db8::/999", CidrError::Length { at_most: 128 }),
            (
                "192.0.2.7/24",
                CidrError::HostBits {
                    meant: range("192.0.2.0/24"),
                },
            ),
            (
                "2001:db8::1/32",
                CidrError::HostBits {
                    meant: range("2001:db8::/32"),
                },
            ),
            (
                "::ffff:192.0.2.7/120",
                CidrError::HostBits {
                    meant: range("192.0.2.0/24"),
                },
            ),
        ] {
            assert_eq!(text.parse::<Cidr>(), Err(error), "{text}");
        }
        // A mapped address with a prefix that ends before the mapping is a range of IPv6 with bits behind it.
        assert!(matches!(
            "::ffff:0:0/90".parse::<Cidr>(),
            Err(CidrError::HostBits { .. })
        ));
    }

    #[test]
    fn a_filter_of_kubo_is_a_range() {
        for (filter, same) in [
            ("/ip4/10.0.0.0/ipcidr/8", "10.0.0.0/8"),
            ("/ip4/0.0.0.0/ipcidr/0", "0.0.0.0/0"),
            ("/ip6/fc00::/ipcidr/7", "fc00::/7"),
            ("/ip6/::ffff:192.0.2.0/ipcidr/120", "192.0.2.0/24"),
        ] {
            assert_eq!(range(filter), range(same), "{filter}");
        }
        let meant = range("10.0.0.0/8");
        for (text, error) in [
            ("/ip4/10.1.0.0/ipcidr/8", CidrError::HostBits { meant }),
            ("/ip4/10.0.0.0/ipcidr/33", CidrError::Length { at_most: 32 }),
            ("/ip4/10.0.0.0/ipcidr/08", CidrError::Length { at_most: 32 }),
            ("/ip4/10.0.0.0", CidrError::Filter),
            ("/ip4/10.0.0.0/ipcidr/8/tcp/1", CidrError::Filter),
            ("/ip4/::/ipcidr/8", CidrError::Filter),
            ("/ip6/10.0.0.0/ipcidr/8", CidrError::Filter),
            ("/ip4/", CidrError::Filter),
            ("/dns4/example.org/ipcidr/8", CidrError::Address),
            ("/", CidrError::Address),
        ] {
            assert_eq!(text.parse::<Cidr>(), Err(error), "{text}");
        }
    }

    fn covering(first: &str, last: &str) -> Vec<String> {
        let ip = |text: &str| text.parse().expect(text);
        let ranges = Cidr::covering(ip(first), ip(last)).expect("a range");
        ranges.map(|range| range.to_string()).collect()
    }

    #[test]
    fn a_first_and_a_last_address_are_the_fewest_ranges() {
        assert_eq!(covering("192.0.2.0", "192.0.2.255"), ["192.0.2.0/24"]);
        assert_eq!(covering("192.0.2.7", "192.0.2.7"), ["192.0.2.7/32"]);
        assert_eq!(covering("0.0.0.0", "255.255.255.255"), ["0.0.0.0/0"]);
        assert_eq!(covering("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"), ["::/0"]);
        assert_eq!(covering("0.0.0.1", "255.255.255.254").len(), 62);
        let most = covering("::1", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe");
        assert_eq!(most.len(), 254);
        assert_eq!(
            covering("::ffff:192.0.2.0", "192.0.2.1"),
            ["192.0.2.0/31"],
            "mapped is IPv4"
        );
        assert_eq!(
            covering("::fffe:ffff:ffff", "::1:0:0:0"),
            ["::fffe:ffff:ffff/128", "::1:0:0:0/128"]
        );
        let ip = |text: &str| text.parse().expect(text);
        let (low, high, six) = (ip("192.0.2.1"), ip("192.0.2.2"), ip("2001:db8::"));
        let order = CidrError::Order { first: high, last: low };
        assert_eq!(Cidr::covering(high, low).err(), Some(order));
        let families = CidrError::Families { first: low, last: six };
        assert_eq!(Cidr::covering(low, six).err(), Some(families));
    }

    proptest::proptest! {
        /// Small ranges, address by address; and that no two neighbours could be one.
        #[test]
        fn the_fewest_ranges_hold_every_address_and_no_other(from: u32, more in 0..2_000_u32) {
            let to = from.saturating_add(more);
            let (first, last) = (Ipv4Addr::from_bits(from), Ipv4Addr::from_bits(to));
            let ranges: Vec<Cidr> = Cidr::covering(first.into(), last.into()).expect("a range").collect();
            let near = from.saturating_sub(3)..=to.saturating_add(3);
            for bits in near {
                let ip = Ipv4Addr::from_bits(bits).into();
                let holding = ranges.iter().filter(|range| range.contains(ip)).count();
                proptest::prop_assert_eq!(holding, usize::from((from..=to).contains(&bits)));
            }
            for two in ranges.windows(2) {
                let wider = Cidr::around(two[0].first, two[0].length - 1).expect("wider");
                let joined = two[0].length == two[1].length && wider.first == two[0].first && wider.contains(two[1].first);
                proptest::prop_assert!(!joined, "{:?}", two);
            }
        }
    }

    #[test]
    fn what_is_displayed_parses() {
        for text in ["192.0.2.0/24", "0.0.0.0/0", "::/0", "2001:db8::/32", "2001:db8::1/128"] {
            assert_eq!(range(text).to_string(), text);
        }
    }
}

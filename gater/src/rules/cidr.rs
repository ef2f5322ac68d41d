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
    #[error("no IP address before the slash")]
    Address,
    /// What stands behind the slash is no number, or too high a number.
    #[error("the length of the prefix is no number from 0 to {at_most}")]
    Length {
        /// 32 or 128.
        at_most: u8,
    },
    /// The address has bits behind the prefix.
    #[error("bits are set behind the prefix; {meant} would be a range")]
    HostBits {
        /// The range that the address is in.
        meant: Cidr,
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

/// `192.0.2.0/24`; a bare address is the range of that one.
impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
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
    fn what_is_displayed_parses() {
        for text in ["192.0.2.0/24", "0.0.0.0/0", "::/0", "2001:db8::/32", "2001:db8::1/128"] {
            assert_eq!(range(text).to_string(), text);
        }
    }
}

//! The IPv4 addresses that an IPv6 address leads to. The one place that knows their forms.

use super::canonical;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The most that one address is read as.
const MOST: usize = 4;

/// The IPv4 addresses that `ip` leads to, by every form that one host or another sends to IPv4:
/// none for most addresses, up to four where the form does not say where the IPv4 address stands.
///
/// | form | addresses | where the IPv4 address stands |
/// | --- | --- | --- |
/// | IPv4-compatible, RFC 4291 | `::a.b.c.d`, but `::` and `::1` | the last 32 bits |
/// | IPv4-translated, RFC 2765 | `::ffff:0:a.b.c.d` | the last 32 bits |
/// | NAT64, RFC 6052 | `64:ff9b::a.b.c.d` | the last 32 bits |
/// | local NAT64, RFC 8215 | `64:ff9b:1::/48` | as RFC 6052 says of a prefix of 48, 56, 64 and 96 bits: all four |
/// | 6to4, RFC 3056 | `2002:aabb:ccdd::/48` | bits 16 to 47 |
/// | Teredo, RFC 4380 | `2001:0::/32` | the client in the last 32 bits, inverted; its server in bits 32 to 63 |
/// | ISATAP, RFC 5214 | any prefix, then `:0:5efe:a.b.c.d` or `:200:5efe:a.b.c.d` | the last 32 bits |
///
/// IPv4-mapped addresses (`::ffff:a.b.c.d`) are not among them: they are IPv4, see [`canonical`].
/// Nor is a translator's prefix of an operator's own, which nothing shows.
///
/// For blocks and for what else denies. An allow must not take these for the host: a translator, a
/// tunnel or a whole site can answer there.
pub fn embedded_ipv4(ip: Ipv6Addr) -> impl Iterator<Item = Ipv4Addr> + use<> {
    let mut found = [None; MOST];
    let mut free = found.iter_mut();
    each_embedded(ip, |four| {
        if let Some(place) = free.next() {
            *place = Some(four);
        }
    });
    found.into_iter().flatten()
}

/// Whether there is any.
#[inline]
pub(crate) const fn may_embed(ip: Ipv6Addr) -> bool {
    let bits = ip.to_bits();
    !matches!(form(bits), Form::None) || is_isatap(bits)
}

/// Calls `found` with each of them.
pub(crate) fn each_embedded(ip: Ipv6Addr, mut found: impl FnMut(Ipv4Addr)) {
    let bits = ip.to_bits();
    match form(bits) {
        Form::Last => found(last(bits)),
        Form::LocalNat64 => {
            // Of a prefix that is longer than the one in use, zeros are left.
            let hosts = LAYOUTS.iter().map(|layout| layout(bits));
            hosts.filter(|host| host.octets()[0] != 0).for_each(found);
        }
        Form::SixToFour => {
            found(six_to_four(bits));
            // A host of the site behind it.
            if is_isatap(bits) {
                found(last(bits));
            }
        }
        Form::Teredo => {
            found(teredo(bits));
            found(Ipv4Addr::from_bits((bits >> 64) as u32));
        }
        Form::None if is_isatap(bits) => found(last(bits)),
        Form::None => {}
    }
}

/// The host that a connection with `ip` counts for: the IPv4 address in it where the form says
/// exactly which, and a peer cannot write what it likes; `ip` itself otherwise.
#[inline]
pub(crate) fn host(ip: IpAddr) -> IpAddr {
    let IpAddr::V6(six) = canonical(ip) else {
        return canonical(ip);
    };
    let bits = six.to_bits();
    match form(bits) {
        Form::Last => last(bits).into(),
        Form::SixToFour => six_to_four(bits).into(),
        Form::Teredo => teredo(bits).into(),
        Form::LocalNat64 | Form::None => six.into(),
    }
}

enum Form {
    /// The last 32 bits.
    Last,
    LocalNat64,
    SixToFour,
    Teredo,
    None,
}

#[inline]
const fn form(bits: u128) -> Form {
    match ((bits >> 96) as u32, (bits >> 32) as u64) {
        // `::` and `::1` are no IPv4.
        (0, 0) if bits > 1 => Form::Last,
        (0, 0xffff_0000) | (0x0064_ff9b, 0) => Form::Last,
        (0x0064_ff9b, rest) if rest >> 48 == 1 => Form::LocalNat64,
        (0x2001_0000, _) => Form::Teredo,
        (head, _) if head >> 16 == 0x2002 => Form::SixToFour,
        _ => Form::None,
    }
}

/// Where RFC 6052 has it behind a prefix of 48, 56, 64 and 96 bits. Bits 64 to 71 are not used.
const LAYOUTS: [fn(u128) -> Ipv4Addr; MOST] = [
    |bits| split(bits, 48),
    |bits| split(bits, 56),
    |bits| Ipv4Addr::from_bits((bits >> 24) as u32),
    last,
];

/// Behind a prefix of that length, with the unused octet in it.
const fn split(bits: u128, length: u32) -> Ipv4Addr {
    let before = 64 - length;
    let head = (bits >> 64) as u32 & ((1 << before) - 1);
    let rest = 32 - before;
    let tail = (bits >> (128 - 72 - rest)) as u32 & ((1 << rest) - 1);
    Ipv4Addr::from_bits(head << rest | tail)
}

const fn last(bits: u128) -> Ipv4Addr {
    Ipv4Addr::from_bits(bits as u32)
}

const fn six_to_four(bits: u128) -> Ipv4Addr {
    Ipv4Addr::from_bits((bits >> 80) as u32)
}

const fn teredo(bits: u128) -> Ipv4Addr {
    Ipv4Addr::from_bits(!(bits as u32))
}

/// By the interface's id, whatever the prefix. Its bit for "unique in the world" is either.
const fn is_isatap(bits: u128) -> bool {
    (bits >> 32) as u32 & !0x0200_0000 == 0x0000_5efe
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(ip: &str) -> Vec<String> {
        let ip: Ipv6Addr = ip.parse().expect(ip);
        embedded_ipv4(ip).map(|four| four.to_string()).collect()
    }

    /// The examples of RFC 6052, 2.4, behind the prefix of RFC 8215.
    #[test]
    fn every_layout_of_a_translator_is_read_as_its_rfc_has_it() {
        for ip in [
            "64:ff9b:1:c000:2:2100::",
            "64:ff9b:1:3c0:0:221::",
            "64:ff9b:1:344:c0:2:2100::",
            "64:ff9b:1:344::192.0.2.33",
        ] {
            let hosts = hosts(ip);
            assert!(hosts.iter().any(|host| host == "192.0.2.33"), "{ip}: {hosts:?}");
        }
        assert_eq!(hosts("64:ff9b::192.0.2.33"), ["192.0.2.33"]);
        assert_eq!(hosts("64:ff9b:1::192.0.2.33"), ["192.0.2.33"]);
        assert_eq!(hosts("64:ff9b:1:c000:2:2100::"), ["192.0.2.33", "2.33.0.0"]);
    }

    /// RFC 4380, 4: server 65.54.227.120, client 192.0.2.45 behind port 40000.
    #[test]
    fn a_teredo_address_is_its_client_and_its_server() {
        assert_eq!(
            hosts("2001:0:4136:e378:8000:63bf:3fff:fdd2"),
            ["192.0.2.45", "65.54.227.120"]
        );
    }

    #[test]
    fn every_other_form_says_one_host() {
        for ip in [
            "::192.0.2.33",
            "::ffff:0:192.0.2.33",
            "2002:c000:221::1",
            "2001:db8::5efe:192.0.2.33",
            "fe80::200:5efe:192.0.2.33",
            "64:ff9b:2::5efe:192.0.2.33",
        ] {
            assert_eq!(hosts(ip), ["192.0.2.33"], "{ip}");
        }
        assert_eq!(hosts("2002:c000:221::5efe:10.0.0.1"), ["192.0.2.33", "10.0.0.1"]);
        for ip in [
            "::",
            "::1",
            "2001:db8::1",
            "64:ff9b:2::1",
            "2001:1::1",
            "64::1",
            "ff02::1",
            "fe80::1",
        ] {
            assert_eq!(hosts(ip), [""; 0], "{ip}");
        }
    }

    #[test]
    fn who_answers_is_the_host_of_ipv4_where_the_form_says_one_that_no_peer_chooses() {
        let is = |ip: &str| host(ip.parse().expect(ip)).to_string();
        for ip in [
            "192.0.2.33",
            "::ffff:192.0.2.33",
            "::192.0.2.33",
            "64:ff9b::192.0.2.33",
            "2002:c000:221::1",
            "2001:0:4136:e378:8000:63bf:3fff:fdde",
        ] {
            assert_eq!(is(ip), "192.0.2.33", "{ip}");
        }
        for ip in ["::1", "2001:db8::5efe:c000:221", "64:ff9b:1::c000:221"] {
            assert_eq!(is(ip), ip, "{ip}");
        }
    }
}

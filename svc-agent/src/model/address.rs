//! The one address check for all sources (B72).
//!
//! CVE-2021-25737 came from two kinds of object with two checks, CVE-2021-29923 from two parsers with two opinions on
//! leading zeros. So there is one of each.

use std::net::IpAddr;

/// Reads an address that packets may be sent to from anywhere.
///
/// # Errors
/// What was found and what is wrong with it: not an address, leading zeros, a zone, an IPv4 address mapped into IPv6,
/// or an address that means something else than one reachable machine.
pub fn parse(text: &str) -> Result<IpAddr, String> {
    let Ok(addr) = text.parse::<IpAddr>() else { return Err(not_an_address(text)) };
    match special(addr) {
        Some(what) => Err(format!("found `{addr}`, {what}, expected an address that every node can reach")),
        None => Ok(addr),
    }
}

/// Why no packet may be sent to an address, or from it on behalf of a Service; `None` if it is an ordinary one.
pub fn special(addr: IpAddr) -> Option<&'static str> {
    match addr {
        IpAddr::V4(v4) => match v4.octets() {
            [0, 0, 0, 0] => Some("the unspecified address"),
            [0, ..] => Some("an address of \"this network\""),
            [127, ..] => Some("a loopback address"),
            [169, 254, ..] => Some("a link-local address"),
            [224, 0, 0, _] => Some("a link-local multicast address"),
            [224..=239, ..] => Some("a multicast address"),
            [255, 255, 255, 255] => Some("the broadcast address"),
            _ => None,
        },
        IpAddr::V6(v6) => {
            let [first, second, ..] = v6.octets();
            if v6.is_unspecified() {
                Some("the unspecified address")
            } else if v6.is_loopback() {
                Some("the loopback address")
            } else if v6.to_ipv4_mapped().is_some() {
                Some("an IPv4 address mapped into IPv6")
            } else if first == 0xfe && second & 0xc0 == 0x80 {
                Some("a link-local address")
            } else if first == 0xff && second & 0x0f == 2 {
                Some("a link-local multicast address")
            } else if first == 0xff {
                Some("a multicast address")
            } else {
                None
            }
        }
    }
}

fn not_an_address(text: &str) -> String {
    let shown = super::text::quote(text);
    let leading_zero =
        |octet: &str| octet.len() > 1 && octet.starts_with('0') && octet.bytes().all(|b| b.is_ascii_digit());
    if text.contains('%') {
        format!("found {shown} with a zone, expected an address without one")
    } else if text.trim() != text && text.trim().parse::<IpAddr>().is_ok() {
        format!("found {shown} with white space around it, expected the address alone")
    } else if text.contains('/') {
        format!("found {shown}, expected an address without a prefix length")
    } else if text.split('.').count() == 4 && text.split('.').any(leading_zero) {
        format!("found {shown} with leading zeros, which some programs read as octal; write the address without them")
    } else {
        format!("found {shown}, expected an IPv4 or IPv6 address")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b72_one_check_refuses_every_special_address() {
        for (text, why) in [
            ("0.0.0.0", "unspecified"),
            ("0.1.2.3", "this network"),
            ("127.0.0.1", "loopback"),
            ("127.255.255.254", "loopback"),
            ("169.254.10.1", "link-local"),
            ("224.0.0.5", "link-local multicast"),
            ("239.1.2.3", "multicast"),
            ("255.255.255.255", "broadcast"),
            ("::", "unspecified"),
            ("::1", "loopback"),
            ("fe80::1", "link-local"),
            ("febf::1", "link-local"),
            ("ff02::1", "link-local multicast"),
            ("ff32::1", "link-local multicast"),
            ("ff0e::1", "multicast"),
            ("::ffff:10.0.0.1", "mapped"),
            ("fe80::1%eth0", "zone"),
            ("010.0.0.1", "leading zeros"),
            ("10.0.0.08", "leading zeros"),
            ("10.0.0.1/24", "prefix length"),
            (" 10.0.0.1", "white space"),
            ("10.0.0", "expected an IPv4 or IPv6 address"),
            ("10.0.0.256", "expected an IPv4 or IPv6 address"),
            ("web.example.com", "expected an IPv4 or IPv6 address"),
            ("", "expected an IPv4 or IPv6 address"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn b72_ordinary_addresses_pass() {
        for text in ["10.0.0.1", "192.168.0.255", "100.64.0.1", "203.0.113.7", "fd00::1", "2001:db8::1", "fec0::1"] {
            assert_eq!(parse(text).map(|addr| addr.to_string()), Ok(text.to_owned()));
        }
    }
}

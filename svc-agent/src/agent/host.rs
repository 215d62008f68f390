//! Settings of the host that the datapath depends on but does not own.

use std::fs;
use std::net::IpAddr;

use crate::config::PortRange;

/// Everything about this host that keeps Services from working, one line each; `uplinks` are the devices that lead to
/// other machines.
pub fn warnings(addresses: &[IpAddr], snat_ports: PortRange, uplinks: &[&str]) -> Vec<String> {
    Settings::read(uplinks).warnings(addresses, snat_ports)
}

/// What /proc/sys says; `None` if it says nothing. It shows the namespace of the process that reads it.
#[derive(Clone, Debug, Default)]
struct Settings {
    forwarding_v4: Option<String>,
    forwarding_v6: Option<String>,
    local_ports: Option<String>,
    /// Devices that lead to other machines and refuse what they would not answer through, if there are several.
    strict: Vec<String>,
}

impl Settings {
    fn read(uplinks: &[&str]) -> Self {
        let read = |path: &str| fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
        Self {
            forwarding_v4: read("/proc/sys/net/ipv4/ip_forward"),
            forwarding_v6: read("/proc/sys/net/ipv6/conf/all/forwarding"),
            local_ports: read("/proc/sys/net/ipv4/ip_local_port_range"),
            strict: strict(uplinks, |name| {
                read(&format!("/proc/sys/net/ipv4/conf/{name}/rp_filter")).and_then(|value| value.parse().ok())
            }),
        }
    }

    fn warnings(&self, addresses: &[IpAddr], snat_ports: PortRange) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.forwarding_v4.as_deref() == Some("0") && addresses.iter().any(IpAddr::is_ipv4) {
            warnings.push(
                "IPv4 forwarding is off, so translated packets go no further: `sysctl -w net.ipv4.ip_forward=1`".into(),
            );
        }
        if self.forwarding_v6.as_deref() == Some("0") && addresses.iter().any(IpAddr::is_ipv6) {
            warnings.push(
                "IPv6 forwarding is off, so translated packets go no further: `sysctl -w net.ipv6.conf.all.forwarding=1`"
                    .into(),
            );
        }
        let local = self.local_ports.as_deref().and_then(parse_ports);
        if let Some((first, last)) = local.filter(|(first, last)| *first <= snat_ports.max && *last >= snat_ports.min) {
            warnings.push(format!(
                "source ports {}-{} for other nodes meet those of local sockets, {first}-{last}: change --snat-ports or \
                 net.ipv4.ip_local_port_range",
                snat_ports.min, snat_ports.max
            ));
        }
        if !self.strict.is_empty() {
            warnings.push(format!(
                "rp_filter is strict on `{}`, and there are several ways out: packets whose answers would take another way \
                 are lost; 2 is loose: `sysctl -w net.ipv4.conf.all.rp_filter=2`",
                self.strict.join("`, `")
            ));
        }
        warnings
    }
}

/// Those of `uplinks` where the filter of source addresses is strict (B37). The kernel takes the larger of the
/// device's number and the one for all: 1 is strict, 2 is loose. With a single way out it loses nothing of ours.
fn strict(uplinks: &[&str], rp_filter: impl Fn(&str) -> Option<u8>) -> Vec<String> {
    let all = rp_filter("all");
    let strict = uplinks.iter().filter(|name| uplinks.len() > 1 && all.max(rp_filter(name)) == Some(1));
    strict.map(|name| (*name).to_owned()).collect()
}

fn parse_ports(text: &str) -> Option<(u16, u16)> {
    let mut ports = text.split_whitespace().map(str::parse);
    Some((ports.next()?.ok()?, ports.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_keeps_services_from_working_is_named_with_its_remedy() {
        let check = |v4: &str, v6: &str, local: &str, words: &[&str]| {
            let settings = Settings {
                forwarding_v4: Some(v4.into()),
                forwarding_v6: Some(v6.into()),
                local_ports: Some(local.into()),
                ..Settings::default()
            };
            let addresses = ["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
            let warnings = settings.warnings(&addresses, PortRange { min: 1024, max: 29_999 });
            assert_eq!(warnings.len(), words.len(), "{warnings:?}");
            assert!(warnings.iter().zip(words).all(|(warning, word)| warning.contains(word)), "{warnings:?}");
        };
        check("1", "1", "32768\t60999", &[]);
        check("0", "1", "32768\t60999", &["net.ipv4.ip_forward=1"]);
        check("1", "0", "32768\t60999", &["net.ipv6.conf.all.forwarding=1"]);
        check("1", "1", "20000\t60999", &["20000-60999"]);
        check("1", "1", "nonsense", &[]);
    }

    #[test]
    fn b37_a_strict_rp_filter_is_told_where_there_are_several_ways_out() {
        let check = |uplinks: &[&str], all: Option<u8>, device: Option<u8>, expected: &[&str]| {
            let strict = strict(uplinks, |name| if name == "all" { all } else { device.filter(|_| name == "eth0") });
            assert_eq!(strict, expected, "{uplinks:?} all {all:?} eth0 {device:?}");
        };
        check(&["eth0", "eth1"], Some(1), Some(0), &["eth0", "eth1"]);
        check(&["eth0", "eth1"], Some(0), Some(1), &["eth0"]);
        check(&["eth0", "eth1"], Some(2), Some(1), &[]);
        check(&["eth0", "eth1"], Some(1), Some(2), &["eth1"]);
        check(&["eth0", "eth1"], None, None, &[]);
        check(&["eth0"], Some(1), Some(1), &[]);
        let settings = Settings { strict: vec!["eth0".into()], ..Settings::default() };
        let warnings = settings.warnings(&[], PortRange { min: 1, max: 2 });
        assert!(warnings.iter().any(|warning| warning.contains("`eth0`") && warning.contains("rp_filter=2")));
    }

    #[test]
    fn a_family_without_addresses_is_not_missed() {
        let settings = Settings { forwarding_v6: Some("0".into()), ..Settings::default() };
        assert!(settings.warnings(&["192.0.2.1".parse().unwrap()], PortRange { min: 1, max: 2 }).is_empty());
    }
}

//! The servers of resolv.conf(5), and nothing else of it.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

/// The servers, and what is wrong with the file.
pub fn upstreams(path: &Path, port: u16) -> (Vec<SocketAddr>, Vec<String>) {
    match fs::read_to_string(path) {
        Ok(text) => parse(&text, path, port),
        Err(error) => (Vec::new(), vec![format!("cannot read `{}`: {error}", path.display())]),
    }
}

fn parse(text: &str, path: &Path, port: u16) -> (Vec<SocketAddr>, Vec<String>) {
    let (mut servers, mut notices) = (Vec::new(), Vec::new());
    for line in text.lines() {
        let mut words = line.split_whitespace();
        if words.next() != Some("nameserver") {
            continue;
        }
        let word = words.next().unwrap_or_default();
        match word.parse::<IpAddr>() {
            Ok(address) => servers.push(SocketAddr::new(address, port)),
            Err(_) => notices.push(format!("{}: found `nameserver {word}`, expected an address", path.display())),
        }
    }
    (servers, notices)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nameserver_lines_count_in_their_order_and_nothing_else_does() {
        let text = "# nameserver 192.0.2.1\nsearch a b\nnameserver 192.0.2.2\n nameserver\t2001:db8::1 # x\nnameserver fe80::1%eth0\n";
        let (servers, notices) = parse(text, Path::new("/etc/resolv.conf"), 53);
        assert_eq!(servers, ["192.0.2.2:53".parse().unwrap(), "[2001:db8::1]:53".parse().unwrap()]);
        assert_eq!(notices, ["/etc/resolv.conf: found `nameserver fe80::1%eth0`, expected an address"]);
    }
}

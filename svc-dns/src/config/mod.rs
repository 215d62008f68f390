//! The configuration: flags and environment -> validated [`Config`].

pub mod keys;
mod resolv_conf;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};

use clap::ArgMatches;
use hickory_proto::rr::Name;

use keys::{Key, Value};

/// The port of DNS.
const PORT: u16 = 53;

/// What the operator said, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen, UDP and TCP.
    pub listen: Vec<SocketAddr>,
    /// The cluster domain.
    pub domain: Name,
    /// The agent's control socket.
    pub socket: PathBuf,
    /// Who is asked for everything else.
    pub upstreams: Vec<SocketAddr>,
    /// Seconds that answers hold.
    pub ttl_s: u32,
    /// How many answers of upstream servers are remembered.
    pub cache: usize,
    /// Names of pods are answered.
    pub pod_names: bool,
    /// Where health is told, if anywhere.
    pub health: Option<SocketAddr>,
    /// Filter for the log.
    pub log: String,
    /// What the operator should know.
    pub notices: Vec<String>,
}

/// Why a configuration was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// One value.
    #[error("{origin}: found `{found}`, expected {expected}")]
    Value {
        /// Flag or variable.
        origin: String,
        /// The value.
        found: String,
        /// What it should be, with an example.
        expected: String,
    },
    /// A server that would ask itself.
    #[error("{origin}: `{upstream}` is this server itself: questions would go round in circles; name another one")]
    Loop {
        /// Flag or variable.
        origin: String,
        /// The server.
        upstream: SocketAddr,
    },
}

impl Config {
    /// Reads and checks everything.
    ///
    /// # Errors
    /// At the first value that is wrong.
    pub fn from_matches(matches: &ArgMatches) -> Result<Self, ConfigError> {
        Self::new(&|key| key.value(matches), Path::new("/etc/resolv.conf"))
    }

    fn new(get: &dyn Fn(&Key) -> Value, resolv_conf: &Path) -> Result<Self, ConfigError> {
        let listen = list(&get(&keys::LISTEN), "addresses such as 127.0.0.1, 192.0.2.1:5353 or [::]:53", |text| {
            socket_address(text, Some(PORT))
        })?;
        let upstream = get(&keys::UPSTREAM);
        let mut notices = Vec::new();
        let upstreams = if upstream.items().next().is_none() {
            let (upstreams, found) = resolv_conf::upstreams(resolv_conf, PORT);
            notices.extend(found);
            let (own, others): (Vec<_>, Vec<_>) = upstreams.into_iter().partition(|addr| is_self(*addr, &listen));
            notices.extend(
                own.iter()
                    .map(|own| format!("{}: `{own}` is this server itself and is not asked", resolv_conf.display())),
            );
            if others.is_empty() {
                notices.push("there is nobody to ask for names of elsewhere: they fail; give --upstream".to_owned());
            }
            others
        } else {
            let expected = "servers such as 192.0.2.53 or [2001:db8::53]:5353";
            let upstreams = list(&upstream, expected, |text| {
                socket_address(text, Some(PORT)).filter(|addr| !addr.ip().is_unspecified() && addr.port() != 0)
            })?;
            if let Some(own) = upstreams.iter().find(|addr| is_self(**addr, &listen)) {
                return Err(ConfigError::Loop { origin: upstream.origin, upstream: *own });
            }
            upstreams
        };
        let health = get(&keys::HEALTH);
        Ok(Self {
            listen,
            domain: one(&get(&keys::DOMAIN), "a domain such as cluster.local", domain)?,
            socket: one(&get(&keys::SOCKET), "an absolute path", |text| {
                Some(PathBuf::from(text)).filter(|path| path.is_absolute())
            })?,
            upstreams,
            ttl_s: number(&get(&keys::TTL), 0, 3600)?,
            cache: number(&get(&keys::CACHE), 0, 1_000_000)? as usize,
            pod_names: one(&get(&keys::POD_NAMES), "off or insecure", |text| match text {
                "off" => Some(false),
                "insecure" => Some(true),
                _ => None,
            })?,
            health: health
                .items()
                .next()
                .map(|_| one(&health, "an address and port such as 127.0.0.1:8053", |text| socket_address(text, None)))
                .transpose()?,
            log: get(&keys::LOG).text,
            notices,
        })
    }

    /// The addresses that clients can be told to ask at.
    pub fn servers(&self) -> Vec<IpAddr> {
        self.listen.iter().map(SocketAddr::ip).filter(|ip| !ip.is_unspecified() && !ip.is_loopback()).collect()
    }
}

fn wrong(value: &Value, found: &str, expected: impl Into<String>) -> ConfigError {
    ConfigError::Value { origin: value.origin.clone(), found: found.to_owned(), expected: expected.into() }
}

fn one<T>(value: &Value, expected: &str, parse: impl Fn(&str) -> Option<T>) -> Result<T, ConfigError> {
    parse(&value.text).ok_or_else(|| wrong(value, &value.text, expected))
}

fn list<T>(value: &Value, expected: &str, parse: impl Fn(&str) -> Option<T>) -> Result<Vec<T>, ConfigError> {
    let items: Vec<T> =
        value.items().map(|item| parse(item).ok_or_else(|| wrong(value, item, expected))).collect::<Result<_, _>>()?;
    if items.is_empty() { Err(wrong(value, &value.text, expected)) } else { Ok(items) }
}

fn number(value: &Value, min: u32, max: u32) -> Result<u32, ConfigError> {
    let parse = |text: &str| text.parse().ok().filter(|number| (min..=max).contains(number));
    one(value, &format!("a number from {min} to {max}"), parse)
}

/// An address with a port, or without one where there is a default.
fn socket_address(text: &str, port: Option<u16>) -> Option<SocketAddr> {
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    Some(SocketAddr::new(bare.parse::<IpAddr>().ok()?, port?))
}

/// A name of letters, digits and hyphens, absolute and in lower case.
fn domain(text: &str) -> Option<Name> {
    let text = text.strip_suffix('.').unwrap_or(text);
    let is_label = |label: &str| {
        let middle = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        !label.is_empty() && middle && !label.starts_with('-') && !label.ends_with('-')
    };
    if !text.split('.').all(is_label) {
        return None;
    }
    Some(Name::from_labels(text.split('.').map(str::as_bytes)).ok()?.to_lowercase())
}

/// Whoever asks there asks this server.
fn is_self(upstream: SocketAddr, listen: &[SocketAddr]) -> bool {
    let matches = |own: &SocketAddr| {
        own.port() == upstream.port()
            && (own.ip() == upstream.ip()
                || (own.ip().is_unspecified() && own.is_ipv4() == upstream.is_ipv4() && is_local(upstream.ip())))
    };
    listen.iter().any(matches)
}

/// It is an address of this machine: only those can be bound to.
fn is_local(address: IpAddr) -> bool {
    let any = match address {
        IpAddr::V4(address) => address == Ipv4Addr::UNSPECIFIED,
        IpAddr::V6(address) => address == Ipv6Addr::UNSPECIFIED,
    };
    any || UdpSocket::bind((address, 0)).is_ok()
}

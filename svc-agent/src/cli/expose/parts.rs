//! Ports and endpoints as they are written on the command line.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use serde_json::Value;

use crate::control::api::Protocol;

/// `[NAME=]PORT[:TARGET][/PROTOCOL]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortArg {
    /// Its name; empty if it has none.
    pub name: String,
    /// The port that clients dial.
    pub port: u16,
    /// Where it leads to, if elsewhere.
    pub target: Option<TargetArg>,
    /// The protocol.
    pub protocol: Protocol,
}

impl FromStr for PortArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("found `{text}`, expected [NAME=]PORT[:TARGET][/PROTOCOL], such as 80, 80:8080 or dns=53/UDP");
        let (name, rest) = text.split_once('=').unwrap_or(("", text));
        let (rest, protocol) = rest.split_once('/').unwrap_or((rest, "TCP"));
        let (port, target) = match rest.split_once(':') {
            Some((port, target)) => (port, Some(target.parse()?)),
            None => (rest, None),
        };
        let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(wrong)?;
        Ok(Self { name: name.to_owned(), port, target, protocol: protocol.parse()? })
    }
}

/// A number, or a name that containers give to their ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetArg {
    /// The same everywhere.
    Number(u16),
    /// As each Pod has it.
    Name(String),
}

impl TargetArg {
    /// As in a manifest.
    pub fn value(&self) -> Value {
        match self {
            Self::Number(number) => (*number).into(),
            Self::Name(name) => name.as_str().into(),
        }
    }
}

impl FromStr for TargetArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            let number = text.parse().ok().filter(|number| *number != 0);
            return number
                .map(Self::Number)
                .ok_or_else(|| format!("found the target port `{text}`, expected 1-65535 or a name"));
        }
        Ok(Self::Name(text.to_owned()))
    }
}

/// `ADDRESS[:PORT][@NODE]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointArg {
    /// Where it is.
    pub address: IpAddr,
    /// Its port, if that is not the target port.
    pub port: Option<u16>,
    /// The node that it runs on.
    pub node: Option<String>,
}

impl FromStr for EndpointArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (place, node) = match text.split_once('@') {
            Some((place, node)) => (place, Some(node.to_owned())),
            None => (text, None),
        };
        if let Ok(address) = place.parse::<SocketAddr>() {
            return Ok(Self { address: address.ip(), port: Some(address.port()), node });
        }
        let address = place.parse().map_err(|_| {
            format!("found `{text}`, expected ADDRESS[:PORT][@NODE], such as 10.0.0.1:8080 or [fd00::1]:8080@node-a")
        })?;
        Ok(Self { address, port: None, node })
    }
}

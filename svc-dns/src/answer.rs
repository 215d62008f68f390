//! A question about the cluster domain, answered: pure, so that every rule of the specification is a row of a table.
//!
//! Kubernetes DNS specification 1.1.0; RFC 2308 for negative answers, RFC 8482 for ANY.

use std::net::IpAddr;

use hickory_proto::op::{Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, HINFO, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use crate::zone::{Endpoint, Entry, Kind, Node, Owner, Port, Zone};

/// The version of the specification that is followed.
pub const SPECIFICATION: &str = "1.1.0";
/// Times of the SOA record for secondary servers, which there are none of: refresh, retry, expire.
const SOA_S: (i32, i32, i32) = (7200, 1800, 86_400);
/// So many addresses of the targets are sent along with SRV records.
const MAX_ADDITIONAL: usize = 64;

/// An answer, to be put into a message.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// No error, no such name, or something went wrong.
    pub code: ResponseCode,
    /// The answer section.
    pub answers: Vec<Record>,
    /// The authority section.
    pub authorities: Vec<Record>,
    /// The additional section.
    pub additionals: Vec<Record>,
    /// This server knows it best.
    pub authoritative: bool,
    /// Somebody who was asked vouches for it.
    pub authentic: bool,
    /// The answers end with an alias of this name: ask on for that.
    pub follow: Option<Name>,
}

impl Answer {
    /// One without records.
    pub fn error(code: ResponseCode) -> Self {
        Self { code, ..Self::default() }
    }
}

/// Answers a question of class IN; `None` if it is not about the cluster domain nor about an address in it.
pub fn answer(zone: &Zone, question: &Query) -> Option<Answer> {
    if let Some(labels) = zone.labels_below(question.name()) {
        if !zone.is_loaded() {
            // Nobody knows yet what exists: a client that asks again is better off than one that believes in nothing.
            return Some(Answer::error(ResponseCode::ServFail));
        }
        return Some(Asked { zone, question }.about(zone.find(&labels)));
    }
    let address = address_of(question.name())?;
    let owners = zone.owners(address)?;
    Some(Asked { zone, question }.about_address(owners.iter()))
}

/// The address that a name below `in-addr.arpa` or `ip6.arpa` stands for.
fn address_of(name: &Name) -> Option<IpAddr> {
    let network = name.parse_arpa_name().ok()?;
    // Shorter names stand for networks.
    (network.prefix_len() == network.max_prefix_len()).then(|| network.addr())
}

struct Asked<'a> {
    zone: &'a Zone,
    question: &'a Query,
}

impl Asked<'_> {
    fn about(&self, node: Node<'_>) -> Answer {
        let apex = self.zone.settings().domain.clone();
        if matches!(node, Node::Missing) {
            return self.none(ResponseCode::NXDomain, apex);
        }
        if self.question.query_type() == RecordType::ANY {
            return self.minimal();
        }
        if let Node::Service(Entry { kind: Kind::Alias(target), .. }) = node {
            let is_asked = self.question.query_type() == RecordType::CNAME;
            let alias = self.record(self.question.name(), RData::CNAME(CNAME(target.clone())));
            return Answer { follow: (!is_asked).then(|| target.clone()), ..found(vec![alias]) };
        }
        let (data, additionals) = self.data(node);
        if data.is_empty() {
            return self.none(ResponseCode::NoError, apex);
        }
        let answers = data.into_iter().map(|data| self.record(self.question.name(), data)).collect();
        Answer { additionals, ..found(answers) }
    }

    fn about_address<'a>(&self, owners: impl Iterator<Item = &'a Owner>) -> Answer {
        match self.question.query_type() {
            RecordType::PTR => {
                let names = owners.filter_map(|owner| {
                    let service = self.name(&[&owner.key.name, &owner.key.namespace, "svc"])?;
                    match &owner.label {
                        Some(label) => service.prepend_label(label.as_bytes()).ok(),
                        None => Some(service),
                    }
                });
                let records = names.map(|name| self.record(self.question.name(), RData::PTR(PTR(name))));
                found(records.collect())
            }
            RecordType::ANY => self.minimal(),
            // Each such name is a zone of its own: nothing above it is known here.
            _ => self.none(ResponseCode::NoError, self.question.name().clone()),
        }
    }

    /// The records of the asked type at a node, and what goes with them.
    fn data(&self, node: Node<'_>) -> (Vec<RData>, Vec<Record>) {
        let asked = self.question.query_type();
        let just = |data: Vec<RData>| (data, Vec::new());
        match node {
            Node::Apex => just(match asked {
                RecordType::SOA => vec![self.soa_data()],
                RecordType::NS => self.server_name().map(|name| RData::NS(NS(name))).into_iter().collect(),
                _ => Vec::new(),
            }),
            Node::Version if asked == RecordType::TXT => {
                just(vec![RData::TXT(TXT::new(vec![SPECIFICATION.to_owned()]))])
            }
            Node::Server => just(of_type(asked, self.zone.settings().servers.iter().copied())),
            Node::Pod(address) => just(of_type(asked, [address])),
            Node::Service(entry) => match asked {
                // Not in the specification; clients that look for all members of a StatefulSet ask for it.
                RecordType::SRV => self.srv(entry, |_| true),
                _ => just(of_type(asked, service_addresses(entry))),
            },
            Node::Port { entry, port, protocol } if asked == RecordType::SRV => {
                self.srv(entry, |found| found.is(port, protocol))
            }
            Node::Endpoint { entry, label } => {
                let named = |endpoint: &&Endpoint| endpoint.label == label;
                just(of_type(asked, endpoints(entry).iter().filter(named).map(|endpoint| endpoint.address)))
            }
            Node::Empty | Node::Version | Node::Port { .. } | Node::Missing => just(Vec::new()),
        }
    }

    /// SRV records for the wanted ports, and the addresses of their targets.
    fn srv(&self, entry: &Entry, wanted: impl Fn(&Port) -> bool) -> (Vec<RData>, Vec<Record>) {
        let Some(service) = self.service_name() else { return (Vec::new(), Vec::new()) };
        let mut targets: Vec<(Name, Vec<u16>)> = Vec::new();
        let mut additionals = Vec::new();
        match &entry.kind {
            Kind::Addresses(addresses) => {
                let ports = entry.ports.iter().filter(|port| wanted(port)).map(|port| port.port).collect();
                let glue = addresses.iter().map(|address| self.record(&service, address_data(*address)));
                additionals.extend(glue);
                targets.push((service, ports));
            }
            Kind::Endpoints(endpoints) => {
                for endpoint in endpoints {
                    let Ok(name) = service.prepend_label(endpoint.label.as_bytes()) else { continue };
                    let ports: Vec<u16> =
                        endpoint.ports.iter().filter(|port| wanted(port)).map(|port| port.port).collect();
                    if !ports.is_empty() {
                        additionals.push(self.record(&name, address_data(endpoint.address)));
                        targets.push((name, ports));
                    }
                }
            }
            Kind::Alias(_) => {}
        }
        additionals.truncate(MAX_ADDITIONAL);
        // Addresses of both families make one target, and so one record.
        targets.sort();
        targets.dedup();
        let count = targets.iter().map(|(_, ports)| ports.len()).sum::<usize>().clamp(1, 100);
        let weight = u16::try_from(100 / count).unwrap_or(1);
        let records = targets.into_iter().flat_map(|(name, ports)| {
            ports.into_iter().map(move |port| RData::SRV(SRV::new(0, weight, port, name.clone())))
        });
        (records.collect(), additionals)
    }

    /// The name of the Service that the question is about, as it was written.
    fn service_name(&self) -> Option<Name> {
        let name = self.question.name();
        let below = name.iter().count().checked_sub(self.zone.settings().domain.iter().count() + 3)?;
        Name::from_labels(name.iter().skip(below)).ok()
    }

    fn server_name(&self) -> Option<Name> {
        self.name(&["ns", "dns"])
    }

    /// A name below the cluster domain.
    fn name(&self, labels: &[&str]) -> Option<Name> {
        let own = Name::from_labels(labels.iter().map(|label| label.as_bytes())).ok()?;
        own.append_domain(&self.zone.settings().domain).ok()
    }

    fn record(&self, name: &Name, data: RData) -> Record {
        Record::from_rdata(name.clone(), self.zone.settings().ttl_s, data)
    }

    /// No such name, or no such record there; says for how long.
    fn none(&self, code: ResponseCode, apex: Name) -> Answer {
        let authorities = vec![self.record(&apex, self.soa_data())];
        Answer { code, authorities, authoritative: true, ..Answer::default() }
    }

    /// Enough for a question that wants everything.
    fn minimal(&self) -> Answer {
        found(vec![self.record(self.question.name(), RData::HINFO(HINFO::new("RFC8482".to_owned(), String::new())))])
    }

    fn soa_data(&self) -> RData {
        let domain = &self.zone.settings().domain;
        let server = self.server_name().unwrap_or_else(|| domain.clone());
        let mailbox = self.name(&["hostmaster"]).unwrap_or_else(|| domain.clone());
        let (refresh, retry, expire) = SOA_S;
        RData::SOA(SOA::new(server, mailbox, self.zone.serial(), refresh, retry, expire, self.zone.settings().ttl_s))
    }
}

fn found(answers: Vec<Record>) -> Answer {
    Answer { answers, authoritative: true, ..Answer::default() }
}

fn endpoints(entry: &Entry) -> &[Endpoint] {
    match &entry.kind {
        Kind::Endpoints(endpoints) => endpoints,
        Kind::Addresses(_) | Kind::Alias(_) => &[],
    }
}

fn service_addresses(entry: &Entry) -> Vec<IpAddr> {
    let mut addresses = match &entry.kind {
        Kind::Addresses(addresses) => addresses.clone(),
        Kind::Endpoints(endpoints) => endpoints.iter().map(|endpoint| endpoint.address).collect(),
        Kind::Alias(_) => Vec::new(),
    };
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

fn of_type(asked: RecordType, addresses: impl IntoIterator<Item = IpAddr>) -> Vec<RData> {
    let wanted = |address: &IpAddr| match address {
        IpAddr::V4(_) => asked == RecordType::A,
        IpAddr::V6(_) => asked == RecordType::AAAA,
    };
    addresses.into_iter().filter(wanted).map(address_data).collect()
}

fn address_data(address: IpAddr) -> RData {
    match address {
        IpAddr::V4(address) => RData::A(A(address)),
        IpAddr::V6(address) => RData::AAAA(AAAA(address)),
    }
}

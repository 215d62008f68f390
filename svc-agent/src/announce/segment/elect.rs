//! Who answers for which address: every node ranks all of them alike, and the first one that would answer does. Pure.
//!
//! For each address the order is another one (highest random weight), so that addresses spread over the nodes, and one that
//! comes or goes moves only its own. Of the others a node has to know those alone that come before it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::hash::{fnv1a, mix};

/// What is known of another node's agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Nobody has asked yet.
    Unknown,
    /// It does not answer, or would not for this address.
    Out,
    /// It would answer for this address.
    Willing,
}

/// What is to be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Election {
    /// The addresses that this node answers for.
    pub held: BTreeSet<IpAddr>,
    /// The nodes whose answers decided, or would.
    pub watched: BTreeSet<String>,
}

/// The nodes and their order.
#[derive(Debug, Default)]
pub struct Ranking {
    own: String,
    others: BTreeSet<String>,
    /// For each address those that come before this node, the first one first.
    above: BTreeMap<IpAddr, Vec<String>>,
}

impl Ranking {
    /// Knows of this node only.
    pub fn new(own: &str) -> Self {
        Self { own: own.to_owned(), ..Self::default() }
    }

    /// Replaces the other nodes.
    pub fn set(&mut self, mut others: BTreeSet<String>) {
        others.remove(&self.own);
        if others != self.others {
            self.others = others;
            self.above.clear();
        }
    }

    /// Which of the addresses that this node would answer for are its own: those that nobody before it would. While it is
    /// not known of somebody, he may.
    pub fn elect(&mut self, willing: &BTreeSet<IpAddr>, peer: impl Fn(&str, IpAddr) -> Peer) -> Election {
        self.above.retain(|addr, _| willing.contains(addr));
        let mut election = Election::default();
        for addr in willing {
            let above = self.above.entry(*addr).or_insert_with(|| above(&self.own, &self.others, *addr));
            let mut is_held = true;
            for name in above.iter() {
                election.watched.insert(name.clone());
                match peer(name, *addr) {
                    Peer::Out => {}
                    Peer::Unknown | Peer::Willing => {
                        is_held = false;
                        break;
                    }
                }
            }
            if is_held {
                election.held.insert(*addr);
            }
        }
        election
    }
}

fn above(own: &str, others: &BTreeSet<String>, addr: IpAddr) -> Vec<String> {
    let rank = |name: &str| (weight(name, addr), name.to_owned());
    let own = rank(own);
    let mut above: Vec<_> = others.iter().map(|name| rank(name)).filter(|rank| *rank > own).collect();
    above.sort_unstable_by(|a, b| b.cmp(a));
    above.into_iter().map(|(_, name)| name).collect()
}

/// The weight of a node for an address: FNV-1a, its bits spread by the end of MurmurHash3 so that neighbours differ
/// everywhere. Nodes of different versions have to agree: it never changes.
fn weight(name: &str, addr: IpAddr) -> u64 {
    let hash = match addr {
        IpAddr::V4(addr) => fnv1a(&[&addr.octets(), name.as_bytes()]),
        IpAddr::V6(addr) => fnv1a(&[&addr.octets(), name.as_bytes()]),
    };
    let hash = mix(mix(hash, 33, 0xff51_afd7_ed55_8ccd), 33, 0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;

    fn names(count: usize) -> BTreeSet<String> {
        (0..count).map(|n| format!("node-{n}")).collect()
    }

    fn addresses(count: u8) -> BTreeSet<IpAddr> {
        (0..count).map(|n| Ipv4Addr::new(192, 0, 2, n).into()).collect()
    }

    /// Who holds each address if everybody knows everything, and `willing` says who would answer.
    fn holders(
        names: &BTreeSet<String>,
        addresses: &BTreeSet<IpAddr>,
        willing: impl Fn(&str, IpAddr) -> bool,
    ) -> BTreeMap<IpAddr, Vec<String>> {
        let mut holders: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for own in names {
            let mut ranking = Ranking::new(own);
            ranking.set(names.clone());
            let mine = addresses.iter().filter(|addr| willing(own, **addr)).copied().collect();
            let peer = |name: &str, addr| if willing(name, addr) { Peer::Willing } else { Peer::Out };
            for addr in ranking.elect(&mine, peer).held {
                holders.entry(addr).or_default().push(own.clone());
            }
        }
        holders
    }

    proptest! {
        #[test]
        fn an_address_has_one_holder_while_anybody_would_answer(
            nodes in 1..8_usize,
            out in prop::collection::btree_set((0..8_usize, 0..6_u8), 0..30),
        ) {
            let willing = |name: &str, addr: IpAddr| {
                let IpAddr::V4(addr) = addr else { return false };
                !out.contains(&(name[5..].parse().unwrap(), addr.octets()[3]))
            };
            let names = names(nodes);
            let holders = holders(&names, &addresses(6), willing);
            for addr in addresses(6) {
                let possible = names.iter().filter(|name| willing(name, addr)).count();
                let found = holders.get(&addr).map_or(0, Vec::len);
                prop_assert_eq!(found, possible.min(1), "{}", addr);
            }
        }
    }

    #[test]
    fn addresses_spread_and_a_node_that_goes_moves_its_own_only() {
        let (names, addresses) = (names(4), addresses(200));
        let before = holders(&names, &addresses, |_, _| true);
        let of = |name: &str| before.values().filter(|holder| holder[0] == name).count();
        assert!(
            names.iter().all(|name| (25..=75).contains(&of(name))),
            "{:?}",
            names.iter().map(|n| of(n)).collect::<Vec<_>>()
        );
        let after = holders(&names, &addresses, |name, _| name != "node-2");
        for (addr, holder) in before {
            assert!(holder[0] == "node-2" || after[&addr] == holder, "{addr}");
            assert_ne!(after[&addr][0], "node-2");
        }
    }

    #[test]
    fn nobody_takes_an_address_before_those_ahead_were_asked_and_nobody_else_is() {
        let names = names(5);
        let addr: IpAddr = "192.0.2.80".parse().unwrap();
        let mut order: Vec<_> = names.iter().map(|name| (weight(name, addr), name.clone())).collect();
        order.sort_by(|a, b| b.cmp(a));
        let [first, second, third]: [&str; 3] = [0, 1, 2].map(|place: usize| order[place].1.as_str());
        let mut ranking = Ranking::new(third);
        ranking.set(names);
        let mut elect = |known: [Peer; 2]| {
            let peer = |name: &str, _| if name == first { known[0] } else { known[1] };
            let election = ranking.elect(&[addr].into(), peer);
            (!election.held.is_empty(), election.watched.into_iter().collect::<BTreeSet<_>>())
        };
        let only = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        assert_eq!(elect([Peer::Unknown, Peer::Unknown]), (false, only(&[first])));
        assert_eq!(elect([Peer::Willing, Peer::Out]), (false, only(&[first])));
        assert_eq!(elect([Peer::Out, Peer::Unknown]), (false, only(&[first, second])));
        assert_eq!(elect([Peer::Out, Peer::Willing]), (false, only(&[first, second])));
        assert_eq!(elect([Peer::Out, Peer::Out]), (true, only(&[first, second])));
        ranking.set(BTreeSet::new());
        assert_eq!(ranking.elect(&[addr].into(), |_, _| Peer::Unknown).held, [addr].into(), "alone");
    }

    #[test]
    fn weights_never_change() {
        assert_eq!(weight("node-0", "192.0.2.80".parse().unwrap()), GOLDEN[0]);
        assert_eq!(weight("node-0", "2001:db8::50".parse().unwrap()), GOLDEN[1]);
    }

    /// FNV-1a and fmix64, computed by another program.
    const GOLDEN: [u64; 2] = [0x2ea85b44f9979089, 0xd842f8b911a74557];
}

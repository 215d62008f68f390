//! Maglev tables: which backend each slot of a selection names.
//!
//! After "Maglev: A Fast and Reliable Software Network Load Balancer" (NSDI 2016), section 3.4. A table depends on the
//! addresses, ports and weights of its members alone: not on their order, not on ids, not on the node. So every node
//! sends the same flow to the same backend, also one that has never seen the flow (B15, B22).

use std::net::IpAddr;

use crate::hash::{fnv1a, mix};

/// Sizes of tables. All but the first are the largest primes below 2^10, 2^12, .. 2^22, so that a table fills its rows.
///
/// The steps are wide because a change of size moves nearly every slot.
const SIZES: [u32; 8] = [1, 1021, 4093, 16_381, 65_521, 262_139, 1_048_573, 4_194_301];

/// A backend gets at least this many slots if all weigh the same, so that shares differ by at most 1 %.
const SLOTS_PER_MEMBER: u32 = 100;

/// Seeds of the two hashes of a member: where it starts, and how far it steps. They never change.
const SEEDS: [u64; 2] = [0x7376_632d_6f66_6673, 0x7376_632d_736b_6970];

/// A slot that no member has taken yet.
const EMPTY: u32 = u32::MAX;

/// One backend as a table knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Member {
    /// Its address.
    pub addr: IpAddr,
    /// Its port.
    pub port: u16,
    /// Its share relative to the others'; zero gets no slot.
    pub weight: u16,
}

/// The number of slots for `members` backends of non-zero weight; `None` if there are more than any table holds.
pub fn size(members: usize) -> Option<u32> {
    match members {
        0 => Some(0),
        1 => SIZES.first().copied(),
        _ => SIZES.into_iter().find(|&size| (size / SLOTS_PER_MEMBER) as usize >= members),
    }
}

/// For every slot, the index into `members` of the backend that it names; empty if no member has any weight.
///
/// Members are distinct in address and port. `None` if there are more of them than any table holds.
pub fn table(members: &[Member]) -> Option<Vec<u32>> {
    let mut turns = Turn::of(members)?;
    let size = size(turns.len())?;
    let heaviest = turns.iter().map(|turn| turn.weight).max().unwrap_or(0);
    let mut slots = vec![EMPTY; size as usize];
    let mut left = size;
    while left > 0 {
        for turn in turns.iter_mut() {
            // The heaviest members take a slot in every round, one of half their weight in every second.
            turn.credit += turn.weight;
            if turn.credit < heaviest {
                continue;
            }
            turn.credit -= heaviest;
            turn.take(&mut slots);
            left -= 1;
            if left == 0 {
                break;
            }
        }
    }
    Some(slots)
}

/// A member on its walk through the slots it prefers.
struct Turn {
    member: u32,
    weight: u32,
    credit: u32,
    next: u32,
    step: u32,
}

impl Turn {
    /// The members of any weight, in an order that does not depend on the caller's.
    fn of(members: &[Member]) -> Option<Vec<Self>> {
        let mut sorted: Vec<_> = (0_u32..).zip(members).filter(|(_, member)| member.weight > 0).collect();
        sorted.sort_unstable_by_key(|&(_, member)| member);
        let size = u64::from(size(sorted.len())?);
        let [start, step] = SEEDS;
        let turn = |(index, member): (u32, &Member)| Self {
            member: index,
            weight: u32::from(member.weight),
            credit: 0,
            next: (hash(member, start) % size.max(1)) as u32,
            // Any step from 1 to size - 1 reaches every slot of a table whose size is prime.
            step: if size > 1 { (hash(member, step) % (size - 1)) as u32 + 1 } else { 0 },
        };
        Some(sorted.into_iter().map(turn).collect())
    }

    /// Takes the first free slot that this member prefers. There must be a free one.
    fn take(&mut self, slots: &mut [u32]) {
        let size = slots.len() as u32;
        loop {
            let here = self.next;
            self.next += self.step;
            if self.next >= size {
                self.next -= size;
            }
            match slots.get_mut(here as usize) {
                Some(slot) if *slot == EMPTY => {
                    *slot = self.member;
                    return;
                }
                Some(_) => {}
                None => return,
            }
        }
    }
}

/// Hashes a member's address and port: FNV-1a with 64 bits over the seed, the address and the port as on the wire, then
/// the finaliser of SplitMix64, because FNV alone spreads short keys poorly.
///
/// Written out here so that it never changes: nodes of different versions must build equal tables.
fn hash(member: &Member, seed: u64) -> u64 {
    let (seed, port) = (seed.to_be_bytes(), member.port.to_be_bytes());
    let hash = match member.addr {
        IpAddr::V4(addr) => fnv1a(&[&seed, &addr.octets(), &port]),
        IpAddr::V6(addr) => fnv1a(&[&seed, &addr.octets(), &port]),
    };
    let hash = mix(mix(hash, 30, 0xbf58_476d_1ce4_e5b9), 27, 0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn member(n: u32) -> Member {
        Member { addr: IpAddr::from((0x0a00_0000 + n).to_be_bytes()), port: 8080, weight: 1 }
    }

    /// Distinct backends at random addresses of either family.
    fn members(count: std::ops::RangeInclusive<usize>) -> impl Strategy<Value = Vec<Member>> {
        let v4 = proptest::collection::btree_set((any::<[u8; 4]>().prop_map(IpAddr::from), 1_u16..), count.clone());
        let v6 = proptest::collection::btree_set((any::<[u8; 16]>().prop_map(IpAddr::from), 1_u16..), count);
        prop_oneof![v4, v6]
            .prop_map(|set| set.into_iter().map(|(addr, port)| Member { addr, port, weight: 1 }).collect::<Vec<_>>())
            .prop_shuffle()
    }

    /// Which backend each slot names, by address and port.
    fn named(members: &[Member]) -> Vec<(IpAddr, u16)> {
        let name = |&index: &u32| (members[index as usize].addr, members[index as usize].port);
        table(members).unwrap().iter().map(name).collect()
    }

    fn shares(members: &[Member]) -> Vec<usize> {
        let mut shares = vec![0; members.len()];
        for index in table(members).unwrap() {
            shares[index as usize] += 1;
        }
        shares
    }

    #[test]
    fn b15_table_sizes_are_primes_of_100_slots_per_backend() {
        for size in SIZES.into_iter().skip(1) {
            assert!((2..=size.isqrt()).all(|divisor| size % divisor != 0), "{size} is not prime");
        }
        for (members, expected) in [(0, 0), (1, 1), (2, 1021), (10, 1021), (11, 4093), (100, 16_381), (1000, 262_139)] {
            assert_eq!(size(members), Some(expected), "{members} backends");
        }
        assert_eq!(size(41_943), Some(4_194_301));
        assert_eq!(size(41_944), None);
    }

    #[test]
    fn b15_tables_never_change_between_versions() {
        // The values are of a second implementation, in Python.
        let digest = |members: &[Member]| {
            named(members).iter().fold(0_u64, |digest, &(addr, port)| {
                digest.rotate_left(5) ^ hash(&Member { addr, port, weight: 1 }, digest)
            })
        };
        let v6 = |n: u16| Member { addr: IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, n]), port: 53, weight: 1 };
        assert_eq!(hash(&member(1), 0), 0x96a2_348a_81bb_63e4);
        assert_eq!(digest(&(0..3).map(member).collect::<Vec<_>>()), 0xfaaa_e532_e388_37a9);
        assert_eq!(digest(&(0..40).map(member).collect::<Vec<_>>()), 0xa73f_9572_8e55_dd5b);
        assert_eq!(digest(&(0..10).map(v6).collect::<Vec<_>>()), 0xe98b_0869_d4f5_a565);
    }

    #[test]
    fn b15_weights_are_shares_and_zero_gets_no_slot() {
        let weigh = |weights: &[u16]| {
            shares(&(0..).zip(weights).map(|(n, &weight)| Member { weight, ..member(n) }).collect::<Vec<_>>())
        };
        assert_eq!(weigh(&[0]), [0]);
        assert_eq!(weigh(&[0, 0, 0]), [0, 0, 0]);
        assert_eq!(weigh(&[5, 0]), [1, 0], "a single backend needs a single slot");
        let [one, two, none, three] = weigh(&[1, 2, 0, 3])[..] else { panic!("four shares") };
        assert_eq!(none, 0);
        for (share, weight) in [(one, 1), (two, 2), (three, 3)] {
            let exact = 1021.0 * f64::from(weight) / 6.0;
            assert!((share as f64 - exact).abs() <= 1.0, "{share} slots instead of {exact}");
        }
    }

    #[test]
    fn b15_removing_one_backend_moves_few_other_flows() {
        // How many of the slots that named other backends move: on average, and in 98 of 100 cases. Now and then two
        // members step through the table alike and get into each other's way; that is in the nature of Maglev.
        for (count, mean, most) in [(3, 0.015, 0.06), (10, 0.035, 0.06), (40, 0.025, 0.035), (100, 0.016, 0.02)] {
            let mut moved: Vec<f64> = (0..100)
                .map(|set| {
                    let all: Vec<_> = (0..count).map(|n| member(set * 1000 + n)).collect();
                    moved_without(&all, (set % count) as usize)
                })
                .collect();
            moved.sort_by(f64::total_cmp);
            let found = moved.iter().sum::<f64>() / moved.len() as f64;
            assert!(found <= mean && moved[97] <= most, "{count} backends: {found} on average, {}", moved[97]);
        }
    }

    /// The share of the other backends' slots that move when one backend goes.
    fn moved_without(all: &[Member], gone: usize) -> f64 {
        let mut rest = all.to_vec();
        let gone = rest.remove(gone);
        let (before, after) = (named(all), named(&rest));
        assert_eq!(before.len(), after.len());
        let stay: Vec<_> = before.iter().zip(&after).filter(|(was, _)| **was != (gone.addr, gone.port)).collect();
        stay.iter().filter(|(was, is)| was != is).count() as f64 / stay.len() as f64
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn b15_shares_are_within_one_per_cent_of_even(members in members(1..=100)) {
            let shares = shares(&members);
            let even = shares.iter().sum::<usize>() as f64 / members.len() as f64;
            for share in shares {
                prop_assert!((share as f64 - even).abs() <= even / 100.0, "{share} slots, {even} would be even");
            }
        }

        #[test]
        fn b15_tables_are_equal_in_any_input_order(members in members(1..=40)) {
            let mut sorted = members.clone();
            sorted.sort();
            prop_assert_eq!(named(&members), named(&sorted));
        }
    }

    #[test]
    fn b15_every_slot_of_a_large_table_names_a_backend() {
        let all: Vec<_> = (0..1000).map(member).collect();
        let mut count = BTreeMap::new();
        for slot in table(&all).unwrap() {
            *count.entry(slot).or_insert(0) += 1;
        }
        assert_eq!(count.len(), 1000);
        assert!(count.values().all(|&slots| (262..=263).contains(&slots)));
    }
}

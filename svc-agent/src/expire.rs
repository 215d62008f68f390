//! Removes connections that have been silent for too long: both directions, or neither (B21).

use std::ops::ControlFlow;

use aya::Pod;
use svc_common::flow::{partner_key, timeout_s};
use svc_common::maps::{Flow, MapType, Tuple};
use svc_common::net::proto;

use crate::flows::{Family, Tables, idle_s, joint_state};

/// Nothing times out earlier: spares looking up the partners of flows that just had a packet.
const SHORTEST_S: u32 = timeout_s(proto::UDP, 0);

/// Whether a flow and its partner are to go.
fn expired<A>(protocol: u8, flow: &Flow<A>, partner: Option<&Flow<A>>, now_s: u32) -> bool {
    idle_s(flow, partner, now_s) >= timeout_s(protocol, joint_state(flow, partner))
}

/// What a sweep saw and did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Entries of `FLOWS_V4`, `FLOWS_V6`, `EMBRYOS_V4` and `EMBRYOS_V6`, counted before removals.
    pub entries: [u64; 4],
    /// Entries removed.
    pub removed: u64,
}

/// Goes once over all tables; `clock` is the datapath's.
///
/// # Errors
/// If a table cannot be read or written.
pub fn sweep(tables: &mut Tables, clock: impl Fn() -> anyhow::Result<u32>) -> anyhow::Result<Swept> {
    let now_s = clock()?;
    let mut swept = Swept::default();
    let [flows_v4, flows_v6, embryos_v4, embryos_v6] = &mut swept.entries;
    let old_v4 = old_flows(&tables.v4, now_s, [flows_v4, embryos_v4])?;
    let old_v6 = old_flows(&tables.v6, now_s, [flows_v6, embryos_v6])?;
    // The sweep took a while: a packet may have come since.
    let now_s = clock()?;
    swept.removed = remove(&mut tables.v4, &old_v4, now_s)? + remove(&mut tables.v6, &old_v6, now_s)?;
    Ok(swept)
}

/// The keys of the flows that are silent for too long; counts the entries of both tables.
fn old_flows<A: Copy + 'static>(family: &Family<A>, now_s: u32, counts: [&mut u64; 2]) -> anyhow::Result<Vec<Tuple<A>>>
where
    Tuple<A>: MapType + Pod,
    Flow<A>: MapType + Pod,
{
    let mut old = Vec::new();
    for (table, count) in [&family.established, &family.embryos].into_iter().zip(counts) {
        table.for_each(|key, flow| {
            *count += 1;
            if idle_s(&flow, None, now_s) >= SHORTEST_S {
                let partner = family.get(&partner_key(&flow, key.proto));
                if expired(key.proto, &flow, partner.as_ref(), now_s) {
                    old.push(key);
                }
            }
            ControlFlow::Continue(())
        })?;
    }
    Ok(old)
}

/// Looks at each flow once more, right before it goes (B25), and takes its partner along.
fn remove<A: Copy + 'static>(family: &mut Family<A>, old: &[Tuple<A>], now_s: u32) -> anyhow::Result<u64>
where
    Tuple<A>: MapType + Pod,
    Flow<A>: MapType + Pod,
{
    let mut removed = 0;
    for key in old {
        // Gone already, with its partner.
        let Some(flow) = family.get(key) else { continue };
        let back = partner_key(&flow, key.proto);
        let partner = family.get(&back);
        if !expired(key.proto, &flow, partner.as_ref(), now_s) {
            continue;
        }
        // A tuple may be in both tables while it is promoted.
        for key in [Some(*key), partner.map(|_| back)].into_iter().flatten() {
            removed += u64::from(family.established.remove(&key)?);
            removed += u64::from(family.embryos.remove(&key)?);
        }
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use svc_common::maps::flow_state;

    use super::*;

    #[test]
    fn b21_a_packet_of_either_direction_keeps_both() {
        let flow = |seen_s| Flow::<[u8; 4]> { seen_s, state: flow_state::ESTABLISHED, packets: 1, ..Flow::default() };
        let check = |seen, partner: Option<u32>, now, gone| {
            let partner = partner.map(flow);
            assert_eq!(expired(proto::TCP, &flow(seen), partner.as_ref(), now), gone, "{seen} {partner:?} {now}");
        };
        check(0, None, 7_999, false);
        check(0, None, 8_000, true);
        check(0, Some(0), 8_000, true);
        check(0, Some(1), 8_000, false);
        check(1, Some(0), 8_000, false);
    }

    #[test]
    fn b18_one_fin_leaves_an_hour() {
        let state = |state| Flow::<[u8; 4]> { state, packets: 1, ..Flow::default() };
        let forward = state(flow_state::ESTABLISHED | flow_state::FIN);
        let reverse = state(flow_state::ESTABLISHED | flow_state::PEER_FIN);
        assert!(!expired(proto::TCP, &forward, Some(&reverse), 3_599));
        assert!(expired(proto::TCP, &forward, Some(&reverse), 3_600));
        let closed = state(flow_state::ESTABLISHED | flow_state::FIN | flow_state::PEER_FIN);
        assert!(expired(proto::TCP, &forward, Some(&closed), 120));
    }
}

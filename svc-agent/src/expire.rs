//! Removes connections that have been silent for too long: both directions, or neither (B21).
//!
//! Reads the tables in batches and collects what looks old; the program `svc_sweep` looks at each connection once more, by
//! the datapath's own clock, at the moment of its removal (B25).

use std::net::IpAddr;
use std::ops::ControlFlow;

use aya::Pod;
use svc_common::expire::since;
use svc_common::family::{Family as _, V4, V6};
use svc_common::maps::{Flow, MapType, Timeouts, Tuple};
use svc_common::net::Be16;
use svc_common::wire::ETH_LEN;

use crate::datapath;
use crate::flows::{Family, Tables};

/// What a sweep saw and did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Entries of `FLOWS_V4`, `FLOWS_V6`, `EMBRYOS_V4` and `EMBRYOS_V6`, counted before removals.
    pub entries: [u64; 4],
    /// Connections removed.
    pub removed: u64,
}

/// Who wants to hear which connections ended; each is told by one of its directions.
pub trait Ended {
    /// One of IPv4.
    fn ended_v4(&self, key: &Tuple<[u8; 4]>, flow: &Flow<[u8; 4]>);
    /// One of IPv6.
    fn ended_v6(&self, key: &Tuple<[u8; 16]>, flow: &Flow<[u8; 16]>);
}

/// Goes once over all tables. `now_s` is the datapath's clock; `program` runs `svc_sweep` over a frame.
///
/// # Errors
/// If a table cannot be read or the program not be run.
pub fn sweep(
    tables: &Tables,
    timeouts: &Timeouts,
    now_s: u32,
    mut program: impl FnMut(&[u8]) -> anyhow::Result<u32>,
    told: Option<&dyn Ended>,
) -> anyhow::Result<Swept> {
    let mut swept = Swept::default();
    let [flows_v4, flows_v6, embryos_v4, embryos_v6] = &mut swept.entries;
    let old_v4 = old_flows(&tables.v4, timeouts, now_s, [flows_v4, embryos_v4])?;
    let old_v6 = old_flows(&tables.v6, timeouts, now_s, [flows_v6, embryos_v6])?;
    let ended_v4 = |(key, flow): &(_, _)| told.into_iter().for_each(|told| told.ended_v4(key, flow));
    let ended_v6 = |(key, flow): &(_, _)| told.into_iter().for_each(|told| told.ended_v6(key, flow));
    swept.removed += remove(&old_v4, V4::ETHER_TYPE, timeouts, &mut program, ended_v4)?;
    swept.removed += remove(&old_v6, V6::ETHER_TYPE, timeouts, &mut program, ended_v6)?;
    Ok(swept)
}

/// The flows that are silent for too long by themselves; counts the entries of both tables.
///
/// Each direction knows what was seen of the other, so their partners are left to the program.
fn old_flows<A: Copy + Into<IpAddr> + 'static>(
    family: &Family<A>,
    timeouts: &Timeouts,
    now_s: u32,
    counts: [&mut u64; 2],
) -> anyhow::Result<Vec<(Tuple<A>, Flow<A>)>>
where
    Tuple<A>: MapType + Pod,
    Flow<A>: MapType + Pod,
{
    let mut old = Vec::new();
    for (table, count) in [&family.established, &family.embryos].into_iter().zip(counts) {
        table.for_each(|key, flow| {
            *count += 1;
            if since(now_s, flow.seen_s) >= timeouts.of(key.proto, flow.state) {
                old.push((key, flow));
            }
            ControlFlow::Continue(())
        })?;
    }
    Ok(old)
}

/// Has the kernel look at each of these again and remove what is over; returns how many connections that were.
fn remove<A: Copy>(
    old: &[(Tuple<A>, Flow<A>)],
    ether_type: Be16,
    timeouts: &Timeouts,
    program: &mut impl FnMut(&[u8]) -> anyhow::Result<u32>,
    ended: impl Fn(&(Tuple<A>, Flow<A>)),
) -> anyhow::Result<u64>
where
    Tuple<A>: MapType,
{
    let mut removed = 0;
    for flows in old.chunks(datapath::sweep_keys()) {
        let keys: Vec<_> = flows.iter().map(|(key, _)| *key).collect();
        let bits = program(&frame(&keys, ether_type, timeouts))?;
        removed += u64::from(bits.count_ones());
        flows.iter().enumerate().filter(|(at, _)| bits >> at & 1 != 0).for_each(|(_, flow)| ended(flow));
    }
    Ok(removed)
}

/// What `svc_sweep` reads: an Ethernet header that names the family, the time-outs, the keys, and a key without a
/// protocol that ends them.
pub fn frame<A: Copy>(keys: &[Tuple<A>], ether_type: Be16, timeouts: &Timeouts) -> Vec<u8>
where
    Tuple<A>: MapType,
{
    let mut frame = vec![0; ETH_LEN - size_of::<Be16>()];
    frame.extend(ether_type.0);
    frame.extend(timeouts.bytes());
    frame.extend(keys.iter().flat_map(MapType::bytes));
    frame.resize(frame.len() + size_of::<Tuple<A>>(), 0);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(port: u16) -> Tuple<[u8; 4]> {
        Tuple { sport: Be16::from_host(port), proto: 6, ..Tuple::default() }
    }

    #[test]
    fn connections_are_handed_over_by_the_frame_and_counted_by_the_bit() {
        let flows: Vec<_> = (0..70).map(|port| (key(port), Flow::default())).collect();
        let mut frames = Vec::new();
        let ended = std::cell::RefCell::new(Vec::new());
        let mut program = |frame: &[u8]| {
            frames.push(frame.len());
            Ok(0b101)
        };
        let removed = remove(&flows, V4::ETHER_TYPE, &Timeouts::default(), &mut program, |(key, _)| {
            ended.borrow_mut().push(key.sport.to_host());
        });
        assert_eq!((removed.unwrap(), ended.into_inner()), (6, vec![0, 2, 32, 34, 64, 66]));
        let of = |keys: usize| ETH_LEN + size_of::<Timeouts>() + (keys + 1) * size_of::<Tuple<[u8; 4]>>();
        assert_eq!(frames, [of(32), of(32), of(6)]);
    }

    #[test]
    fn a_frame_says_family_time_outs_and_keys() {
        let frame = frame(&[key(7)], V4::ETHER_TYPE, &Timeouts::default());
        assert_eq!(frame[12..14], [0x08, 0x00]);
        assert_eq!(frame[14..22], [60u32.to_ne_bytes(), 8_000u32.to_ne_bytes()].concat());
        assert_eq!(Tuple::from_bytes(&frame[46..62]), Some(key(7)));
        assert_eq!(frame[62..], [0; 16]);
    }
}

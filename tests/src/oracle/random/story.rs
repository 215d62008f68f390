//! One history: what its steps do, and what both compilations make of it.

use std::{
    collections::VecDeque,
    net::{IpAddr, SocketAddr},
};

use svc_agent::kernel::Version;
use svc_common::{
    env::Table,
    maps::{Config, Flow, Frontend, Selection, Tuple, backend_flags, encapsulation, flow_flags, frontend_flags},
    net::{Be16, proto},
    outcome::Outcome,
    packet::Hook,
};

use super::{
    action::Action,
    dice::Dice,
    frames,
    rules::Sums,
    talk::{BACKENDS, NETWORK_V4, NETWORK_V6, PORT, RANGES, Talk, VIPS},
};
use crate::{
    oracle::{FLOWS, Oracle, Run, UPLINK, WORKLOAD},
    packet::hex,
};

/// Services in each family.
const SERVICES: u32 = 4;
/// Ids of what belongs to IPv6 start here.
const SIX: u32 = 16;
/// Selections of packets from outside start here.
const EXTERNAL: u32 = 64;
/// Ids of backends start here; each service has room for so many.
const FIRST_BACKEND: u32 = 100;
const ROOM: u32 = 8;
/// Frames that later steps refer to.
const REMEMBERED: usize = 12;

/// A frame that later steps refer to.
#[derive(Clone)]
struct Remembered {
    bytes: Vec<u8>,
    ifindex: u32,
    /// Where it was seen.
    hook: Hook,
    /// Where an answer to it would be ours; where it was itself if it is one that came in.
    next: Hook,
}

/// A history that goes on.
#[derive(Default)]
pub struct Story {
    /// Frames as they came in or went out, mostly of those that were translated.
    remembered: VecDeque<Remembered>,
}

impl Story {
    /// Prepares the world of a history.
    pub fn begin(oracle: &mut Oracle) -> Self {
        oracle.reset();
        oracle.forget_neighbours();
        oracle.set_slow(&[UPLINK, WORKLOAD]);
        oracle.set_config(Config { epoch: 1, snat_port_min: 1024, snat_port_max: 29_999, ..Config::default() });
        for family in 0..2 {
            for service in 0..SERVICES {
                let id = service + family * SIX;
                for proto in [proto::TCP, proto::UDP, proto::SCTP] {
                    let vip = VIPS[family as usize][service as usize];
                    oracle.set_frontend(&SocketAddr::new(vip, PORT).to_string(), proto, id, EXTERNAL + id, id);
                }
                for index in [id, EXTERNAL + id] {
                    table(oracle, index, id, &[0, 1, 2, 3]);
                }
            }
        }
        Self::default()
    }

    /// Makes a step: the frame's fate if it was one.
    ///
    /// # Errors
    /// The first difference between both compilations.
    pub fn step(&mut self, oracle: &mut Oracle, dice: &mut Dice<'_>) -> Result<Option<Run>, String> {
        let action = self.choose(oracle, dice);
        self.perform(oracle, &action)
    }

    /// What a step does at this point.
    pub(super) fn choose(&self, oracle: &Oracle, dice: &mut Dice<'_>) -> Action {
        if dice.one_in(12) {
            return self.change(oracle, dice);
        }
        let remembered = self.remembered.get(dice.below(REMEMBERED));
        let (bytes, likely) = match (dice.below(10), remembered) {
            // The same conversation goes on.
            (0..3, Some(old)) => {
                (Talk::of(&old.bytes).map(|talk| frames::frame(dice, &talk)), Some((old.hook, old.ifindex)))
            }
            // It is answered.
            (3..6, Some(old)) => {
                (Talk::of(&old.bytes).map(|talk| frames::frame(dice, &talk.reverse())), Some((old.next, old.ifindex)))
            }
            (6, Some(old)) => (frames::error(dice, &old.bytes), Some((old.next, old.ifindex))),
            // The same frame again.
            (7, Some(old)) => (Some(old.bytes.clone()), Some((old.hook, old.ifindex))),
            (8, _) if dice.one_in(2) => (Some(frames::piece(dice)), Some((Hook::Ingress, oracle.ifindex(UPLINK)))),
            (8, _) if dice.one_in(4) => {
                let talk = Talk::new(dice);
                let (backend, _) = dice.pick(BACKENDS[usize::from(talk.src.is_ipv6())]);
                (Some(frames::tunnelled(dice, &talk, backend)), Some((Hook::Ingress, oracle.ifindex(UPLINK))))
            }
            _ => (None, None),
        };
        let bytes = bytes.unwrap_or_else(|| {
            let talk = Talk::new(dice);
            frames::frame(dice, &talk)
        });
        let (hook, ifindex) = match likely {
            Some(likely) if !dice.one_in(4) => likely,
            _ => self.anywhere(oracle, dice),
        };
        if hook != Hook::Xdp && (is_refused(&bytes) || is_long_piece(&bytes)) {
            return Action::Frame { hook: Hook::Xdp, ifindex: oracle.ifindex(UPLINK), bytes, segment_payload: 0 };
        }
        let aggregate = hook != Hook::Xdp && dice.one_in(24);
        let segment_payload = if aggregate { dice.pick(&[1, 8, 536, 1_448, 1_500]) } else { 0 };
        Action::Frame { hook, ifindex, bytes, segment_payload }
    }

    fn anywhere(&self, oracle: &Oracle, dice: &mut Dice<'_>) -> (Hook, u32) {
        let hook = dice.pick(&[Hook::Ingress, Hook::Ingress, Hook::Ingress, Hook::Xdp, Hook::Xdp, Hook::Egress]);
        match dice.below(24) {
            // Loopback is no device of ours; it has no XDP.
            23 if hook != Hook::Xdp => (hook, 1),
            0..10 => (hook, oracle.ifindex(WORKLOAD)),
            _ => (hook, oracle.ifindex(UPLINK)),
        }
    }

    fn change(&self, oracle: &Oracle, dice: &mut Dice<'_>) -> Action {
        let family = dice.below(2);
        let id = dice.below(SERVICES as usize) as u32 + family as u32 * SIX;
        let index = id + dice.pick(&[0, EXTERNAL]);
        match dice.below(40) {
            0..6 => {
                let count = 1 + dice.below(5);
                Action::Table {
                    index,
                    service: id,
                    backends: (0..count).map(|_| dice.below(BACKENDS[family].len())).collect(),
                }
            }
            6..8 => Action::Empty { index, selection: dice.pick(&[Selection::REJECT, Selection::DROP]) },
            8..10 => Action::RemoveBackend(FIRST_BACKEND + id * ROOM + dice.below(5) as u32),
            10 => Action::Epoch,
            11 => Action::Sweep(dice.below(1 << 16)),
            12 => Action::Fast { uplink: dice.one_in(2), workload: dice.one_in(2) },
            13 => Action::Flags { id: FIRST_BACKEND + id * ROOM + dice.below(5) as u32, flags: 1 << dice.below(8) },
            14..26 => Action::Clock(dice.pick(&[1, 1, 1, 1, 2, 29, 31, 180, 10_801, u32::MAX - 20])),
            26 if dice.one_in(3) => Action::Encapsulation(dice.pick(&[encapsulation::IPIP, encapsulation::GENEVE])),
            26 => Action::Limit(dice.pick(&[0, 0, 0, 3, 20])),
            27..30 => {
                let (min, max) = dice.pick(&[(1024, 29_999), (20_000, 20_003), (20_004, 20_004), (0, 0xffff), (9, 8)]);
                Action::Ports { min, max }
            }
            30..34 => {
                // The row of any node's nodePort, sometimes.
                let any = [IpAddr::from([0; 4]), IpAddr::from([0; 16])][family];
                let addr = if dice.one_in(6) { any } else { VIPS[family][(id % SIX) as usize] };
                let vip = SocketAddr::new(addr, PORT);
                let affinity = dice.one_in(3);
                let flags = (dice.below(4) as u32)
                    | if affinity { frontend_flags::AFFINITY } else { 0 }
                    | if dice.one_in(6) { frontend_flags::SOURCE_RANGES } else { 0 }
                    | if dice.one_in(3) { frontend_flags::DSR } else { 0 }
                    | if dice.one_in(3) { frontend_flags::EXTERNAL_LOCAL } else { 0 }
                    | if dice.one_in(3) { frontend_flags::INTERNAL_LOCAL } else { 0 }
                    | (dice.below(2) as u32) << frontend_flags::GENERATION_SHIFT;
                let affinity_s = if affinity { dice.pick(&[1, 30, 10_800]) } else { 0 };
                let frontend = Frontend { service: id, external: EXTERNAL + id, internal: id, flags, affinity_s };
                let proto = dice.pick(&[proto::TCP, proto::UDP, proto::SCTP]);
                Action::Frontend { vip, proto, frontend: (!dice.one_in(4)).then_some(frontend) }
            }
            34..38 => match self.remembered.get(dice.below(REMEMBERED)).and_then(|old| Talk::of(&old.bytes)) {
                Some(talk) => Action::Forget(if dice.one_in(2) { talk } else { talk.reverse() }),
                None => Action::Epoch,
            },
            38 if dice.one_in(2) => {
                let (net, bits) = dice.pick(RANGES[family]);
                Action::Range { service: id, net, bits, present: !dice.one_in(3) }
            }
            39 if dice.one_in(8) => Action::Networks,
            38 if dice.one_in(10) => Action::Crowd(dice.below(6) as u32),
            39 if dice.one_in(20) => Action::Neighbours(!oracle.knows_neighbours),
            _ => Action::Epoch,
        }
    }

    /// Does it on both.
    pub(super) fn perform(&mut self, oracle: &mut Oracle, action: &Action) -> Result<Option<Run>, String> {
        match action {
            // Not at XDP on an old kernel, which cannot be told the device.
            Action::Frame { hook: Hook::Xdp, .. } if Version::running() < Version::XDP_QUESTIONS => {}
            Action::Frame { hook, ifindex, bytes, segment_payload } => {
                oracle.segment_payload = *segment_payload;
                let run = self.frame(oracle, *hook, *ifindex, bytes);
                oracle.segment_payload = 0;
                return run.map(Some);
            }
            Action::Flags { id, flags } => oracle.change_backend_flags(*id, |old| old ^ flags),
            Action::Fast { uplink, workload } => {
                for (device, fast) in [(UPLINK, *uplink), (WORKLOAD, *workload)] {
                    if fast {
                        oracle.set_fast(&[device]);
                    } else {
                        oracle.set_slow(&[device]);
                    }
                }
            }
            Action::Table { index, service, backends } => table(oracle, *index, *service, backends),
            Action::Empty { index, selection } => oracle.set_empty_selection(*index, *selection),
            Action::RemoveBackend(id) => oracle.remove_backend(*id),
            Action::Epoch => oracle.raise_epoch(),
            Action::Sweep(first) => {
                oracle.memory.touched.clear();
                oracle.sweep_some(*first)?;
                return oracle.difference_in_touched().map_or(Ok(None), Err);
            }
            Action::Clock(seconds) => oracle.advance(*seconds),
            Action::Ports { min, max } => {
                let config = Config { snat_port_min: *min, snat_port_max: *max, ..oracle.memory.config };
                oracle.set_config(config);
            }
            Action::Encapsulation(encapsulation) => {
                oracle.set_config(Config { encapsulation: *encapsulation, ..oracle.memory.config });
            }
            Action::Limit(limit) => {
                let config = Config { max_new_flows: *limit, ..oracle.memory.config };
                oracle.set_config(config);
            }
            Action::Frontend { vip, proto, frontend } => match frontend {
                Some(frontend) => oracle.put_frontend(&vip.to_string(), *proto, *frontend),
                None => oracle.remove_frontend(&vip.to_string(), *proto),
            },
            Action::Range { service, net, bits, present } => oracle.set_range(*service, *net, *bits, *present),
            Action::Networks => oracle.set_service_networks(NETWORK_V4, NETWORK_V6),
            Action::Forget(talk) => forget(oracle, talk),
            Action::Neighbours(known) => {
                if *known {
                    oracle.learn_neighbours();
                } else {
                    oracle.forget_neighbours();
                }
            }
            Action::Crowd(room) => crowd(oracle, *room),
        }
        Ok(None)
    }

    fn frame(&mut self, oracle: &mut Oracle, hook: Hook, ifindex: u32, bytes: &[u8]) -> Result<Run, String> {
        let run = oracle.run_both(hook, ifindex, bytes)?;
        if run.outcome == Outcome::Pass && run.bytes != bytes {
            return Err(format!("passed, but changed to {}", hex(&run.bytes)));
        }
        if let (Some(before), Some(after)) = (Sums::of(bytes), Sums::of(&run.bytes))
            && !matches!(run.outcome, Outcome::Drop(_))
            && !before.may_become(&after)
        {
            return Err(format!("checksums: {before:?} became {after:?} in {}", hex(&run.bytes)));
        }
        if run.bytes != bytes {
            let next = if run.outcome == Outcome::Deliver && hook == Hook::Ingress { Hook::Egress } else { hook };
            self.remember(Remembered { bytes: bytes.to_vec(), ifindex, hook, next });
            self.remember(Remembered { bytes: run.bytes.clone(), ifindex, hook, next });
        } else if run.outcome != Outcome::Pass || self.remembered.len() < REMEMBERED {
            self.remember(Remembered { bytes: bytes.to_vec(), ifindex, hook, next: hook });
        }
        Ok(run)
    }

    fn remember(&mut self, new: Remembered) {
        self.remembered.truncate(REMEMBERED - 1);
        self.remembered.push_front(new);
    }
}

/// Whether the kernel refuses to run tc programs on a frame: it wants whole IP headers (since 6.18), or anything at all behind
/// the Ethernet header.
pub(super) fn is_refused(frame: &[u8]) -> bool {
    let least = match frame.get(12..14) {
        Some([0x08, 0x00]) => 34,
        Some([0x86, 0xdd]) => 54,
        _ => 15,
    };
    frame.len() < least
}

/// Whether a frame may be a fragment and is longer than any device here takes. tc holds fragments and sends them again, which
/// the kernel does for real: it would not come out.
fn is_long_piece(frame: &[u8]) -> bool {
    let may_be_piece = match frame.get(12..14) {
        Some([0x08, 0x00]) => frame.get(20..22).is_some_and(|bits| bits[0] & 0x3f != 0 || bits[1] != 0),
        Some([0x86, 0xdd]) => frame.get(20).is_some_and(|next| ![6, 17, 58, 132].contains(next)),
        _ => true,
    };
    frame.len() > 1_514 && may_be_piece
}

/// Gives a selection a table of some of the backends of its family.
fn table(oracle: &mut Oracle, index: u32, service: u32, backends: &[usize]) {
    let all = BACKENDS[usize::from(service >= SIX)];
    let ids: Vec<_> = backends
        .iter()
        .map(|at| {
            let id = FIRST_BACKEND + service * ROOM + *at as u32;
            let (addr, port) = all[*at];
            oracle.set_backend(id, service, &SocketAddr::new(addr, port).to_string());
            if *at == 0 {
                // The pod of this node: what comes for it out of a tunnel is unpacked.
                oracle.change_backend_flags(id, |flags| flags | backend_flags::LOCAL);
            }
            id
        })
        .collect();
    // Tables that nothing points to any more are written over, as there are many.
    if oracle.next_row > 3_000 {
        oracle.next_row = 0;
    }
    oracle.set_selection(index, &ids);
}

fn forget(oracle: &mut Oracle, talk: &Talk) {
    let (sport, dport) = (Be16::from_host(talk.sport), Be16::from_host(talk.dport));
    for table in [Table::Established, Table::Embryo] {
        match (talk.src, talk.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let (src, dst) = (src.octets(), dst.octets());
                oracle.remove_flow_v4(table, &Tuple { src, dst, sport, dport, proto: talk.proto, pad: [0; 3] });
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let (src, dst) = (src.octets(), dst.octets());
                oracle.remove_flow_v6(table, &Tuple { src, dst, sport, dport, proto: talk.proto, pad: [0; 3] });
            }
            _ => {}
        }
    }
}

/// Fills the established tables with connections of others.
fn crowd(oracle: &mut Oracle, room: u32) {
    let wanted = FLOWS.saturating_sub(room) as usize;
    for number in 0..FLOWS {
        let port = Be16::from_host(number as u16);
        if oracle.memory.v4.flows.len() < wanted {
            let key = Tuple { src: [10, 0, 0, 1], dst: [10, 0, 0, 2], sport: port, proto: 99, ..Tuple::default() };
            oracle.set_flow_v4(&key, &Flow { flags: flow_flags::EGRESS, ..Flow::default() });
        }
        if oracle.memory.v6.flows.len() < wanted {
            let key = Tuple { src: [1; 16], dst: [2; 16], sport: port, proto: 99, ..Tuple::default() };
            oracle.set_flow_v6(&key, &Flow { flags: flow_flags::EGRESS, ..Flow::default() });
        }
    }
}

//! When a connection is over, and its removal: both directions or neither (B21).
//!
//! The agent's sweep finds flows that look old, and has the kernel look at them once more at the very moment of their
//! removal (B25): between the two a packet may have come.

use crate::{
    env::{Env, Table},
    family::Family,
    flow,
    maps::{Clock, Flow, SWEEP_FLOWS, SWEEP_KEYS, SWEEP_KEYS_FLAT, SWEEP_TIMEOUTS, Timeouts, Tuple, flow_state},
    net::proto,
    packet::Packet,
    wire::Header,
};

impl Timeouts {
    /// Seconds of silence after which a connection in this state is forgotten.
    #[inline(always)]
    pub const fn of(&self, protocol: u8, state: u8) -> u32 {
        let both = flow_state::FIN | flow_state::PEER_FIN;
        let answered = state & (flow_state::ESTABLISHED | flow_state::REPLIED) != 0;
        if protocol != proto::TCP && protocol != proto::SCTP {
            return if answered { self.udp_answered } else { self.udp };
        }
        if state & flow_state::RST != 0 {
            self.reset
        } else if state & both == both {
            self.closed
        } else if state & flow_state::ESTABLISHED == 0 {
            self.half_open
        } else if protocol == proto::SCTP {
            self.sctp
        } else if state & both != 0 {
            self.half_closed
        } else {
            self.established
        }
    }
}

/// Seconds since `seen_s`. The clock wraps, and a packet may have come after it was read.
#[inline(always)]
pub const fn since(now: Clock, seen_s: Clock) -> u32 {
    let passed = now.wrapping_sub(seen_s);
    if passed > u32::MAX / 2 { 0 } else { passed }
}

/// What is known of a connection whose one direction has `state` and whose other one, with its own `partner` state, has
/// had packets if `answered`.
#[inline(always)]
pub const fn joint_state(state: u8, partner: u8, answered: bool) -> u8 {
    let mut joint = state | (partner & (flow_state::RST | flow_state::ESTABLISHED));
    if answered {
        joint |= flow_state::REPLIED;
    }
    if partner & flow_state::FIN != 0 {
        joint |= flow_state::PEER_FIN;
    }
    if partner & flow_state::PEER_FIN != 0 {
        joint |= flow_state::FIN;
    }
    joint
}

/// What the tables say of one direction.
#[derive(Clone, Copy, Default)]
struct Sight {
    /// In how many tables it is: in both while it is promoted.
    tables: u32,
    /// Seconds since its last packet.
    idle_s: u32,
    state: u8,
    had_packets: bool,
}

impl Sight {
    #[inline(always)]
    fn add<A>(&mut self, flow: &Flow<A>, now: Clock) {
        let idle_s = since(now, flow.seen_s);
        self.idle_s = if self.tables == 0 || idle_s < self.idle_s { idle_s } else { self.idle_s };
        self.tables += 1;
        self.state |= flow.state;
        self.had_packets |= flow.packets > 0;
    }
}

/// The half-open table comes first: a connection is promoted by an insertion into the established one and then a removal
/// from the half-open one, so one that moves between the two look-ups is still seen.
const TABLES: [Table; 2] = [Table::Embryo, Table::Established];

/// Removes a flow and its partner from both tables if the connection has been silent for too long; returns whether.
///
/// Not inlined: called for each key of a frame, with a frame of its own on the stack.
#[inline(never)]
pub fn expire<F: Family, E: Env<F>>(env: &mut E, key: &Tuple<F::Addr>, timeouts: &Timeouts, now: Clock) -> bool {
    let (mut own, mut partner) = (Sight::default(), Sight::default());
    let mut back = Tuple::default();
    for table in TABLES {
        if let Some(flow) = env.lookup_flow(table, key) {
            own.add(flow, now);
            back = flow::partner_key(flow, key.proto);
        }
    }
    if own.tables == 0 {
        return false;
    }
    for table in TABLES {
        if let Some(flow) = env.lookup_flow(table, &back) {
            partner.add(flow, now);
        }
    }
    let state = joint_state(own.state, partner.state, partner.had_packets);
    let idle_s = if partner.tables > 0 && partner.idle_s < own.idle_s { partner.idle_s } else { own.idle_s };
    let limit_s = timeouts.of(key.proto, state);
    if idle_s < limit_s {
        return false;
    }
    for table in TABLES {
        env.remove_silent(table, &back, now, limit_s);
        env.remove_silent(table, key, now, limit_s);
    }
    true
}

/// Keys that one run of the program works off.
const KEYS: usize = if cfg!(feature = "flat") { SWEEP_KEYS_FLAT } else { SWEEP_KEYS };

/// Works off a frame of the agent's, see [`crate::maps::Timeouts`]; the bits of the result say which keys were removed.
#[inline(always)]
pub fn sweep<F: Family, P: Packet, E: Env<F>>(pkt: &mut P, env: &mut E) -> u32
where
    Tuple<F::Addr>: Header,
{
    let Ok(timeouts) = pkt.header_mut::<Timeouts>(SWEEP_TIMEOUTS).copied() else {
        return 0;
    };
    let now = env.now();
    let mut removed = 0;
    for index in 0..KEYS {
        let offset = SWEEP_FLOWS + index * size_of::<Tuple<F::Addr>>();
        let Ok(key) = pkt.header_mut::<Tuple<F::Addr>>(offset).copied() else {
            return removed;
        };
        if key.proto == 0 {
            return removed;
        }
        if expire::<F, E>(env, &key, &timeouts, now) {
            removed |= 1 << index;
        }
    }
    removed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b16_to_b19_the_time_outs_are_those_of_the_table() {
        use flow_state::{ESTABLISHED, FIN, PEER_FIN, REPLIED, RST};
        for (protocol, state, expected) in [
            (proto::TCP, 0, 60),
            (proto::TCP, REPLIED, 60),
            (proto::TCP, ESTABLISHED, 8_000),
            (proto::TCP, ESTABLISHED | FIN, 3_600),
            (proto::TCP, ESTABLISHED | PEER_FIN, 3_600),
            (proto::TCP, ESTABLISHED | FIN | PEER_FIN, 120),
            (proto::TCP, ESTABLISHED | RST, 40),
            (proto::UDP, 0, 30),
            (proto::UDP, REPLIED, 180),
            (proto::UDP, ESTABLISHED, 180),
            (proto::SCTP, 0, 60),
            (proto::SCTP, ESTABLISHED, 210),
            (proto::SCTP, ESTABLISHED | FIN, 210),
            (proto::SCTP, ESTABLISHED | FIN | PEER_FIN, 120),
            (proto::SCTP, ESTABLISHED | RST, 40),
        ] {
            assert_eq!(Timeouts::default().of(protocol, state), expected, "protocol {protocol} state {state:#b}");
        }
    }

    #[test]
    fn the_partners_fin_is_the_other_directions() {
        use flow_state::{FIN, PEER_FIN, REPLIED};
        assert_eq!(joint_state(FIN, PEER_FIN, false), FIN);
        assert_eq!(joint_state(FIN, FIN, true), FIN | PEER_FIN | REPLIED);
        assert_eq!(joint_state(0, PEER_FIN, false), FIN);
        assert_eq!(joint_state(0, FIN, false), PEER_FIN);
    }

    #[test]
    fn silence_survives_the_wrap_of_the_clock_and_a_packet_after_the_reading() {
        assert_eq!(since(5, u32::MAX - 4), 10);
        assert_eq!(since(100, 101), 0);
    }
}

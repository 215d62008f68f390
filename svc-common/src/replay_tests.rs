use proptest::{prelude::*, strategy::ValueTree};

use super::*;
use crate::{
    family::{V4, V6},
    host::Memory,
    known::{WORDS, any_port, bit, place},
    maps::Config,
    net::{Be16, Mac},
    packet::Frame,
    pipeline::{attentive, run},
};

const DEVICE: u32 = 5;

/// What may be out of the ordinary, in the packet and in its flow.
#[derive(Clone, Debug)]
struct Case {
    udp: bool,
    tcp_flags: u8,
    ttl: u8,
    payload: u16,
    /// How much more or less the IP header says.
    len_error: i16,
    /// First byte of the IP header; IPv4 with options if it says so.
    first: u8,
    fragment: u16,
    checksum: u16,
    segment_payload: u32,
    flow: Option<Flow<u32>>,
}

/// Mostly ordinary: of many things each is rarely otherwise.
fn rarely<T: Clone + core::fmt::Debug + 'static>(
    usual: T,
    other: impl Strategy<Value = T> + 'static,
) -> impl Strategy<Value = T> {
    prop_oneof![9 => Just(usual), 1 => other]
}

fn flows() -> impl Strategy<Value = Flow<u32>> {
    let sent = flow_flags::FORWARD | flow_flags::HOP_RESOLVED | flow_flags::HOP_XDP;
    let flags = prop_oneof![4 => Just(sent), 2 => Just(flow_flags::EGRESS), 2 => Just(0), 2 => any::<u8>()];
    let times = (rarely(1, 0..3u32), rarely(70, 69..72u32), prop_oneof![Just(DEVICE), Just(6)]);
    (flags, rarely(flow_state::ESTABLISHED, any::<u8>()), times, rarely(1500, 0..1500u16), any::<[u16; 4]>()).prop_map(
        |(flags, state, (epoch, seen_s, ifindex), mtu, [sport, dport, addr_delta, port_delta])| Flow {
            src: 0x0102_0304,
            dst: 0x0506_0708,
            sport: Be16::from_raw(sport),
            dport: Be16::from_raw(dport),
            addr_delta,
            port_delta,
            mtu,
            state,
            flags: possible(flags),
            epoch,
            seen_s,
            ifindex,
            dst_mac: Mac([2, 0, 0, 0, 0, 1]),
            src_mac: Mac([2, 0, 0, 0, 0, 2]),
            service: 3,
            backend: 4,
            packets: 7,
            bytes: 700,
        },
    )
}

/// Only what our programs forward has a next hop, and what goes into a tunnel is in the other table.
fn possible(flags: u8) -> u8 {
    let hop = flow_flags::HOP_RESOLVED | flow_flags::HOP_XDP | flow_flags::HOP_PEER;
    flags & !flow_flags::ENCAP & !if flags & flow_flags::FORWARD == 0 { hop } else { 0 }
}

fn cases() -> impl Strategy<Value = Case> {
    let packet = (any::<bool>(), rarely(0x10, any::<u8>()), rarely(64, 0..3u8), 0..1600u16, any::<u16>());
    let header = (rarely(0, -40..40i16), rarely(0, any::<u8>()), rarely(0, any::<u16>()), rarely(0, 1..1500u32));
    (packet, header, prop::option::weighted(0.9, flows())).prop_map(
        |((udp, tcp_flags, ttl, payload, checksum), (len_error, first, fragment, segment_payload), flow)| Case {
            udp,
            tcp_flags,
            ttl,
            payload,
            len_error,
            first,
            fragment,
            checksum,
            segment_payload,
            flow,
        },
    )
}

impl Case {
    fn transport(&self) -> Vec<u8> {
        let mut bytes = vec![0; if self.udp { 8 } else { 20 } + usize::from(self.payload)];
        bytes[..4].copy_from_slice(&[0x9c, 0x40, 0, 80]);
        let checksum = if self.udp { 6 } else { 16 };
        if !self.udp {
            (bytes[12], bytes[13]) = (0x50, self.tcp_flags);
        }
        bytes[checksum..checksum + 2].copy_from_slice(&self.checksum.to_be_bytes());
        bytes
    }

    fn proto(&self) -> u8 {
        if self.udp { proto::UDP } else { proto::TCP }
    }

    fn tuple<A>(&self, src: A, dst: A) -> Tuple<A> {
        let [sport, dport] = [40_000, 80].map(Be16::from_host);
        Tuple { src, dst, sport, dport, proto: self.proto(), pad: [0; 3] }
    }

    fn len(&self, transport: &[u8], header: usize) -> Be16 {
        Be16::from_host(((transport.len() + header) as u16).wrapping_add_signed(self.len_error))
    }
}

fn v4(case: &Case, memory: &mut Memory) -> Vec<u8> {
    let transport = case.transport();
    let mut ip = [0; 20];
    ip[0] = 0x45 ^ case.first;
    ip[2..4].copy_from_slice(&case.len(&transport, 20).0);
    ip[6..8].copy_from_slice(&case.fragment.to_be_bytes());
    (ip[8], ip[9]) = (case.ttl, case.proto());
    ip[12..20].copy_from_slice(&[192, 0, 2, 1, 10, 96, 0, 1]);
    if let Some(flow) = &case.flow {
        let [src, dst] = [flow.src, flow.dst].map(u32::to_be_bytes);
        memory.v4.flows.insert(case.tuple([192, 0, 2, 1], [10, 96, 0, 1]), with_addresses(flow, src, dst));
    }
    [&[0; 12][..], &[8, 0], &ip, &transport].concat()
}

fn v6(case: &Case, memory: &mut Memory) -> Vec<u8> {
    let transport = case.transport();
    let mut ip = [0; 40];
    ip[0] = 0x60 ^ case.first;
    ip[4..6].copy_from_slice(&case.len(&transport, 0).0);
    (ip[6], ip[7]) = (case.proto(), case.ttl);
    (ip[23], ip[39]) = (1, 2);
    if let Some(flow) = &case.flow {
        let [src, dst] = [flow.src, flow.dst].map(|word| u128::from(word).to_be_bytes());
        let key = case.tuple(1u128.to_be_bytes(), 2u128.to_be_bytes());
        memory.v6.flows.insert(key, with_addresses(flow, src, dst));
    }
    [&[0; 12][..], &[0x86, 0xdd], &ip, &transport].concat()
}

fn with_addresses<A>(flow: &Flow<u32>, src: A, dst: A) -> Flow<A> {
    let Flow { sport, dport, addr_delta, port_delta, mtu, state, flags, epoch, seen_s, ifindex, .. } = *flow;
    let Flow { dst_mac, src_mac, service, backend, packets, bytes, .. } = *flow;
    Flow {
        src,
        dst,
        sport,
        dport,
        addr_delta,
        port_delta,
        mtu,
        state,
        flags,
        epoch,
        seen_s,
        ifindex,
        dst_mac,
        src_mac,
        service,
        backend,
        packets,
        bytes,
    }
}

/// Both ways with the same packet and state.
fn same<F: Family, const H: u8>(case: &Case, frame: &[u8], memory: &Memory)
where
    Memory: Env<F>,
{
    let through = |short: bool| {
        let (mut memory, mut pkt) = (memory.clone(), Frame::<H>::new(frame, DEVICE).aggregate(case.segment_payload));
        let packed = if short {
            run::<F, _, _, false>(&mut pkt, &mut memory)
        } else {
            attentive::<F, _, _, false>(&mut pkt, &mut memory)
        };
        (packed, pkt.bytes().to_vec(), memory.v4.flows, memory.v6.flows, memory.services)
    };
    assert_eq!(through(true), through(false), "{case:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(5_000))]

    #[test]
    fn b10_the_short_way_does_what_the_long_one_does(case in cases()) {
        let mut memory = Memory { config: Config { epoch: 1, ..Config::default() }, now: 70, ..Memory::default() };
        let (v4, v6) = (v4(&case, &mut memory), v6(&case, &mut memory));
        same::<V4, 0>(&case, &v4, &memory);
        same::<V4, 1>(&case, &v4, &memory);
        same::<V4, 2>(&case, &v4, &memory);
        same::<V6, 0>(&case, &v6, &memory);
        same::<V6, 1>(&case, &v6, &memory);
        same::<V6, 2>(&case, &v6, &memory);
    }
}

#[test]
fn most_cases_take_the_short_way() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut short = [0; 3];
    for _ in 0..1_000 {
        let case = cases().new_tree(&mut runner).unwrap().current();
        let mut memory = Memory { config: Config { epoch: 1, ..Config::default() }, now: 70, ..Memory::default() };
        let frame = v4(&case, &mut memory);
        let mut count = |hook: usize, done: bool| short[hook] += u32::from(done);
        count(0, replay::<V4, _, _>(&mut Frame::<0>::new(&frame, DEVICE), &mut memory.clone()).is_some());
        count(1, replay::<V4, _, _>(&mut Frame::<1>::new(&frame, DEVICE), &mut memory.clone()).is_some());
        count(2, replay::<V4, _, _>(&mut Frame::<2>::new(&frame, DEVICE), &mut memory).is_some());
    }
    assert!(short.iter().all(|&short| short > 20), "{short:?} of 1,000 each");
}

#[test]
fn who_is_dialled_and_who_answers_is_known() {
    const CLIENT: [u8; 4] = [192, 0, 2, 1];
    const VIP: [u8; 4] = [10, 96, 0, 1];
    const BACKEND: [u8; 4] = [10, 244, 0, 5];
    let web = bit(Be16::from_host(80));
    let concerns = |(known, bits), (src, sport), (dst, dport)| {
        let mut memory = Memory { known: Some([(place::<V4>(&known), bits)].into()), ..Memory::default() };
        let [sport, dport] = [sport, dport].map(Be16::from_host);
        concerns::<V4, _>(&mut memory, &Tuple { src, dst, sport, dport, proto: proto::TCP, pad: [0; 3] })
    };
    let (client, vip, backend) = ((CLIENT, 40_000), (VIP, 80), (BACKEND, 80));
    assert!(concerns((VIP, web), client, vip) && concerns((VIP, any_port::<V4>(&VIP)), client, vip));
    assert!(concerns((BACKEND, web), backend, client) && concerns((BACKEND, web), client, backend));
    assert!(!concerns((VIP, !web & !any_port::<V4>(&VIP)), client, vip) && !concerns((BACKEND, !web), backend, client));
    assert!(!concerns((BACKEND, any_port::<V4>(&BACKEND) & !web), backend, client), "only of what is dialled");
    assert!(!concerns((CLIENT, web), client, vip) && !concerns((VIP, web), client, backend));
}

/// Ten thousand VIPs in a row leave most other addresses unknown, in both families.
#[test]
fn addresses_in_a_row_have_words_and_bits_of_their_own() {
    fn mistaken<F: Family>(addr: impl Fn(u32) -> F::Addr) -> usize {
        let mut words = vec![0_u64; WORDS as usize];
        (0..10_000).for_each(|n| words[place::<F>(&addr(n)) as usize] |= any_port::<F>(&addr(n)));
        (20_000..30_000).filter(|&n| words[place::<F>(&addr(n)) as usize] & any_port::<F>(&addr(n)) != 0).count()
    }
    assert!(mistaken::<V4>(|n| (0x0a60_0000 + n).to_be_bytes()) < 100);
    assert!(mistaken::<V6>(|n| (0xfd00_0096 << 96 | u128::from(n)).to_be_bytes()) < 100);
    assert!(mistaken::<V6>(|n| (0xfd00_0096 << 96 | u128::from(n) << 64 | 1).to_be_bytes()) < 100);
}

//! The least that each job takes: parse, one look-up (or insertion), rewrite, checksums, and nothing else. No TTL check,
//! no MTU, no state, no counters, no time; IP options and extension headers are not parsed but passed.
#![expect(clippy::indexing_slicing, reason = "by constants and small loops, which the compiler unrolls")]
#![expect(clippy::needless_borrows_for_generic_args, reason = "a key by value would be copied")]

use aya_ebpf::{
    EbpfContext,
    bindings::{BPF_F_PSEUDO_HDR, BPF_NOEXIST, TC_ACT_OK, TC_ACT_SHOT, xdp_action},
    helpers::{bpf_l4_csum_replace, bpf_redirect},
    macros::{classifier, map, xdp},
    maps::{HashMap, LruHashMap},
    programs::{TcContext, XdpContext},
};

use crate::frame::{at, patched};

/// A key of `W` words: addresses, ports, protocol.
type Key<const W: usize> = [u32; W];
const V4: usize = 4;
const V6: usize = 10;

/// What a replay needs: the new destination, in as many words as its family has, and what that does to checksums.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Rewrite<const A: usize> {
    dst: [u32; A],
    dport: u16,
    l3_delta: u16,
    addr_delta: u16,
    port_delta: u16,
}

#[map]
static LIMIT_V4: LruHashMap<Key<V4>, Rewrite<1>> = LruHashMap::with_max_entries(1, 0);
#[map]
static LIMIT_V6: LruHashMap<Key<V6>, Rewrite<4>> = LruHashMap::with_max_entries(1, 0);
// As many as half-open connections: insertions evict.
#[map]
static INSERT_V4: LruHashMap<Key<V4>, Rewrite<1>> = LruHashMap::with_max_entries(65_536, 0);
#[map]
static INSERT_V6: LruHashMap<Key<V6>, Rewrite<4>> = LruHashMap::with_max_entries(65_536, 0);
#[map]
static PLAIN_V4: HashMap<Key<V4>, Rewrite<1>> = HashMap::with_max_entries(1, 0);
#[map]
static PLAIN_V6: HashMap<Key<V6>, Rewrite<4>> = HashMap::with_max_entries(1, 0);

const TCP: u8 = 6;
const UDP: u8 = 17;

/// Where the transport header and its checksum are.
struct Found<const W: usize> {
    key: Key<W>,
    l4: usize,
    checksum: usize,
}

/// Reads the headers; nothing for what is not plain TCP or UDP of this family.
#[inline(always)]
fn parse<const W: usize>(start: usize, end: usize) -> Option<Found<W>> {
    let ether_type: u16 = *at(start, end, 12)?;
    let mut key = [0; W];
    let (proto, l4) = if W == V4 {
        let ip = at::<[u32; 5]>(start, end, 14)?;
        // Version, header length, and neither fragment bits nor offset but "do not fragment".
        if ether_type != 0x0800_u16.to_be() || ip[0] as u8 != 0x45 || ip[1] >> 16 & 0xffbf != 0 {
            return None;
        }
        (key[0], key[1]) = (ip[3], ip[4]);
        ((ip[2] >> 8) as u8, 34)
    } else {
        let ip = at::<[u32; 10]>(start, end, 14)?;
        if ether_type != 0x86dd_u16.to_be() || ip[0] as u8 >> 4 != 6 {
            return None;
        }
        key[..8].copy_from_slice(&ip[2..]);
        ((ip[1] >> 16) as u8, 54)
    };
    let checksum = match proto {
        TCP => l4 + 16,
        UDP => l4 + 6,
        _ => return None,
    };
    key[W - 2] = *at(start, end, l4)?;
    key[W - 1] = u32::from(proto);
    Some(Found { key, l4, checksum })
}

/// Writes the new destination and the IPv4 header's checksum, one less TTL, and turns the Ethernet addresses round.
#[inline(always)]
fn rewrite<const W: usize, const A: usize>(start: usize, end: usize, found: &Found<W>, to: &Rewrite<A>) -> Option<()> {
    let macs = at::<[u16; 6]>(start, end, 0)?;
    *macs = [macs[3], macs[4], macs[5], macs[0], macs[1], macs[2]];
    if W == V4 {
        let ttl = at::<u8>(start, end, 22)?;
        *ttl = ttl.wrapping_sub(1);
        let checksum = at::<u16>(start, end, 24)?;
        *checksum = patched(*checksum, u32::from(to.l3_delta));
        *at(start, end, 30)? = to.dst;
    } else {
        let hops = at::<u8>(start, end, 21)?;
        *hops = hops.wrapping_sub(1);
        *at(start, end, 38)? = to.dst;
    }
    *at(start, end, found.l4 + 2)? = to.dport;
    Some(())
}

#[inline(always)]
fn replay_xdp<const W: usize, const A: usize>(ctx: &XdpContext, table: &LruHashMap<Key<W>, Rewrite<A>>) -> Option<u32> {
    let (start, end) = (ctx.data(), ctx.data_end());
    let found = parse::<W>(start, end)?;
    // SAFETY: the benchmark writes it before it measures.
    let to = unsafe { &*table.get_ptr(&found.key)? };
    rewrite(start, end, &found, to)?;
    let checksum = at::<u16>(start, end, found.checksum)?;
    *checksum = patched(*checksum, u32::from(to.addr_delta) + u32::from(to.port_delta));
    Some(xdp_action::XDP_TX)
}

#[inline(always)]
fn replay_tc<const W: usize, const A: usize, const HELPERS: bool>(
    ctx: &TcContext,
    table: &LruHashMap<Key<W>, Rewrite<A>>,
) -> Option<i32> {
    let (start, end) = (ctx.data(), ctx.data_end());
    let found = parse::<W>(start, end)?;
    // SAFETY: as above.
    let to = unsafe { &*table.get_ptr(&found.key)? };
    rewrite(start, end, &found, to)?;
    if HELPERS {
        let (skb, offset) = (ctx.as_ptr().cast(), found.checksum as u32);
        let (addr, port) = (u64::from(to.addr_delta), u64::from(to.port_delta));
        // SAFETY: the context is the program's own.
        let failed = unsafe {
            bpf_l4_csum_replace(skb, offset, 0, addr, u64::from(BPF_F_PSEUDO_HDR)) != 0
                || bpf_l4_csum_replace(skb, offset, 0, port, 0) != 0
        };
        if failed {
            return Some(TC_ACT_SHOT);
        }
    } else {
        let checksum = at::<u16>(start, end, found.checksum)?;
        *checksum = patched(*checksum, u32::from(to.addr_delta) + u32::from(to.port_delta));
    }
    // SAFETY: no pointers.
    Some(unsafe { bpf_redirect((*ctx.skb.skb).ifindex, 0) } as i32)
}

/// Inserts once or twice, for this direction and the other one.
#[inline(always)]
fn insert<const W: usize, const A: usize, const TWICE: bool>(
    (start, end): (usize, usize),
    table: &LruHashMap<Key<W>, Rewrite<A>>,
) -> Option<()> {
    let found = parse::<W>(start, end)?;
    let to = Rewrite { dst: [0x0a00_000a; A], dport: 0x901f, l3_delta: 1, addr_delta: 2, port_delta: 3 };
    table.insert(&found.key, &to, u64::from(BPF_NOEXIST)).ok()?;
    if TWICE {
        let mut other = found.key;
        for word in 0..A {
            (other[word], other[A + word]) = (to.dst[word], found.key[word]);
        }
        other[W - 2] = found.key[W - 2].rotate_left(16);
        table.insert(&other, &to, u64::from(BPF_NOEXIST)).ok()?;
    }
    rewrite(start, end, &found, &to)?;
    let checksum = at::<u16>(start, end, found.checksum)?;
    *checksum = patched(*checksum, u32::from(to.addr_delta) + u32::from(to.port_delta));
    Some(())
}

/// Looks up once; sends what is found, passes what is not.
#[inline(always)]
fn look_up<const W: usize, const A: usize>(
    (start, end): (usize, usize),
    table: &HashMap<Key<W>, Rewrite<A>>,
) -> Option<()> {
    let found = parse::<W>(start, end)?;
    table.get_ptr(&found.key).map(|_| ())
}

macro_rules! programs {
    ($(
        $doc:literal: $words:ident, $limit:ident, $insert:ident, $plain:ident,
        $xdp:ident, $direct:ident, $helpers:ident, $one:ident, $two:ident, $one_tc:ident, $two_tc:ident, $lookup:ident,
        $lookup_tc:ident;
    )*) => {
        $(
            #[doc = concat!($doc, ": replay at XDP.")]
            #[xdp]
            pub fn $xdp(ctx: XdpContext) -> u32 {
                replay_xdp(&ctx, &$limit).unwrap_or(xdp_action::XDP_PASS)
            }

            #[doc = concat!($doc, ": replay at tc, the checksum written directly.")]
            #[classifier]
            pub fn $direct(ctx: TcContext) -> i32 {
                replay_tc::<_, _, false>(&ctx, &$limit).unwrap_or(TC_ACT_OK)
            }

            #[doc = concat!($doc, ": replay at tc, the checksum by the kernel's helpers.")]
            #[classifier]
            pub fn $helpers(ctx: TcContext) -> i32 {
                replay_tc::<_, _, true>(&ctx, &$limit).unwrap_or(TC_ACT_OK)
            }

            #[doc = concat!($doc, ": one insertion at XDP.")]
            #[xdp]
            pub fn $one(ctx: XdpContext) -> u32 {
                let inserted = insert::<$words, _, false>((ctx.data(), ctx.data_end()), &$insert);
                inserted.map_or(xdp_action::XDP_PASS, |()| xdp_action::XDP_TX)
            }

            #[doc = concat!($doc, ": two insertions at XDP.")]
            #[xdp]
            pub fn $two(ctx: XdpContext) -> u32 {
                let inserted = insert::<$words, _, true>((ctx.data(), ctx.data_end()), &$insert);
                inserted.map_or(xdp_action::XDP_PASS, |()| xdp_action::XDP_TX)
            }

            #[doc = concat!($doc, ": one insertion at tc.")]
            #[classifier]
            pub fn $one_tc(ctx: TcContext) -> i32 {
                let inserted = insert::<$words, _, false>((ctx.data(), ctx.data_end()), &$insert);
                inserted.map_or(TC_ACT_SHOT, |()| TC_ACT_OK)
            }

            #[doc = concat!($doc, ": two insertions at tc.")]
            #[classifier]
            pub fn $two_tc(ctx: TcContext) -> i32 {
                let inserted = insert::<$words, _, true>((ctx.data(), ctx.data_end()), &$insert);
                inserted.map_or(TC_ACT_SHOT, |()| TC_ACT_OK)
            }

            #[doc = concat!($doc, ": one look-up in a plain hash table at XDP.")]
            #[xdp]
            pub fn $lookup(ctx: XdpContext) -> u32 {
                let found = look_up::<$words, _>((ctx.data(), ctx.data_end()), &$plain);
                found.map_or(xdp_action::XDP_PASS, |()| xdp_action::XDP_TX)
            }

            #[doc = concat!($doc, ": one look-up in a plain hash table at tc.")]
            #[classifier]
            pub fn $lookup_tc(ctx: TcContext) -> i32 {
                let found = look_up::<$words, _>((ctx.data(), ctx.data_end()), &$plain);
                found.map_or(TC_ACT_OK, |()| TC_ACT_SHOT)
            }
        )*
    };
}

programs! {
    "IPv4": V4, LIMIT_V4, INSERT_V4, PLAIN_V4,
        v4_xdp, v4_tc_direct, v4_tc_helpers, v4_insert, v4_insert_two, v4_tc_insert, v4_tc_insert_two, v4_look_up,
        v4_tc_look_up;
    "IPv6": V6, LIMIT_V6, INSERT_V6, PLAIN_V6,
        v6_xdp, v6_tc_direct, v6_tc_helpers, v6_insert, v6_insert_two, v6_tc_insert, v6_tc_insert_two, v6_look_up,
        v6_tc_look_up;
}

/// Does nothing.
#[xdp]
pub fn empty_xdp(_ctx: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

/// Does nothing.
#[classifier]
pub fn empty_tc(_ctx: TcContext) -> i32 {
    TC_ACT_OK
}

/// Swaps the Ethernet addresses and sends the frame back.
#[xdp]
pub fn mac_swap(ctx: XdpContext) -> u32 {
    let Some(macs) = at::<[u16; 6]>(ctx.data(), ctx.data_end(), 0) else {
        return xdp_action::XDP_ABORTED;
    };
    *macs = [macs[3], macs[4], macs[5], macs[0], macs[1], macs[2]];
    xdp_action::XDP_TX
}

//! A filter that tells most packets of others from those that may be ours, by two words that stay in the cache.
//!
//! A word for each hash of an address has a bit for each hash of a port and of the address: set for every endpoint that is dialled or answers,
//! frontends and backends, before the datapath can record a connection with it. Where no bit is set there is neither a half-open connection
//! nor a frontend; where one is, the tables are asked. Only established connections are found without it, so a bit may be cleared
//! once the others that need it are gone.

use crate::{env::Env, family::Family, maps::Tuple, net::Be16};

/// log2 of the number of words.
const PLACE_BITS: u32 = 16;
/// The number of words.
pub const WORDS: u32 = 1 << PLACE_BITS;
/// An odd number that spreads what is multiplied by it over the upper bits.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// The hash of an address; its upper bits depend on all of it.
#[inline(always)]
fn hash<F: Family>(addr: &F::Addr) -> u64 {
    F::mix(addr, 0).wrapping_mul(SPREAD)
}

/// Where the word of an address is.
#[inline(always)]
pub fn place<F: Family>(addr: &F::Addr) -> u32 {
    (hash::<F>(addr) >> (u64::BITS - PLACE_BITS)) as u32
}

/// The bit of a port.
#[inline(always)]
pub const fn bit(port: Be16) -> u64 {
    1 << ((port.raw() as u64).wrapping_mul(SPREAD) >> (u64::BITS - 6))
}

/// The bit of an address that is ours whatever the port.
#[inline(always)]
pub fn any_port<F: Family>(addr: &F::Addr) -> u64 {
    1 << (hash::<F>(addr) >> (u64::BITS - PLACE_BITS - 6) & 63)
}

/// Whether a packet may belong to a half-open connection or open one.
#[inline(always)]
pub fn concerns<F: Family, E: Env<F>>(env: &mut E, tuple: &Tuple<F::Addr>) -> bool {
    let dialled = env.known(place::<F>(&tuple.dst)) & (any_port::<F>(&tuple.dst) | bit(tuple.dport));
    let answers = env.known(place::<F>(&tuple.src)) & bit(tuple.sport);
    dialled | answers != 0
}

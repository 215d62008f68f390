//! Hashes that never change: nodes of different versions, and agents before and after an upgrade, have to choose alike.

/// FNV-1a with 64 bits over all parts as if they were one. It spreads short keys poorly: [`mix`] it.
pub fn fnv1a(parts: &[&[u8]]) -> u64 {
    let bytes = parts.iter().copied().flatten();
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// A step of the finalisers of MurmurHash3 and SplitMix64: brings high bits into low ones, and these everywhere.
pub const fn mix(hash: u64, shift: u32, factor: u64) -> u64 {
    (hash ^ (hash >> shift)).wrapping_mul(factor)
}

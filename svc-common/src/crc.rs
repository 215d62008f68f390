//! How a CRC32c (Castagnoli) changes with the bytes it is about, without reading the others.
//!
//! A CRC is linear: what new bytes change in it is the remainder of their difference times `x` to the number of bits that
//! follow. So the update costs the same for every packet, reaches into none, and leaves a wrong checksum wrong.

/// The polynomial, reflected: bit 31 is the coefficient of `x` to the power of zero.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// `x` to the power of zero.
const ONE: u32 = 1 << 31;

/// `x` to the power of as many bits as the index has bytes.
static BYTES: [u32; 256] = powers(1 << (31 - 8));

/// The same for 256 times as many.
static PAGES: [u32; 256] = powers(multiply(BYTES[255], BYTES[1]));

/// The powers of a remainder from zero on.
#[expect(clippy::indexing_slicing, reason = "the index is within the table")]
const fn powers(of: u32) -> [u32; 256] {
    let mut powers = [ONE; 256];
    let mut index = 1;
    while index < powers.len() {
        powers[index] = multiply(powers[index - 1], of);
        index += 1;
    }
    powers
}

/// The product modulo the polynomial. Without branches, as the verifier would follow every one of them, and in words of 64
/// bits, for which BPF needs the fewest instructions.
#[inline(always)]
const fn multiply(a: u32, b: u32) -> u32 {
    // The next coefficient to look at is the sign.
    let mut a = (a as i64) << 32;
    let mut b = b as u64;
    let mut product = 0;
    let mut power = 0;
    while power < 32 {
        product ^= b & (a >> 63) as u64;
        b = (b >> 1) ^ (POLYNOMIAL as u64 & 0u64.wrapping_sub(b & 1));
        a <<= 1;
        power += 1;
    }
    product as u32
}

/// What to combine (exclusive or) with the checksum of `len` bytes if `difference` (likewise) is what happens to the first
/// four of them, as they lie in memory.
#[expect(clippy::indexing_slicing, reason = "the index is within the table")]
#[inline(always)]
pub fn delta(difference: [u8; 4], len: u16) -> u32 {
    // The four bytes themselves are as many bits as the remainder has, so the whole length counts.
    let [low, high] = len.to_le_bytes();
    let power = multiply(BYTES[usize::from(low)], PAGES[usize::from(high)]);
    multiply(u32::from_le_bytes(difference), power)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The checksum, bit by bit.
    fn crc32c(bytes: &[u8]) -> u32 {
        let mut crc = u32::MAX;
        for byte in bytes {
            crc ^= u32::from(*byte);
            for _ in 0..8 {
                crc = if crc & 1 == 0 { crc >> 1 } else { (crc >> 1) ^ POLYNOMIAL };
            }
        }
        !crc
    }

    fn check(bytes: &mut [u8], new: [u8; 4]) {
        let before = crc32c(bytes);
        let old: [u8; 4] = bytes[..4].try_into().unwrap();
        bytes[..4].copy_from_slice(&new);
        let difference = std::array::from_fn(|n| old[n] ^ new[n]);
        assert_eq!(before ^ delta(difference, bytes.len() as u16), crc32c(bytes), "{} bytes", bytes.len());
    }

    #[test]
    fn b06_the_checksum_of_the_reference_is_found() {
        // RFC 3720 appendix B.4.
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn b06_an_update_equals_recomputation_at_every_length_of_a_frame() {
        for len in 4..=1500 {
            let mut bytes: Vec<u8> = (0..len).map(|n| (n * 31 % 251) as u8).collect();
            check(&mut bytes, [0x12, 0x34, 0xab, 0xcd]);
        }
    }

    proptest! {
        #[test]
        fn b06_an_update_equals_recomputation(len in 4usize..=65_535, seed: u8, new: [u8; 4]) {
            let mut bytes: Vec<u8> = (0..len).map(|n| (n as u8).wrapping_mul(seed) ^ (n >> 8) as u8).collect();
            check(&mut bytes, new);
        }
    }
}

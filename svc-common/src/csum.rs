//! Incremental Internet checksums (RFC 1071, RFC 1624 equation 3).
//!
//! Sums are over 16-bit words as they lie in memory, never byte-swapped. A *delta* is what replacing old words by new
//! ones adds to the ones' complement sum: `~m + m'` for each word, folded to 16 bits.

use crate::net::Be16;

/// Folds a sum of 16-bit words back to 16 bits with end-around carry.
#[inline(always)]
pub const fn fold(sum: u32) -> u16 {
    // Adds the halves twice beside each other, so that the carry of the lower addition gets into the upper one.
    ((sum as u64).wrapping_mul(0x1_0001_0001) >> 32) as u16
}

/// Adds a delta, or a sum of at most 65,535 deltas, to a checksum field.
#[inline(always)]
pub const fn apply(field: Be16, delta: u32) -> Be16 {
    Be16::from_raw(!fold(!field.raw() as u32 + delta))
}

/// Adds a delta to the checksum of TCP or UDP. UDP's zero means "none" and stays; a computed zero is sent as 0xFFFF
/// (RFC 768, RFC 8200 section 8.1).
#[inline(always)]
pub const fn apply_l4(field: Be16, delta: u32, udp: bool) -> Be16 {
    if udp && field.raw() == 0 {
        return field;
    }
    let new = apply(field, delta);
    if udp && new.raw() == 0 { Be16::from_raw(0xffff) } else { new }
}

/// The delta of one 16-bit word.
#[inline(always)]
pub const fn word_delta(old: Be16, new: Be16) -> u32 {
    !old.raw() as u32 + new.raw() as u32
}

/// The delta of one less in the high byte of a word, as for IPv4's TTL, which lies before the protocol number.
pub const TTL_DELTA: u32 = !u16::from_ne_bytes([1, 0]) as u32;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The checksum of `words`, computed from scratch.
    fn full(words: &[u16]) -> Be16 {
        let sum: u64 = words.iter().map(|word| u64::from(*word)).sum();
        let mut sum = sum;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        Be16::from_raw(!(sum as u16))
    }

    #[test]
    fn b02_an_update_equals_recomputation_for_every_new_word() {
        // The other words choose where the sum overflows; the edges are the values that RFC 1624 is about.
        for rest in [1u16, 0x5555, 0xdd2f, 0xfffe, 0xffff] {
            for old in [0u16, 1, 0x7fff, 0x8000, 0xfffe, 0xffff] {
                let before = full(&[rest, old]);
                for new in 0..=u16::MAX {
                    let delta = word_delta(Be16::from_raw(old), Be16::from_raw(new));
                    assert_eq!(apply(before, delta), full(&[rest, new]), "{rest:#x} {old:#x} {new:#x}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn b02_a_folded_delta_of_many_words_equals_recomputation(
            rest in 1u16.., old in prop::array::uniform18(any::<u16>()), new in prop::array::uniform18(any::<u16>()),
        ) {
            let mut words = [&[rest][..], &old].concat();
            let before = full(&words);
            let delta = old.iter().zip(&new).map(|(old, new)| word_delta(Be16::from_raw(*old), Be16::from_raw(*new)));
            let delta = fold(delta.sum());
            words[1..].copy_from_slice(&new);
            prop_assert_eq!(apply(before, u32::from(delta)), full(&words));
        }

        #[test]
        fn b08_the_ttl_delta_is_one_less_in_the_high_byte(rest in 1u16.., ttl in 1u8.., proto in any::<u8>()) {
            let (old, new) = (u16::from_ne_bytes([ttl, proto]), u16::from_ne_bytes([ttl - 1, proto]));
            prop_assert_eq!(apply(full(&[rest, old]), TTL_DELTA), full(&[rest, new]));
        }
    }
}

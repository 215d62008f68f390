//! Where choices come from: a seed, or the bytes of a fuzzer.

/// A source of choices.
#[derive(Clone, Debug)]
pub enum Dice<'a> {
    /// SplitMix64, from a seed.
    Seed(u64),
    /// Bytes, and zeros when they are used up.
    Bytes(&'a [u8]),
}

impl Dice<'_> {
    /// Any number.
    pub fn word(&mut self) -> u64 {
        match self {
            Self::Seed(state) => {
                *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let mut word = *state;
                word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                word ^ (word >> 31)
            }
            Self::Bytes(bytes) => {
                let mut word = [0; 8];
                let (head, tail) = bytes.split_at(bytes.len().min(2));
                word[..head.len()].copy_from_slice(head);
                *bytes = tail;
                u64::from_le_bytes(word)
            }
        }
    }

    /// A byte.
    pub fn byte(&mut self) -> u8 {
        self.word() as u8
    }

    /// A number of two bytes.
    pub fn short(&mut self) -> u16 {
        self.word() as u16
    }

    /// A number below `end`, which is not zero.
    pub fn below(&mut self, end: usize) -> usize {
        (self.word() % end as u64) as usize
    }

    /// True once in so many times.
    pub fn one_in(&mut self, times: usize) -> bool {
        // The last value, so that a fuzzer's missing bytes choose what is ordinary.
        self.below(times) == times - 1
    }

    /// One of several.
    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    /// So many bytes.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.byte()).collect()
    }

    /// Whether there is nothing more to choose.
    pub fn is_used_up(&self) -> bool {
        matches!(self, Self::Bytes([]))
    }
}

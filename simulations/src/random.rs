//! Random numbers from a seed: xoshiro256** (Blackman and Vigna, "Scrambled
//! Linear Pseudorandom Number Generators", 2021), seeded by SplitMix64.

/// A sequence of numbers that its seed alone decides.
#[derive(Clone, Debug)]
pub struct Random {
    state: [u64; 4],
}

impl Random {
    /// The sequence of `seed`.
    pub fn new(seed: u64) -> Self {
        let mut mixed = seed;
        Self {
            state: std::array::from_fn(|_| split_mix(&mut mixed)),
        }
    }

    /// The sequence of `seed` for one purpose, independent of its others.
    pub fn named(seed: u64, purpose: &str) -> Self {
        let hash = innermesh_proto::crypto::Hash::of(purpose.as_bytes()).0;
        let mut first = [0; 8];
        first.copy_from_slice(&hash[..8]);
        Self::new(seed ^ u64::from_le_bytes(first))
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        let state = &mut self.state;
        let result = state[1].wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let shifted = state[1] << 17;
        state[2] ^= state[0];
        state[3] ^= state[1];
        state[1] ^= state[2];
        state[0] ^= state[3];
        state[2] ^= shifted;
        state[3] = state[3].rotate_left(45);
        result
    }

    /// A number below `bound`; 0 when that is 0. The bias is below 2^-32 for
    /// every bound that is used here.
    pub fn below(&mut self, bound: u64) -> u64 {
        let wide = u128::from(self.bits()) * u128::from(bound);
        u64::try_from(wide >> 64).expect("below a 64-bit bound")
    }

    /// A number from `low` to `high`, both included.
    pub fn range(&mut self, low: u64, high: u64) -> u64 {
        low + self.below((high - low).saturating_add(1))
    }

    /// Whether something of probability `p` (0 to 1) happens.
    pub fn chance(&mut self, p: f64) -> bool {
        // 53 bits, as many as an f64 holds.
        let unit = (self.bits() >> 11) as f64 / (1u64 << 53) as f64;
        unit < p
    }

    /// One of `choices`; `None` when there are none.
    pub fn pick<'a, T>(&mut self, choices: &'a [T]) -> Option<&'a T> {
        let at = self.below(choices.len() as u64);
        choices.get(usize::try_from(at).ok()?)
    }
}

/// The next number of SplitMix64.
pub(crate) fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_xoshiro256_starstar() {
        // The first numbers for the state 1, 2, 3, 4, of the reference code.
        let mut random = Random {
            state: [1, 2, 3, 4],
        };
        let drawn: [u64; 4] = std::array::from_fn(|_| random.bits());
        assert_eq!(drawn, [11520, 0, 1509978240, 1215971899390074240]);
    }

    #[test]
    fn numbers_stay_within_their_bounds_and_reach_them() {
        let mut random = Random::new(1);
        let drawn: std::collections::BTreeSet<u64> = (0..200).map(|_| random.range(3, 6)).collect();
        assert_eq!(drawn, [3, 4, 5, 6].into());
        assert_eq!(random.below(0), 0);
        let often = (0..1000).filter(|_| random.chance(0.25)).count();
        assert!((200..300).contains(&often), "{often}");
        assert!(random.pick::<u8>(&[]).is_none());
    }
}

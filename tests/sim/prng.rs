//! The only source of chance in a simulated run. Everything drawn in a run comes from one of these,
//! made from the seed: the same seed is the same run, on every machine. A fuzzer that looks for runs nobody has
//! drawn says itself what is drawn, in bytes.

use std::rc::Rc;
use std::time::Duration;

/// splitmix64: every seed is good, neighbouring seeds are unrelated.
#[derive(Clone, Debug)]
pub struct Prng {
    state: u64,
    /// What is drawn as long as there is something of it.
    said: Option<Rc<[u8]>>,
    at: usize,
}

impl Prng {
    /// Any seed will do.
    pub fn new(seed: u64) -> Prng {
        Prng {
            state: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15),
            said: None,
            at: 0,
        }
    }

    /// Draws these bytes, and goes on by what they are together.
    #[cfg(fuzzing)]
    pub fn of(bytes: &[u8]) -> Prng {
        let mix = |sum: u64, b: &u8| (sum ^ u64::from(*b)).wrapping_mul(0x0100_0000_01B3);
        Prng {
            said: Some(bytes.into()),
            ..Prng::new(bytes.iter().fold(0xCBF2_9CE4_8422_2325, mix))
        }
    }

    /// So many bytes of what is said, if there are as many.
    fn say(&mut self, n: usize) -> Option<u64> {
        let bytes = self.said.as_ref()?.get(self.at..self.at + n)?;
        let number = bytes.iter().fold(0, |sum, b| sum << 8 | u64::from(*b));
        self.at += n;
        Some(number)
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        if let Some(said) = self.say(8) {
            return said;
        }
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// In 0..n; 0 if n is 0.
    pub fn below(&mut self, n: u64) -> u64 {
        // No more is taken of what is said than the choice needs: bytes that decide nothing are none that a
        // fuzzer learns from.
        let needed = match n {
            0 => return 0,
            1..=0x100 => 1,
            0x101..=0x1_0000 => 2,
            0x1_0001..=0x1_0000_0000 => 4,
            _ => 8,
        };
        self.say(needed).unwrap_or_else(|| self.bits()) % n
    }

    /// In lo..=hi.
    pub fn range(&mut self, lo: u64, hi: u64) -> u64 {
        lo + self.below(hi - lo + 1)
    }

    /// True once in so many times.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// True with this probability, in percent.
    pub fn percent(&mut self, p: u64) -> bool {
        self.below(100) < p
    }

    /// Up to this long, to the microsecond; zero is possible.
    pub fn upto(&mut self, most: Duration) -> Duration {
        Duration::from_micros(self.below(most.as_micros() as u64 + 1))
    }

    /// So many milliseconds at least and at most, to the microsecond.
    pub fn ms(&mut self, lo: u64, hi: u64) -> Duration {
        Duration::from_micros(self.range(lo * 1000, hi * 1000))
    }

    /// One of them.
    pub fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize].clone()
    }

    /// One of them, each as often as its weight says.
    pub fn weighted<T: Clone>(&mut self, from: &[(u32, T)]) -> T {
        let sum: u64 = from.iter().map(|(w, _)| u64::from(*w)).sum();
        let mut at = self.below(sum);
        for (weight, value) in from {
            match at.checked_sub(u64::from(*weight)) {
                Some(rest) => at = rest,
                None => return value.clone(),
            }
        }
        unreachable!("`at` is below the sum of the weights")
    }

    /// Any order is as likely as any other.
    pub fn shuffle<T>(&mut self, list: &mut [T]) {
        for i in (1..list.len()).rev() {
            list.swap(i, self.below(i as u64 + 1) as usize);
        }
    }
}

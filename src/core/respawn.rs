//! How long a slot waits before its next worker: exponential backoff with jitter, per slot.
//!
//! Rules:
//! 1. A worker that was ready for `SETTLED` or longer is replaced at once.
//! 2. Else the delay is `respawn`, doubled with each failure in a row, at most `backoff`;
//!    `backoff` 0 keeps it at `respawn`.
//! 3. A worker that was ready for `backoff_reset` wipes the failures. That is judged when it dies:
//!    no timer runs for it.
//! 4. A fork that failed waits `FORK_AGAIN` or longer: a `respawn` of 0 would spin.
//! 5. One that hangs and never said that it is well was never ready, as far as this goes.
//! 6. Jitter takes up to a fifth off, never adds: the limit the operator gave is a limit.

use super::policy::Policy;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Ready for that long, a worker's death is no failure to start.
pub const SETTLED: Duration = Duration::from_secs(1);

/// A fork that failed is not tried again sooner: what the kernel lacked, it lacks for a while.
pub const FORK_AGAIN: Duration = Duration::from_millis(100);

/// One slot's failures in a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backoff {
    /// Deaths since the last that wiped them.
    pub failures: u32,
}

impl Backoff {
    /// The worker has gone after being ready for `ready_for` (`None`: never was). How long to wait?
    pub fn after_death(
        &mut self,
        ready_for: Option<Duration>,
        policy: &Policy,
        rng: &mut Rng,
    ) -> Duration {
        if ready_for.is_some_and(|r| r >= policy.backoff_reset) {
            self.failures = 0;
        }
        if ready_for.is_some_and(|r| r >= SETTLED) {
            return Duration::ZERO;
        }
        let limit = policy.backoff.max(policy.respawn);
        let delay = if policy.backoff.is_zero() || policy.respawn.is_zero() {
            policy.respawn
        } else {
            let doubled = 1u32.checked_shl(self.failures).filter(|f| *f != 0);
            doubled
                .and_then(|f| policy.respawn.checked_mul(f))
                .map_or(limit, |d| d.min(limit))
        };
        self.failures = self.failures.saturating_add(1);
        delay.mul_f64(1.0 - 0.2 * rng.unit())
    }
}

/// xorshift64*: jitter needs no more. The seed is handed in, so a simulated run replays.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Rng(u64);

impl Rng {
    /// Any seed will do.
    pub fn new(seed: u64) -> Rng {
        Rng((seed ^ 0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// In [0, 1).
    pub fn unit(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let bits = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11;
        bits as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::policy::tests::policy;

    fn ms(d: Duration) -> u128 {
        d.as_millis()
    }

    #[test]
    fn delays_double_up_to_the_limit_and_jitter_only_takes_off() {
        let p = policy();
        let mut rng = Rng::new(7);
        let mut b = Backoff::default();
        for want in [
            100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 30000, 30000,
        ] {
            let d = ms(b.after_death(None, &p, &mut rng));
            assert!(d <= want && d >= want * 8 / 10 - 1, "{d} for {want}");
        }
        b.failures = 4_000_000_000;
        assert!(ms(b.after_death(None, &p, &mut rng)) <= 30000);
    }

    #[test]
    fn a_settled_worker_is_replaced_at_once_and_a_long_lived_one_wipes_the_failures() {
        let p = policy();
        let mut rng = Rng::new(1);
        let mut b = Backoff { failures: 5 };
        assert_eq!(
            b.after_death(Some(Duration::from_secs(1)), &p, &mut rng),
            Duration::ZERO
        );
        assert_eq!(b.failures, 5);
        assert!(ms(b.after_death(Some(Duration::from_millis(999)), &p, &mut rng)) > 2000);
        b.after_death(Some(Duration::from_secs(30)), &p, &mut rng);
        assert_eq!(b.failures, 0);
    }

    #[test]
    fn backoff_zero_keeps_the_spacing_constant() {
        let mut p = policy();
        p.backoff = Duration::ZERO;
        let mut rng = Rng::new(1);
        let mut b = Backoff::default();
        for _ in 0..50 {
            let d = ms(b.after_death(None, &p, &mut rng));
            assert!((79..=100).contains(&d), "{d}");
        }
    }

    #[test]
    fn a_respawn_longer_than_the_limit_is_the_limit() {
        let mut p = policy();
        p.respawn = Duration::from_secs(60);
        let d = Backoff::default().after_death(None, &p, &mut Rng::new(3));
        assert!(d > Duration::from_secs(47) && d <= Duration::from_secs(60));
    }
}

//! How long whoever starts and stops us has to be patient, in whole seconds.

use crate::core::Policy;
use std::time::Duration;

/// For the last lines of the log, and to leave.
const LEAVING: u64 = 2;

/// Rounded up.
pub fn seconds(d: Duration) -> u64 {
    d.as_secs() + u64::from(d.subsec_nanos() > 0)
}

/// Until a start has succeeded, or has given up and stopped what there was. `None`: there is no limit.
pub fn start(policy: &Policy) -> Option<u64> {
    let limit = policy.start_timeout?;
    Some(seconds(limit).saturating_add(stop(policy)))
}

/// Until a stop is over.
pub fn stop(policy: &Policy) -> u64 {
    seconds(policy.longest_stop()).saturating_add(LEAVING)
}

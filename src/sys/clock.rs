//! What time it is. Only the shell's loop asks.

/// Nanoseconds on the monotonic clock.
pub fn monotonic() -> u64 {
    let mut ts = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: ts is a valid timespec for the kernel to fill; CLOCK_MONOTONIC cannot fail.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut ts) };
    let secs = u64::try_from(ts.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(ts.tv_nsec).unwrap_or(0);
    secs.saturating_mul(1_000_000_000).saturating_add(nanos)
}

/// Seconds and microseconds since 1970, for log lines.
pub fn wall() -> (u64, u32) {
    let now = std::time::SystemTime::now();
    let since = now
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    (since.as_secs(), since.subsec_micros())
}

/// Waits. For the start, before there is a loop that could be held up; and while a worker is stopped, which
/// has no more time than we have.
pub fn pause(d: std::time::Duration) {
    let ms = i32::try_from(d.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: no descriptors, only the time.
    unsafe { libc::poll(std::ptr::null_mut(), 0, ms) };
}

/// Seconds that local time is ahead of UTC at that moment.
pub fn local_offset(secs: u64) -> i64 {
    let t = libc::time_t::try_from(secs).unwrap_or(0);
    // SAFETY: tm is plain data for localtime_r to fill; we are single-threaded, so nobody changes
    // the environment meanwhile.
    unsafe {
        let mut tm: libc::tm = std::mem::zeroed();
        match libc::localtime_r(&t, &mut tm).is_null() {
            true => 0,
            false => tm.tm_gmtoff,
        }
    }
}

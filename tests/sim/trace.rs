//! The trace of a run: one aligned row for each event, action and happening, with its virtual time.
//! It is kept beside the world, so that it survives a panic; and it is written only when a failing
//! seed is run a second time, because runs are exactly repeatable and rows are dear.

use minicluster::core::Time;
use std::cell::RefCell;

thread_local! {
    static LINES: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

/// From now on rows are kept.
pub fn start() {
    LINES.set(Some(Vec::new()));
}

/// One row, if they are kept.
pub fn line(now: Time, what: &str, text: impl FnOnce() -> String) {
    LINES.with_borrow_mut(|lines| {
        if let Some(lines) = lines {
            let seconds = now.0 as f64 / 1e9;
            lines.push(format!("{seconds:>14.6}  {what:<8} {}", text()));
        }
    });
}

/// The last rows kept, and no more are.
pub fn stop(most: usize) -> String {
    let lines = LINES.take().unwrap_or_default();
    let from = lines.len().saturating_sub(most);
    lines[from..].join("\n")
}

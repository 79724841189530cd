//! A line of the log that anybody can make come, as often as they like: it is written once in [`TELL_EVERY`], and counted in between.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const TELL_EVERY: Duration = Duration::from_secs(10);

/// Says when to write the line.
#[derive(Default)]
pub(super) struct Seldom {
    /// When it was written last, and how many were left out since then.
    last: Mutex<Option<(Instant, u64)>>,
}

impl Seldom {
    /// Whether to write it now: if so, how many were left out since the last.
    pub(super) fn at(&self, now: Instant) -> Option<u64> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((told, suppressed)) = &mut *last
            && now.saturating_duration_since(*told) < TELL_EVERY
        {
            *suppressed += 1;
            return None;
        }
        Some(last.replace((now, 0)).map_or(0, |(_, suppressed)| suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_now_and_then_says_how_many_there_were() {
        let (seldom, begin) = (Seldom::default(), Instant::now());
        let at = |seconds| seldom.at(begin + Duration::from_secs(seconds));
        assert_eq!([0, 1, 9, 10, 11, 30, 50].map(at), [Some(0), None, None, Some(2), None, Some(1), Some(0)]);
    }
}

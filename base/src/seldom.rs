//! Lines of the log that every call could write, so that anybody can make them come: one of them now and then says it all.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Lets a line through at most every so often, and counts the others.
#[derive(Debug)]
pub struct Seldom {
    every: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// When the last line was let through.
    last: Option<Instant>,
    /// Lines that were not, since then.
    suppressed: u64,
}

impl Seldom {
    /// One line per `every` at most.
    pub fn new(every: Duration) -> Self {
        Self { every, state: Mutex::default() }
    }

    /// Whether to write a line now: if so, how many were not written since the last.
    pub fn at(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.last.is_some_and(|last| now.saturating_duration_since(last) < self.every) {
            state.suppressed += 1;
            return None;
        }
        state.last = Some(now);
        Some(std::mem::take(&mut state.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_now_and_then_says_how_many_there_were() {
        let seldom = Seldom::new(Duration::from_secs(10));
        let begin = Instant::now();
        let at = |millis| seldom.at(begin + Duration::from_millis(millis));
        assert_eq!(at(0), Some(0));
        assert!((1..10_000).step_by(100).all(|millis| at(millis).is_none()));
        assert_eq!(at(10_000), Some(100));
        assert_eq!(at(19_999), None);
        assert_eq!(at(60_000), Some(1));
        assert_eq!(at(90_000), Some(0));
    }

    #[test]
    fn the_time_counts_from_the_last_line() {
        let (seldom, begin) = (Seldom::new(Duration::from_secs(10)), Instant::now());
        let at = |seconds| seldom.at(begin + Duration::from_secs(seconds));
        assert_eq!([0, 1, 9, 10, 11, 30, 50].map(at), [Some(0), None, None, Some(2), None, Some(1), Some(0)]);
    }
}

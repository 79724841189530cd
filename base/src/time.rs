//! Time as file systems count it, and the clock as a value that is passed in.

use serde::{Deserialize, Serialize};
use std::time::{SystemTime, UNIX_EPOCH};

/// Nanoseconds in a second.
pub const NANOS_PER_SEC: u32 = 1_000_000_000;

/// A point in time: seconds since 1970-01-01 UTC (may be negative) and nanoseconds below one second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Timestamp {
    /// Whole seconds since the epoch.
    pub secs: i64,
    /// Nanoseconds, 0..1_000_000_000.
    pub nanos: u32,
}

impl Timestamp {
    /// The epoch itself.
    pub const ZERO: Timestamp = Timestamp { secs: 0, nanos: 0 };

    /// From nanoseconds since the epoch.
    pub fn from_nanos(nanos: i128) -> Self {
        let per = i128::from(NANOS_PER_SEC);
        let secs = nanos.div_euclid(per).clamp(i128::from(i64::MIN), i128::from(i64::MAX));
        Self { secs: secs as i64, nanos: nanos.rem_euclid(per) as u32 }
    }

    /// Nanoseconds since the epoch.
    pub fn as_nanos(self) -> i128 {
        i128::from(self.secs) * i128::from(NANOS_PER_SEC) + i128::from(self.nanos)
    }

    /// The next representable instant: the least step by which a change time moves forward.
    #[must_use]
    pub fn next(self) -> Self {
        self.plus_nanos(1)
    }

    /// This instant plus `nanos` (may be negative).
    #[must_use]
    pub fn plus_nanos(self, nanos: i64) -> Self {
        Self::from_nanos(self.as_nanos() + i128::from(nanos))
    }

    /// Nanoseconds from `earlier` to this, negative if it lies after.
    pub fn since(self, earlier: Timestamp) -> i128 {
        self.as_nanos() - earlier.as_nanos()
    }
}

/// Where the time comes from: the system in production, a script in tests.
pub trait Clock: Send + Sync + 'static {
    /// Wall-clock time now.
    fn now(&self) -> Timestamp;
}

/// The machine's real-time clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(after) => Timestamp::from_nanos(after.as_nanos() as i128),
            Err(before) => Timestamp::from_nanos(-(before.duration().as_nanos() as i128)),
        }
    }
}

//! Pauses between the attempts at one thing: each twice as long as the one before, within bounds.

use std::time::Duration;
use tokio::time::sleep;

/// How long the next one is, and its bounds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pause {
    next: Duration,
    least: Duration,
    most: Duration,
}

impl Pause {
    pub(crate) const fn between(least: Duration, most: Duration) -> Self {
        Self { next: least, least, most }
    }

    /// Before a call of the metadata service is sent again: its outcome is not known, or it was refused without effect, to be tried again shortly.
    pub(crate) const fn of_calls() -> Self {
        Self::between(Duration::from_millis(2), Duration::from_millis(500))
    }

    /// The first attempt after this is made without a pause.
    pub(crate) const fn first_at_once(self) -> Self {
        Self { next: Duration::ZERO, ..self }
    }

    /// How long the next one is.
    pub(crate) fn next(&self) -> Duration {
        self.next
    }

    pub(crate) async fn rest(&mut self) {
        sleep(self.next).await;
        self.next = (self.next * 2).max(self.least).min(self.most);
    }

    /// Something was done: what comes next is tried soon again.
    pub(crate) fn begin_anew(&mut self) {
        self.next = self.least;
    }
}

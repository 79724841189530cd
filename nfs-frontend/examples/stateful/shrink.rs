//! Makes a failing sequence shorter: fewer steps first, then simpler choices.

use crate::dice::Sequence;
use crate::play::play;
use std::time::{Duration, Instant};

/// Longest time to try.
const PATIENCE: Duration = Duration::from_secs(60);

/// What of a failure must stay the same: its words before the first colon followed by details.
pub(crate) fn kind(failure: &str) -> &str {
    failure.split(" | ").next().unwrap_or(failure)
}

/// A sequence that fails in the same way, with nothing in it that can be left out alone.
pub(crate) fn shrink(sequence: &Sequence, failure: &str) -> Sequence {
    let until = Instant::now() + PATIENCE;
    let fails = |sequence: &Sequence| {
        matches!(play(sequence, false).1, Err(other) if kind(&other) == kind(failure))
            && Instant::now() < until
    };
    let mut short = sequence.clone();
    let mut chunk = short.len();
    while chunk > 0 {
        let mut at = 0;
        while at < short.len() {
            let mut less = short.clone();
            less.drain(at..(at + chunk).min(less.len()));
            if fails(&less) {
                short = less;
            } else {
                at += chunk;
            }
        }
        chunk /= 2;
    }
    for step in 0..short.len() {
        // From the end: what comes later in a step is less important.
        for byte in (0..short[step].len()).rev() {
            for simple in [0, 1] {
                if short[step][byte] > simple {
                    let mut simpler = short.clone();
                    simpler[step][byte] = simple;
                    if fails(&simpler) {
                        short = simpler;
                        break;
                    }
                }
            }
        }
    }
    short
}

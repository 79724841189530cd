//! Where the choices of a sequence come from: bytes of its steps, so that a step can be left out, or a choice made smaller, without
//! changing the others. Zero is the simplest choice everywhere.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// Choices of one step.
pub(crate) type Step = [u8; 40];

/// The steps of a sequence.
pub(crate) type Sequence = Vec<Step>;

/// Most steps.
const STEPS_MAX: usize = 24;

/// The sequence of a seed.
pub(crate) fn sequence_of(seed: u64) -> Sequence {
    let mut rng = SmallRng::seed_from_u64(seed);
    let steps = rng.random_range(2..=STEPS_MAX);
    let step = |_| {
        let mut step = [0; 40];
        rng.fill(&mut step[..]);
        step
    };
    (0..steps).map(step).collect()
}

/// The choices of a step, one after the other; when they are used up, all are zero.
pub(crate) struct Dice<'s> {
    step: &'s Step,
    at: usize,
}

impl<'s> Dice<'s> {
    pub(crate) fn new(step: &'s Step) -> Self {
        Self { step, at: 0 }
    }

    /// A number below `n`, at most 256.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        let byte = self.step.get(self.at).copied().unwrap_or(0);
        self.at += 1;
        usize::from(byte) % n.max(1)
    }

    /// True once in so many times, false with zero.
    pub(crate) fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == n - 1
    }

    pub(crate) fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())].clone()
    }

    /// One of the latest.
    pub(crate) fn latest<'t, T>(&mut self, from: &'t [T]) -> Option<&'t T> {
        let back = self.below(from.len().clamp(1, 8));
        from.len().checked_sub(1 + back).map(|at| &from[at])
    }
}

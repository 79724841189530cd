//! Latencies in logarithmic buckets.
//!
//! 64 linear buckets per power of two: the value of a quantile is at most 1/64 (1.6 %) above the true one. Recording is
//! an index computation and an addition; nothing is allocated after construction.

/// Linear buckets per power of two, as a power of two.
const SUB_BITS: u32 = 6;
const SUB: u64 = 1 << SUB_BITS;
/// Values from 2^40 ns (18 minutes) on share the last bucket; no call is waited for that long.
const TOP_BITS: u32 = 40;
const BUCKETS: usize = ((TOP_BITS - SUB_BITS + 1) << SUB_BITS) as usize;

/// Counts of values, in nanoseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; BUCKETS], total: 0, max: 0 }
    }
}

impl Histogram {
    /// Counts one value.
    #[inline]
    pub fn record(&mut self, nanos: u64) {
        self.counts[bucket_of(nanos)] += 1;
        self.total += 1;
        self.max = self.max.max(nanos);
    }

    /// Adds all values of another.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        self.total += other.total;
        self.max = self.max.max(other.max);
    }

    /// Number of values.
    pub fn count(&self) -> u64 {
        self.total
    }

    /// The least value that at least the part `quantile` (0 to 1) of all values does not exceed, rounded up to its bucket's
    /// end and never above the greatest value. `None` without values.
    pub fn quantile(&self, quantile: f64) -> Option<u64> {
        if self.total == 0 {
            return None;
        }
        #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let rank = ((self.total as f64 * quantile).ceil() as u64).clamp(1, self.total);
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return Some(end_of(bucket).min(self.max));
            }
        }
        unreachable!("the counts add up to the total")
    }
}

#[allow(clippy::cast_possible_truncation)] // an index below BUCKETS
fn bucket_of(nanos: u64) -> usize {
    if nanos < SUB {
        return nanos as usize;
    }
    let exponent = nanos.ilog2();
    let shift = exponent - SUB_BITS;
    let index = u64::from(shift) * SUB + (nanos >> shift);
    (index as usize).min(BUCKETS - 1)
}

/// The greatest value of a bucket.
fn end_of(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < SUB {
        return bucket;
    }
    let shift = bucket / SUB - 1;
    ((bucket % SUB + SUB + 1) << shift) - 1
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn buckets_join_without_gap_or_overlap() {
        for bucket in 0..BUCKETS - 1 {
            assert_eq!(bucket_of(end_of(bucket)), bucket);
            assert_eq!(bucket_of(end_of(bucket) + 1), bucket + 1, "after {}", end_of(bucket));
        }
    }

    #[test]
    fn values_beyond_the_top_are_counted_in_the_last_bucket() {
        let mut h = Histogram::default();
        h.record(u64::MAX);
        assert_eq!(h.quantile(0.5), Some(end_of(BUCKETS - 1)));
    }

    #[test]
    fn nothing_has_no_quantile() {
        assert_eq!(Histogram::default().quantile(0.5), None);
    }

    proptest! {
        #[test]
        fn a_quantile_is_that_of_the_sorted_list_within_a_bucket(
            mut values in proptest::collection::vec(0u64..1 << 39, 1..400),
            split in 0usize..400,
            quantile in 0.0f64..=1.0,
        ) {
            // Recorded in two histograms and merged: the same as in one.
            let (mut a, mut b) = (Histogram::default(), Histogram::default());
            for (i, v) in values.iter().enumerate() {
                if i < split { a.record(*v) } else { b.record(*v) }
            }
            a.merge(&b);
            values.sort_unstable();
            #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            let rank = ((values.len() as f64 * quantile).ceil() as usize).clamp(1, values.len());
            let exact = values[rank - 1];
            let got = a.quantile(quantile).unwrap();
            prop_assert!(got >= exact && got <= exact + exact / SUB + 1, "{got} for {exact}");
            prop_assert_eq!(a.count(), values.len() as u64);
        }
    }
}

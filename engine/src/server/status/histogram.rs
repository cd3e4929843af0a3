//! Latencies of one kind, counted in log-linear buckets.
//!
//! A latency is told to 1/64 of itself, up to some 69 seconds; longer ones are counted with the longest, and the mean
//! and the maximum are exact. Recording takes a few instructions and allocates nothing.
//!
//! A bucket holds the values above its lower bound, up to and including its upper one. So the count of all values up to
//! a power of two is exact, which is what a monitoring system with fixed bounds asks for.

/// Buckets per power of two, as a power of two.
const SUB_BITS: u32 = 6;
const SUB_BUCKETS: usize = 1 << SUB_BITS;
/// Values above 2 to this power, in nanoseconds, share the last bucket with those just below it.
const VALUE_BITS: u32 = 36;
/// The first 64 buckets have a width of one, then each power of two has 64.
const BUCKETS: usize = SUB_BUCKETS * (VALUE_BITS - SUB_BITS + 1) as usize;

/// A histogram of latencies in nanoseconds.
#[derive(Clone)]
pub struct LatencyHistogram {
    counts: Box<[u64; BUCKETS]>,
    count: u64,
    sum_ns: u128,
    max_ns: u64,
}

impl Default for LatencyHistogram {
    fn default() -> LatencyHistogram {
        let counts = vec![0; BUCKETS].into_boxed_slice();
        LatencyHistogram {
            counts: counts.try_into().expect("as long as the array"),
            count: 0,
            sum_ns: 0,
            max_ns: 0,
        }
    }
}

impl LatencyHistogram {
    /// Counts one latency. Zero counts as one nanosecond in the buckets.
    #[inline]
    pub fn record(&mut self, latency_ns: u64) {
        self.counts[bucket_of(latency_ns)] += 1;
        self.count += 1;
        self.sum_ns += u128::from(latency_ns);
        self.max_ns = self.max_ns.max(latency_ns);
    }

    /// Adds what another histogram has counted.
    pub fn add(&mut self, other: &LatencyHistogram) {
        for (own, others) in self.counts.iter_mut().zip(other.counts.iter()) {
            *own += others;
        }
        self.count += other.count;
        self.sum_ns += other.sum_ns;
        self.max_ns = self.max_ns.max(other.max_ns);
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Their sum in nanoseconds.
    pub fn sum_ns(&self) -> u128 {
        self.sum_ns
    }

    /// The longest, in nanoseconds.
    pub fn max_ns(&self) -> u64 {
        self.max_ns
    }

    /// The latencies in nanoseconds below or at which these shares of all lie, `quantiles` rising from 0 to 1: the
    /// upper bounds of their buckets, and never more than the maximum. Zeros if nothing was counted.
    pub fn quantiles_ns<const N: usize>(&self, quantiles: [f64; N]) -> [u64; N] {
        assert!(
            quantiles.is_sorted() && quantiles.iter().all(|quantile| (0.0..=1.0).contains(quantile)),
            "quantiles rise from 0 to 1: {quantiles:?}"
        );
        let mut buckets = self.counts.iter().enumerate();
        let (mut bucket, mut below) = (0, 0);
        quantiles.map(|quantile| {
            let rank = ((quantile * self.count as f64).ceil() as u64).clamp(1, self.count.max(1));
            while below < rank {
                let Some((next, count)) = buckets.next() else {
                    break;
                };
                bucket = next;
                below += count;
            }
            // What shares the last bucket is longer than its bound.
            if bucket + 1 == BUCKETS {
                self.max_ns
            } else {
                upper_bound_ns(bucket).min(self.max_ns)
            }
        })
    }

    /// For each power of two from 2 to the `first` to 2 to the `last` nanoseconds: how many were not longer.
    pub fn counts_up_to_powers(&self, first: u32, last: u32) -> Vec<u64> {
        assert!(
            first <= last && last < VALUE_BITS,
            "powers of two that buckets end at: {first} to {last}"
        );
        let mut counts = self.counts.iter();
        let (mut taken, mut sum) = (0, 0);
        (first..=last)
            .map(|power| {
                let end = bucket_of(1 << power) + 1;
                sum += counts.by_ref().take(end - taken).sum::<u64>();
                taken = end;
                sum
            })
            .collect()
    }
}

fn bucket_of(latency_ns: u64) -> usize {
    let value = latency_ns.saturating_sub(1).min((1 << VALUE_BITS) - 1);
    // Zero for the values that have a bucket each, and for the first power of two after them.
    let shift = (u64::BITS - value.leading_zeros()).saturating_sub(SUB_BITS + 1);
    (value >> shift) as usize + (shift as usize) * SUB_BUCKETS
}

fn upper_bound_ns(bucket: usize) -> u64 {
    let shift = (bucket / SUB_BUCKETS).saturating_sub(1);
    let value = (bucket - shift * SUB_BUCKETS) as u64;
    (value + 1) << shift
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_follow_each_other_without_a_gap() {
        for bucket in 0..BUCKETS {
            let upper = upper_bound_ns(bucket);
            assert_eq!(bucket_of(upper), bucket, "the upper bound belongs to it");
            assert_eq!(
                bucket_of(upper + 1),
                (bucket + 1).min(BUCKETS - 1),
                "what follows does not"
            );
        }
        assert_eq!(upper_bound_ns(BUCKETS - 1), 1 << VALUE_BITS);
        assert_eq!((bucket_of(0), bucket_of(1)), (0, 0));
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn a_latency_is_told_to_a_64th_of_itself() {
        for latency_ns in [1, 63, 64, 65, 1_000, 123_456, 7_654_321, 59_999_999_999] {
            let mut histogram = LatencyHistogram::default();
            histogram.record(latency_ns);
            histogram.record(u64::from(u32::MAX) << 8);
            let [found] = histogram.quantiles_ns([0.5]);
            assert!(
                found >= latency_ns && found - latency_ns <= latency_ns / 64,
                "{latency_ns} was told as {found}"
            );
        }
    }

    #[test]
    fn quantiles_are_by_rank_and_bounded_by_the_maximum() {
        let mut histogram = LatencyHistogram::default();
        assert_eq!(histogram.quantiles_ns([0.0, 0.5, 1.0]), [0, 0, 0]);
        for latency_ns in 1..=50 {
            histogram.record(latency_ns);
        }
        assert_eq!(
            histogram.quantiles_ns([0.0, 0.02, 0.5, 0.99, 1.0]),
            [1, 1, 25, 50, 50]
        );
        histogram.record(1_000_001);
        assert_eq!(histogram.quantiles_ns([1.0]), [1_000_001]);
        histogram.record(u64::MAX);
        assert_eq!(histogram.quantiles_ns([1.0]), [u64::MAX]);
        assert_eq!(histogram.max_ns(), u64::MAX);
        assert_eq!(
            histogram.sum_ns(),
            (1..=50).sum::<u128>() + 1_000_001 + u128::from(u64::MAX)
        );
    }

    #[test]
    fn counts_at_powers_of_two_are_exact() {
        let mut histogram = LatencyHistogram::default();
        for latency_ns in [0, 1 << 14, (1 << 14) + 1, 1 << 15, 3 << 15, u64::MAX] {
            histogram.record(latency_ns);
        }
        assert_eq!(histogram.counts_up_to_powers(14, 17), [2, 4, 4, 5]);
        assert_eq!(histogram.counts_up_to_powers(14, 35).last(), Some(&5));
        assert_eq!(histogram.count(), 6);
    }

    #[test]
    fn a_sum_of_histograms_has_what_both_have() {
        let (mut one, mut other) = (LatencyHistogram::default(), LatencyHistogram::default());
        one.record(10);
        other.record(20);
        other.record(30);
        one.add(&other);
        assert_eq!(one.quantiles_ns([0.3, 0.6, 1.0]), [10, 20, 30]);
        assert_eq!((one.count(), one.sum_ns(), one.max_ns()), (3, 60, 30));
    }
}

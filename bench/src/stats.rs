//! Numbers out of many numbers.

/// The middle one, or the mean of both that are in the middle; not a number where there are none.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.get(middle) {
        None => f64::NAN,
        Some(upper) if values.len().is_multiple_of(2) => match values[middle - 1] {
            lower if lower == *upper => lower,
            lower => (upper + lower) / 2.0,
        },
        Some(middle) => *middle,
    }
}

/// The smallest value that this share of them, in percent, don't exceed.
pub(crate) fn percentile(sorted: &[f64], percent: usize) -> Option<f64> {
    let place = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(place).copied()
}

/// Jain's index of fairness: 1 where all have the same, 1/n where one has all.
pub(crate) fn jain(shares: &[f64]) -> f64 {
    let sum: f64 = shares.iter().sum();
    let squares: f64 = shares.iter().map(|share| share * share).sum();
    sum * sum / (shares.len() as f64 * squares)
}

/// The mean; not a number where there are none.
pub(crate) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_ones() {
        assert_eq!(median(vec![4.0, 1.0, 3.0, 2.0]), 2.5);
        assert_eq!(median(vec![9.0]), 9.0);
        assert!(median(Vec::new()).is_nan());
    }

    #[test]
    fn what_never_happened_is_larger_than_all_that_did() {
        let never = f64::INFINITY;
        assert_eq!(median(vec![never, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![never, never, 2.0]), never);
        assert_eq!(median(vec![never, never]), never);
    }

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let values: Vec<f64> = (1..=200).map(f64::from).collect();
        assert_eq!(percentile(&values, 50), Some(100.0));
        assert_eq!(percentile(&values, 99), Some(198.0));
        assert_eq!(percentile(&[7.0], 99), Some(7.0));
        assert_eq!(percentile(&[], 50), None);
    }

    #[test]
    fn jains_index_is_between_one_for_all_and_one_for_the_same_for_all() {
        assert_eq!(jain(&[3.0, 3.0, 3.0]), 1.0);
        assert_eq!(jain(&[5.0, 0.0, 0.0, 0.0]), 0.25);
        // (1 + 2 + 3)² / (3 · (1 + 4 + 9))
        assert!((jain(&[1.0, 2.0, 3.0]) - 36.0 / 42.0).abs() < 1e-12);
    }
}

//! Counts as people read them.

/// A count of bytes with three digits at most.
pub(super) fn bytes(count: u64) -> String {
    if count < 1000 {
        return format!("{count} B");
    }
    scaled(count as f64, "B")
}

/// A rate with three digits at most.
pub(super) fn bits(per_second: f64) -> String {
    if per_second < 999.5 {
        return format!("{per_second:.0} bit/s");
    }
    scaled(per_second, "bit/s")
}

fn scaled(count: f64, unit: &str) -> String {
    const PREFIXES: [&str; 5] = ["k", "M", "G", "T", "P"];
    let mut value = count / 1000.0;
    let mut prefix = PREFIXES[0];
    for next in &PREFIXES[1..] {
        if value < 999.5 {
            break;
        }
        value /= 1000.0;
        prefix = next;
    }
    let digits = if value < 9.95 { 1 } else { 0 };
    format!("{value:.digits$} {prefix}{unit}")
}

/// A time in its largest unit.
pub(super) fn duration(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        7200..=172_799 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_rounded_to_what_one_reads() {
        let read = [
            0,
            999,
            1000,
            9_949,
            99_500,
            999_499,
            999_500,
            1_000_000_000_000,
        ];
        let read: Vec<_> = read.into_iter().map(bytes).collect();
        assert_eq!(
            read,
            [
                "0 B", "999 B", "1.0 kB", "9.9 kB", "100 kB", "999 kB", "1.0 MB", "1.0 TB"
            ]
        );
    }

    #[test]
    fn rates_are_rounded_in_the_same_way() {
        let read = [0.0, 999.4, 12_000.0, 23_200_000.0, 9.94e9];
        let read: Vec<_> = read.into_iter().map(bits).collect();
        assert_eq!(
            read,
            [
                "0 bit/s",
                "999 bit/s",
                "12 kbit/s",
                "23 Mbit/s",
                "9.9 Gbit/s"
            ]
        );
    }
}

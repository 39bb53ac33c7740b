//! Amounts as Kubernetes writes them (`resource.Quantity`): checked, and compared with each other.

use std::fmt;
use std::str::FromStr;

use super::error::BadOption;

/// An amount: a decimal number and a suffix.
#[derive(Clone, Debug)]
pub struct Quantity {
    text: String,
    value: f64,
}

/// Suffixes and what they multiply by.
const SUFFIXES: [(&str, f64); 14] = [
    ("Ki", 1024.0),
    ("Mi", 1_048_576.0),
    ("Gi", 1_073_741_824.0),
    ("Ti", 1_099_511_627_776.0),
    ("Pi", 1_125_899_906_842_624.0),
    ("n", 1e-9),
    ("u", 1e-6),
    ("m", 1e-3),
    ("k", 1e3),
    ("M", 1e6),
    ("G", 1e9),
    ("T", 1e12),
    ("P", 1e15),
    ("", 1.0),
];

impl FromStr for Quantity {
    type Err = BadOption;

    fn from_str(text: &str) -> Result<Self, BadOption> {
        let wrong = || {
            BadOption(format!(
                "{text:?} is no amount; amounts are like 100m, 2 or 64Mi"
            ))
        };
        let (number, factor) = SUFFIXES
            .iter()
            .find_map(|(suffix, factor)| Some((text.strip_suffix(suffix)?, *factor)))
            .ok_or_else(wrong)?;
        let digits = |part: &str| part.chars().all(|c| c.is_ascii_digit());
        let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
        if whole.is_empty() || !digits(whole) || fraction.is_empty() || !digits(fraction) {
            return Err(wrong());
        }
        let value: f64 = number.parse().map_err(|_| wrong())?;
        if value == 0.0 {
            return Err(BadOption(format!("{text:?} is nothing")));
        }
        Ok(Self {
            text: text.to_owned(),
            value: value * factor,
        })
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.value.total_cmp(&other.value).is_eq()
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.value.total_cmp(&other.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Quantity {
        text.parse().unwrap()
    }

    #[test]
    fn amounts_are_compared_across_suffixes() {
        assert!(read("100m") < read("2"));
        assert_eq!(read("1000m"), read("1"));
        assert_eq!(read("1Gi"), read("1024Mi"));
        assert!(read("1G") < read("1Gi"));
        assert_eq!(read("0.5").to_string(), "0.5");
    }

    #[test]
    fn what_kubernetes_would_not_take_is_refused() {
        for wrong in [
            "", "m", "1.", ".5", "-1", "+1", "1e3", "1 Gi", "1gi", "0", "NaN", "inf",
        ] {
            assert!(wrong.parse::<Quantity>().is_err(), "{wrong:?}");
        }
    }
}

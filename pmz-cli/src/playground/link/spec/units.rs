//! Numbers with units, read and written.

use std::time::Duration;

/// What is wrong with a time whose unit is none.
pub(super) const NO_TIME: &str = "a time ends with us, ms or s";

/// A number and its unit.
fn split_unit(value: &str) -> Result<(f64, &str), &'static str> {
    let unit = value
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(value.len());
    let (number, unit) = value.split_at(unit);
    Ok((number.parse().map_err(|_| "it has no number")?, unit))
}

pub(super) fn time(value: &str) -> Result<Duration, &'static str> {
    let (number, unit) = split_unit(value)?;
    let seconds = match unit {
        "s" => number,
        "ms" => number / 1e3,
        "us" | "µs" => number / 1e6,
        _ => return Err(NO_TIME),
    };
    if seconds > 3600.0 {
        return Err("it is longer than an hour");
    }
    // Rounded, so that 20ms is not 19.999999 ms.
    Ok(Duration::from_nanos((seconds * 1e9).round() as u64))
}

pub(super) fn share(value: &str) -> Result<f64, &'static str> {
    match split_unit(value)? {
        (percent, "%") if percent <= 100.0 => Ok(percent / 100.0),
        (_, "%") => Err("it is more than 100 %"),
        _ => Err("a share ends with %"),
    }
}

pub(super) fn rate(value: &str) -> Result<u64, &'static str> {
    let (number, unit) = split_unit(value)?;
    let bits = match unit {
        "bit" => number,
        "kbit" => number * 1e3,
        "mbit" => number * 1e6,
        "gbit" => number * 1e9,
        _ => return Err("a rate ends with bit, kbit, mbit or gbit"),
    };
    if !(1000.0..=1e12).contains(&bits) {
        return Err("a rate is between 1kbit and 1000gbit");
    }
    Ok(bits.round() as u64)
}

pub(super) fn bytes(value: &str) -> Result<u64, &'static str> {
    let (number, unit) = split_unit(value)?;
    let bytes = match unit {
        "b" => number,
        "kb" => number * 1e3,
        "mb" => number * 1e6,
        _ => return Err("a number of bytes ends with b, kb or mb"),
    };
    if !(1.0..=1e9).contains(&bytes) {
        return Err("a number of bytes is between 1b and 1000mb");
    }
    Ok(bytes.round() as u64)
}

pub(super) fn is_on(value: &str) -> Result<bool, &'static str> {
    match value {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err("it is `on` or `off`"),
    }
}

pub(super) fn milliseconds(time: Duration) -> String {
    format!("{}ms", time.as_nanos() as f64 / 1e6)
}

pub(super) fn percent(share: f64) -> String {
    // Rounded, so that 7% is not 7.000000000000001%.
    format!("{}%", (share * 1e11).round() / 1e9)
}

pub(super) fn megabits(rate: u64) -> String {
    format!("{}mbit", rate as f64 / 1e6)
}

pub(super) fn kilobytes(bytes: u64) -> String {
    format!("{}kb", bytes as f64 / 1e3)
}

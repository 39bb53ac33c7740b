//! What a link is like, and how a person says it.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// How long packets may queue before a rate, unless said otherwise.
const DEFAULT_QUEUE: Duration = Duration::from_millis(40);

/// What a link is like, in each direction.
#[derive(Clone, Debug, PartialEq)]
pub struct LinkSpec {
    /// One-way delay.
    pub delay: Duration,
    /// The delay of a packet differs from `delay` by at most this, evenly spread. Packets keep their
    /// order.
    pub jitter: Duration,
    /// Share of the packets that are lost, 0 to 1.
    pub loss: f64,
    /// Share of the packets that overtake those which are under way, by having no delay, 0 to 1.
    pub reorder: f64,
    /// Bits of IP packets per second; none: no limit.
    pub rate: Option<u64>,
    /// With a rate: a packet that would have to wait longer than this for its turn is dropped.
    pub queue: Duration,
    /// Nothing but UDP is lost, and all of it: what a firewall does.
    pub block_udp: bool,
}

impl Default for LinkSpec {
    fn default() -> Self {
        Self {
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            loss: 0.0,
            reorder: 0.0,
            rate: None,
            queue: DEFAULT_QUEUE,
            block_udp: false,
        }
    }
}

/// Why a link's description can't be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{part}` in a link's description: {reason}. For example: delay=20ms,jitter=2ms,loss=1%,reorder=0.1%,\
     rate=100mbit,queue=40ms"
)]
pub struct LinkSpecError {
    part: String,
    reason: &'static str,
}

impl FromStr for LinkSpec {
    type Err = LinkSpecError;

    /// Reads `delay=20ms,jitter=2ms,loss=1%,reorder=0.1%,rate=100mbit,queue=40ms,udp=off`, each part at
    /// most once and none needed. Times: `us`, `ms`, `s`; rates: `bit`, `kbit`, `mbit`, `gbit` per
    /// second, powers of 1000.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut spec = Self::default();
        let mut seen = Vec::new();
        for part in text
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
        {
            let wrong = |reason| LinkSpecError {
                part: part.to_owned(),
                reason,
            };
            let (key, value) = part.split_once('=').ok_or(wrong("it has no `=`"))?;
            if seen.contains(&key) {
                return Err(wrong("it is there twice"));
            }
            seen.push(key);
            match key {
                "delay" => spec.delay = time(value).map_err(wrong)?,
                "jitter" => spec.jitter = time(value).map_err(wrong)?,
                "loss" => spec.loss = share(value).map_err(wrong)?,
                "reorder" => spec.reorder = share(value).map_err(wrong)?,
                "rate" => spec.rate = Some(rate(value).map_err(wrong)?),
                "queue" => spec.queue = time(value).map_err(wrong)?,
                "udp" => spec.block_udp = on_off(value).map_err(wrong)?,
                _ => return Err(wrong("there is no such property")),
            }
        }
        Ok(spec)
    }
}

/// A number and its unit.
fn split_unit(value: &str) -> Result<(f64, &str), &'static str> {
    let unit = value
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(value.len());
    let (number, unit) = value.split_at(unit);
    Ok((number.parse().map_err(|_| "it has no number")?, unit))
}

fn time(value: &str) -> Result<Duration, &'static str> {
    let (number, unit) = split_unit(value)?;
    let seconds = match unit {
        "s" => number,
        "ms" => number / 1e3,
        "us" | "µs" => number / 1e6,
        _ => return Err("a time ends with us, ms or s"),
    };
    if seconds > 3600.0 {
        return Err("it is longer than an hour");
    }
    // Rounded, so that 20ms is not 19.999999 ms.
    Ok(Duration::from_nanos((seconds * 1e9).round() as u64))
}

fn share(value: &str) -> Result<f64, &'static str> {
    match split_unit(value)? {
        (percent, "%") if percent <= 100.0 => Ok(percent / 100.0),
        (_, "%") => Err("it is more than 100 %"),
        _ => Err("a share ends with %"),
    }
}

fn rate(value: &str) -> Result<u64, &'static str> {
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

fn on_off(value: &str) -> Result<bool, &'static str> {
    match value {
        "on" => Ok(false),
        "off" => Ok(true),
        _ => Err("it is `on` or `off`"),
    }
}

impl fmt::Display for LinkSpec {
    /// As it can be read again.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        let ms = |time: Duration| format!("{}ms", time.as_secs_f64() * 1e3);
        if !self.delay.is_zero() {
            parts.push(format!("delay={}", ms(self.delay)));
        }
        if !self.jitter.is_zero() {
            parts.push(format!("jitter={}", ms(self.jitter)));
        }
        if self.loss > 0.0 {
            parts.push(format!("loss={}%", self.loss * 100.0));
        }
        if self.reorder > 0.0 {
            parts.push(format!("reorder={}%", self.reorder * 100.0));
        }
        if let Some(rate) = self.rate {
            parts.push(format!("rate={}mbit", rate as f64 / 1e6));
            parts.push(format!("queue={}", ms(self.queue)));
        }
        if self.block_udp {
            parts.push("udp=off".into());
        }
        f.write_str(&parts.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_is_read_with_all_its_units() {
        let spec: LinkSpec =
            "delay=20ms,jitter=500us,loss=1%,reorder=0.5%,rate=100mbit,queue=0.04s"
                .parse()
                .unwrap();
        let expected = LinkSpec {
            delay: Duration::from_millis(20),
            jitter: Duration::from_micros(500),
            loss: 0.01,
            reorder: 0.005,
            rate: Some(100_000_000),
            queue: Duration::from_millis(40),
            block_udp: false,
        };
        assert_eq!(spec, expected);
        assert_eq!("".parse(), Ok(LinkSpec::default()));
        assert_eq!(
            "rate=1.5gbit".parse::<LinkSpec>().unwrap().rate,
            Some(1_500_000_000)
        );
        assert!("udp=off".parse::<LinkSpec>().unwrap().block_udp);
    }

    #[test]
    fn what_is_shown_can_be_read_again() {
        for text in [
            "delay=20ms,jitter=0.5ms,loss=1%,rate=100mbit,queue=40ms",
            "",
            "loss=0.1%,udp=off",
        ] {
            let spec: LinkSpec = text.parse().unwrap();
            assert_eq!(spec.to_string(), text);
        }
    }

    #[test]
    fn mistakes_are_named_with_the_part_that_has_them() {
        for (text, part, reason) in [
            ("delay=20ms,loss=1", "`loss=1`", "ends with %"),
            ("delay=20", "`delay=20`", "us, ms or s"),
            ("speed=1", "`speed=1`", "no such property"),
            ("delay", "`delay`", "no `=`"),
            ("loss=101%", "`loss=101%`", "100 %"),
            ("rate=0mbit", "`rate=0mbit`", "1kbit"),
            ("loss=1%,loss=2%", "`loss=2%`", "twice"),
            ("delay=-1ms", "`delay=-1ms`", "no number"),
            ("delay=1e9s", "`delay=1e9s`", "us, ms or s"),
        ] {
            let error = text.parse::<LinkSpec>().unwrap_err().to_string();
            assert!(error.contains(part) && error.contains(reason), "{error}");
        }
    }
}

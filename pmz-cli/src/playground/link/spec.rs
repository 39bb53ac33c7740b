//! What a link is like, and how a person says it.

#[cfg(test)]
mod tests;
mod units;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// How long packets may queue before a rate, unless said otherwise.
const DEFAULT_QUEUE: QueueLimit = QueueLimit::Time(Duration::from_millis(40));
/// What a policer lets pass at once, unless said otherwise: what its rate does in this time, and at
/// least that many bytes, which are ten packets of an ordinary network.
const DEFAULT_BURST: Duration = Duration::from_millis(10);
const LEAST_DEFAULT_BURST: u64 = 15_000;

/// What a link is like, in each direction.
///
/// A packet meets its properties in this order: it is lost by chance, dropped by the policer, or dropped
/// because the queue before the rate is full; it waits for its turn and may get a congestion mark for
/// it; it may be corrupted; then it is delayed, and may be there twice.
#[derive(Clone, Debug, PartialEq)]
pub struct LinkSpec {
    /// One-way delay.
    pub delay: Duration,
    /// The delay of a packet differs from `delay` by at most this, evenly spread. Packets keep their
    /// order, unless `disorder` is set.
    pub jitter: Duration,
    /// Packets overtake each other as their different delays have it.
    pub disorder: bool,
    /// Share of the packets that are lost, each by itself, 0 to 1.
    pub loss: f64,
    /// Packets that are lost one after the other.
    pub burst_loss: Option<LossBursts>,
    /// Share of the packets that overtake those which are under way, by having no delay, 0 to 1.
    pub reorder: f64,
    /// Share of the packets that arrive twice, 0 to 1.
    pub duplicate: f64,
    /// Share of the packets in which one bit is wrong, headers not excepted, 0 to 1.
    pub corrupt: f64,
    /// Drops what exceeds a rate; nothing waits for it.
    pub police: Option<Policer>,
    /// Bits of IP packets per second; none: no limit.
    pub rate: Option<u64>,
    /// With a rate: how much may wait for its turn. What finds the queue full is dropped.
    pub queue: QueueLimit,
    /// With a rate: a packet that would have to wait longer than this for its turn gets the mark for
    /// congestion (RFC 3168), if its sender says that it understands that.
    pub ecn: Option<Duration>,
    /// Nothing but UDP is lost, and all of it: what a firewall does.
    pub block_udp: bool,
}

/// Losses that come together: a share of the packets begins a loss of this many, one after the other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LossBursts {
    /// Share of the packets (of those that are outside of such a loss) that begin one, 0 to 1.
    pub share: f64,
    /// How many packets are lost then, the first one included.
    pub packets: u32,
}

/// A token bucket without a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policer {
    /// Bits of IP packets per second.
    pub rate: u64,
    /// Bytes that pass at once after a pause.
    pub burst: u64,
}

/// How much may wait before a rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueLimit {
    /// A packet that would have to wait longer than this for its turn is dropped.
    Time(Duration),
    /// So many packets, beside the one that is being sent.
    Packets(u32),
}

impl Default for LinkSpec {
    fn default() -> Self {
        Self {
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            disorder: false,
            loss: 0.0,
            burst_loss: None,
            reorder: 0.0,
            duplicate: 0.0,
            corrupt: 0.0,
            police: None,
            rate: None,
            queue: DEFAULT_QUEUE,
            ecn: None,
            block_udp: false,
        }
    }
}

impl Policer {
    /// One that lets pass at once what suits its rate.
    pub fn new(rate: u64) -> Self {
        let burst = u128::from(rate) * DEFAULT_BURST.as_nanos() / 8 / 1_000_000_000;
        let burst = u64::try_from(burst).unwrap_or(u64::MAX);
        Self {
            rate,
            burst: burst.max(LEAST_DEFAULT_BURST),
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

    /// Reads `delay=20ms,jitter=2ms,loss=1%,rate=100mbit,queue=40ms`, each part at most once and none
    /// needed. There are `delay`, `jitter`, `disorder=on` (with a jitter), `loss`, `burst-loss=0.1%x50`,
    /// `reorder`, `duplicate`, `corrupt`, `police=20mbit` and its `burst=30kb`, `rate` and its
    /// `queue=40ms` or `queue=10p` and `ecn=5ms`, and `udp=off`. Times: `us`, `ms`, `s`; rates: `bit`,
    /// `kbit`, `mbit`, `gbit` per second; bytes: `b`, `kb`, `mb`; all of them powers of 1000; `p` are
    /// packets.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut spec = Self::default();
        let mut burst = None;
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
            if seen.iter().any(|(known, _)| *known == key) {
                return Err(wrong("it is there twice"));
            }
            seen.push((key, part));
            match key {
                "delay" => spec.delay = units::time(value).map_err(wrong)?,
                "jitter" => spec.jitter = units::time(value).map_err(wrong)?,
                "disorder" => spec.disorder = units::is_on(value).map_err(wrong)?,
                "loss" => spec.loss = units::share(value).map_err(wrong)?,
                "burst-loss" => spec.burst_loss = Some(bursts(value).map_err(wrong)?),
                "reorder" => spec.reorder = units::share(value).map_err(wrong)?,
                "duplicate" => spec.duplicate = units::share(value).map_err(wrong)?,
                "corrupt" => spec.corrupt = units::share(value).map_err(wrong)?,
                "police" => spec.police = Some(Policer::new(units::rate(value).map_err(wrong)?)),
                "burst" => burst = Some(units::bytes(value).map_err(wrong)?),
                "rate" => spec.rate = Some(units::rate(value).map_err(wrong)?),
                "queue" => spec.queue = queue(value).map_err(wrong)?,
                "ecn" => spec.ecn = Some(units::time(value).map_err(wrong)?),
                "udp" => spec.block_udp = !units::is_on(value).map_err(wrong)?,
                _ => return Err(wrong("there is no such property")),
            }
        }
        let alone = |key, reason| {
            let part = seen.iter().find(|(known, _)| *known == key);
            part.map_or(Ok(()), |(_, part)| {
                Err(LinkSpecError {
                    part: (*part).to_owned(),
                    reason,
                })
            })
        };
        match (&mut spec.police, burst) {
            (Some(policer), Some(burst)) => policer.burst = burst,
            (None, Some(_)) => alone("burst", "it is a policer's, and there is no `police=`")?,
            (_, None) => {}
        }
        if spec.jitter.is_zero() {
            alone("disorder", "it does nothing without a `jitter=`")?;
        }
        if spec.rate.is_none() {
            alone("ecn", "it does nothing without a `rate=`")?;
        }
        Ok(spec)
    }
}

fn bursts(value: &str) -> Result<LossBursts, &'static str> {
    let wrong = "it is a share and a number of packets, such as 0.1%x50";
    let (share, packets) = value.split_once('x').ok_or(wrong)?;
    let packets = packets.parse().map_err(|_| wrong)?;
    if packets == 0 {
        return Err("a burst has at least one packet");
    }
    Ok(LossBursts {
        share: units::share(share)?,
        packets,
    })
}

fn queue(value: &str) -> Result<QueueLimit, &'static str> {
    match value.strip_suffix('p') {
        Some(packets) => match packets.parse() {
            Ok(packets) => Ok(QueueLimit::Packets(packets)),
            Err(_) => Err("it is a number of packets, such as 10p"),
        },
        None => match units::time(value) {
            Err(units::NO_TIME) => Err("a queue's limit ends with us, ms, s, or p for packets"),
            time => time.map(QueueLimit::Time),
        },
    }
}

impl fmt::Display for LinkSpec {
    /// As it can be read again.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use units::{kilobytes, megabits, milliseconds, percent};
        let mut parts = Vec::new();
        let mut add = |wanted: bool, part: &dyn Fn() -> String| {
            if wanted {
                parts.push(part());
            }
        };
        add(!self.delay.is_zero(), &|| {
            format!("delay={}", milliseconds(self.delay))
        });
        add(!self.jitter.is_zero(), &|| {
            format!("jitter={}", milliseconds(self.jitter))
        });
        add(self.disorder && !self.jitter.is_zero(), &|| {
            "disorder=on".into()
        });
        add(self.loss > 0.0, &|| format!("loss={}", percent(self.loss)));
        if let Some(LossBursts { share, packets }) = self.burst_loss {
            add(true, &|| format!("burst-loss={}x{packets}", percent(share)));
        }
        for (name, share) in [
            ("reorder", self.reorder),
            ("duplicate", self.duplicate),
            ("corrupt", self.corrupt),
        ] {
            add(share > 0.0, &|| format!("{name}={}", percent(share)));
        }
        if let Some(Policer { rate, burst }) = self.police {
            add(true, &|| {
                format!("police={},burst={}", megabits(rate), kilobytes(burst))
            });
        }
        if let Some(rate) = self.rate {
            add(true, &|| format!("rate={}", megabits(rate)));
            add(true, &|| match self.queue {
                QueueLimit::Time(time) => format!("queue={}", milliseconds(time)),
                QueueLimit::Packets(packets) => format!("queue={packets}p"),
            });
            if let Some(wait) = self.ecn {
                add(true, &|| format!("ecn={}", milliseconds(wait)));
            }
        }
        add(self.block_udp, &|| "udp=off".into());
        f.write_str(&parts.join(","))
    }
}

//! Reading what the programs have counted.

use nix::time::{ClockId, clock_gettime};
use pmz_xdp_types as types;
use pmz_xdp_types::count;

use super::maps::SteerMaps;
use super::{
    Drops, MAX_TARGETS, PrefixTraffic, Refusals, SteerError, SteerReport, TargetTraffic, Volume,
    address,
};

impl SteerMaps {
    /// The traffic of every address that had any, in no order. Takes two system calls for each.
    ///
    /// # Errors
    /// If the map can't be read.
    pub fn traffic(&self) -> Result<Vec<TargetTraffic>, SteerError> {
        let now = now()?;
        let mut all = Vec::new();
        // The programs add entries meanwhile; the limit is the map's own.
        for entry in self.traffic.iter().take(MAX_TARGETS) {
            let (key, values) =
                entry.map_err(|error| SteerError::reading(types::TRAFFIC, &error))?;
            all.push(of_address(&key, &values, now));
        }
        Ok(all)
    }

    /// What was counted by prefix and by reason.
    ///
    /// # Errors
    /// If a map can't be read.
    pub fn report(&self) -> Result<SteerReport, SteerError> {
        let mut prefixes = Vec::new();
        for (prefix, index) in self.slots.iter() {
            let values = self
                .prefix_volumes
                .get(&index, 0)
                .map_err(|error| SteerError::reading(types::PREFIX_VOLUMES, &error))?;
            let (sent, received) = volumes(values.iter());
            prefixes.push(PrefixTraffic {
                prefix,
                sent,
                received,
            });
        }
        let count = |reason| self.count(reason);
        Ok(SteerReport {
            prefixes,
            drops: Drops {
                not_ip: count(count::NOT_IP)?,
                malformed: count(count::MALFORMED)?,
                no_prefix: count(count::NO_PREFIX)?,
                excluded: count(count::EXCLUDED)?,
                unanswerable: count(count::UNANSWERABLE)?,
                failed: count(count::FAILED)?,
            },
            refusals: Refusals {
                unknown: count(count::UNKNOWN)?,
                no_endpoints: count(count::NO_ENDPOINTS)?,
                collided: count(count::COLLIDED)?,
                too_big: count(count::TOO_BIG)?,
            },
            untracked: count(count::UNTRACKED)?,
        })
    }

    fn count(&self, reason: u32) -> Result<u64, SteerError> {
        let values = self
            .counts
            .get(&reason, 0)
            .map_err(|error| SteerError::reading(types::COUNTS, &error))?;
        Ok(values.iter().sum())
    }
}

/// Nanoseconds by the clock that `bpf_ktime_get_ns` reads.
pub(super) fn now() -> Result<u64, SteerError> {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC)
        .map_err(|error| SteerError::Load(format!("read the clock: {error}")))?;
    let seconds = u64::try_from(time.tv_sec()).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec()).unwrap_or(0);
    Ok(seconds * 1_000_000_000 + nanos)
}

fn of_address(key: &types::Address, values: &[types::Traffic], now: u64) -> TargetTraffic {
    let (sent, received) = volumes(values.iter().map(|value| &value.volume));
    let last = values.iter().map(|value| value.last).max().unwrap_or(0);
    TargetTraffic {
        address: address::address(key),
        sent,
        received,
        flows: values.iter().map(|value| value.flows).sum(),
        // A packet may have passed since the clock was read.
        idle_ns: now.saturating_sub(last),
    }
}

fn volumes<'a>(values: impl Iterator<Item = &'a types::Volume>) -> (Volume, Volume) {
    let mut sent = Volume::default();
    let mut received = Volume::default();
    for value in values {
        sent.packets += value.sent_packets;
        sent.bytes += value.sent_bytes;
        received.packets += value.received_packets;
        received.bytes += value.received_bytes;
    }
    (sent, received)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_summed_over_cpus_and_the_newest_packet_gives_the_age() {
        let one = |n: u64| types::Traffic {
            volume: types::Volume {
                sent_packets: n,
                sent_bytes: 10 * n,
                received_packets: 100 * n,
                received_bytes: 1000 * n,
            },
            flows: n,
            last: 50 + n,
        };
        let key = address::key("10.96.0.1".parse().unwrap()).unwrap();
        let traffic = of_address(&key, &[one(1), types::Traffic::default(), one(2)], 60);
        assert_eq!(
            traffic,
            TargetTraffic {
                address: "10.96.0.1".parse().unwrap(),
                sent: Volume {
                    packets: 3,
                    bytes: 30
                },
                received: Volume {
                    packets: 300,
                    bytes: 3000
                },
                flows: 3,
                idle_ns: 8,
            }
        );
        assert_eq!(of_address(&key, &[one(9)], 3).idle_ns, 0);
    }
}

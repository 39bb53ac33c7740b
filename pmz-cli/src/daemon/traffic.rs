//! What went to and came from the cluster's addresses, with the names that they have.

use std::net::IpAddr;
use std::sync::{Arc, Weak};
use std::time::Instant;

use pmz_net::catalog::{Service, ServiceKind, View};
use pmz_net::steer::{SteerReport, TargetTraffic, Volume};
use serde::{Deserialize, Serialize};

use super::steering::Steering;

/// Addresses that are told at most; the daemon's answers have an end.
const MAX_ENTRIES: usize = 2000;

/// Bits per second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Rate {
    /// To the cluster.
    pub sent_bps: f64,
    /// From it.
    pub received_bps: f64,
}

/// One address of the cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrafficEntry {
    /// `name.namespace.svc` of a service, `name.namespace.svc/pod` of an endpoint; none where nobody has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// As this machine uses it.
    pub address: IpAddr,
    /// In the cluster, where that is another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_address: Option<IpAddr>,
    /// To the cluster.
    pub sent: Volume,
    /// From it.
    pub received: Volume,
    /// Connections, and first packets of others, begun from this machine.
    pub flows: u64,
    /// Milliseconds since the last packet.
    pub idle_ms: u64,
    /// Between two looks, where there were two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
}

/// All of them, newest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TrafficReport {
    /// Milliseconds on the daemon's clock: what lies between two reports.
    pub at_ms: u64,
    /// The addresses.
    pub entries: Vec<TrafficEntry>,
    /// Addresses that were left out.
    #[serde(default)]
    pub left_out: u64,
    /// By prefix, and what was refused or dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub programs: Option<SteerReport>,
    /// Why nothing is counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<String>,
}

impl TrafficReport {
    /// Fills in the rates since an earlier report of the same daemon.
    pub fn rate_since(&mut self, before: &Self) {
        let seconds = self.at_ms.saturating_sub(before.at_ms) as f64 / 1000.0;
        if seconds <= 0.0 {
            return;
        }
        let old = before.entries.iter().map(|entry| (entry.address, entry));
        let old: std::collections::HashMap<_, _> = old.collect();
        for entry in &mut self.entries {
            let (sent, received) = old
                .get(&entry.address)
                .map_or((0, 0), |old| (old.sent.bytes, old.received.bytes));
            let rate = |now: u64, then: u64| now.saturating_sub(then) as f64 * 8.0 / seconds;
            entry.rate = Some(Rate {
                sent_bps: rate(entry.sent.bytes, sent),
                received_bps: rate(entry.received.bytes, received),
            });
        }
    }
}

/// Where traffic is counted, while it is.
#[derive(Clone, Debug)]
pub struct TrafficSource {
    state: Arc<parking_lot::RwLock<State>>,
    start: Instant,
}

#[derive(Debug)]
enum State {
    Counted(Weak<Steering>),
    Missing(String),
}

impl Default for TrafficSource {
    fn default() -> Self {
        let missing = State::Missing("the connection is only being made".to_owned());
        Self {
            state: Arc::new(parking_lot::RwLock::new(missing)),
            start: Instant::now(),
        }
    }
}

impl TrafficSource {
    pub(super) fn count(&self, steering: &Arc<Steering>) {
        *self.state.write() = State::Counted(Arc::downgrade(steering));
    }

    pub(super) fn missing(&self, why: String) {
        *self.state.write() = State::Missing(why);
    }

    pub(super) async fn report(&self) -> TrafficReport {
        let steering = match &*self.state.read() {
            State::Counted(steering) => steering.upgrade().ok_or("the tunnel is gone".to_owned()),
            State::Missing(why) => Err(why.clone()),
        };
        let counted = match &steering {
            Ok(steering) => steering.counted().await.map_err(|error| error.to_string()),
            Err(why) => Err(why.clone()),
        };
        let at_ms = self.start.elapsed().as_millis() as u64;
        match (steering, counted) {
            (Ok(steering), Ok((counted, programs))) => TrafficReport {
                at_ms,
                programs: Some(programs),
                ..report(counted, &steering.mirror().read(), |address| {
                    steering.cluster_address(address)
                })
            },
            (_, Err(why)) | (Err(why), _) => TrafficReport {
                at_ms,
                missing: Some(why),
                ..TrafficReport::default()
            },
        }
    }
}

fn report(
    mut counted: Vec<TargetTraffic>,
    view: &View,
    cluster_address: impl Fn(IpAddr) -> Option<IpAddr>,
) -> TrafficReport {
    counted.sort_by_key(|it| (it.idle_ns, it.address));
    let left_out = counted.len().saturating_sub(MAX_ENTRIES) as u64;
    counted.truncate(MAX_ENTRIES);
    let entries = counted.into_iter().map(|it| {
        let cluster_address = cluster_address(it.address);
        TrafficEntry {
            name: name(view, cluster_address.unwrap_or(it.address)),
            address: it.address,
            cluster_address,
            sent: it.sent,
            received: it.received,
            flows: it.flows,
            idle_ms: it.idle_ns / 1_000_000,
            rate: None,
        }
    });
    TrafficReport {
        entries: entries.collect(),
        left_out,
        ..TrafficReport::default()
    }
}

/// The service that has the address, or the first by name that has it behind it.
fn name(view: &View, address: IpAddr) -> Option<String> {
    let services = view.mirror.by_address(address);
    let full = |service: &Service| format!("{}.{}.svc", service.key.name, service.key.namespace);
    let own = services.iter().find(|service| {
        matches!(&service.kind, ServiceKind::ClusterIp { addresses } if addresses.contains(&address))
    });
    if let Some(service) = own {
        return Some(full(service));
    }
    let service = services.iter().min_by(|a, b| a.key.cmp(&b.key))?;
    let endpoint = service.endpoints.iter().find(|it| it.address == address)?;
    let pod = endpoint.pod.as_ref().or(endpoint.hostname.as_ref());
    Some(match pod {
        Some(pod) => format!("{}/{pod}", full(service)),
        None => full(service),
    })
}

#[cfg(test)]
mod tests {
    use pmz_net::catalog::{Endpoint, ServiceKey, SharedMirror, Snapshot};

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn counted(address: &str, sent: u64, age_ms: u64) -> TargetTraffic {
        TargetTraffic {
            address: ip(address),
            sent: Volume {
                packets: sent / 100,
                bytes: sent,
            },
            received: Volume {
                packets: 0,
                bytes: 10 * sent,
            },
            flows: 1,
            idle_ns: age_ms * 1_000_000,
        }
    }

    fn mirror() -> SharedMirror {
        let mirror = SharedMirror::new();
        let service = Service {
            key: ServiceKey {
                namespace: "shop".to_owned(),
                name: "cart".to_owned(),
            },
            kind: ServiceKind::ClusterIp {
                addresses: vec![ip("10.96.0.7")],
            },
            ports: Vec::new(),
            publish_not_ready: false,
            endpoints: vec![Endpoint {
                address: ip("10.244.0.7"),
                hostname: None,
                pod: Some("cart-0".to_owned()),
                ready: true,
                ports: Vec::new(),
            }],
        };
        let snapshot = Snapshot {
            version: 1,
            services: vec![service],
        };
        mirror.apply_snapshot(snapshot).unwrap();
        mirror
    }

    #[test]
    fn addresses_have_names_and_the_newest_is_first() {
        let counted = vec![
            counted("10.96.0.7", 1000, 50),
            counted("10.244.0.7", 500, 3),
            counted("240.128.0.1", 100, 20),
            counted("10.9.9.9", 100, 70),
        ];
        let behind = |address| (address == ip("240.128.0.1")).then(|| ip("10.96.0.7"));
        let report = report(counted, &mirror().read(), behind);
        let told: Vec<_> = report
            .entries
            .iter()
            .map(|entry| (entry.name.as_deref(), entry.idle_ms))
            .collect();
        assert_eq!(
            told,
            [
                (Some("cart.shop.svc/cart-0"), 3),
                (Some("cart.shop.svc"), 20),
                (Some("cart.shop.svc"), 50),
                (None, 70),
            ]
        );
        assert_eq!(report.entries[1].cluster_address, Some(ip("10.96.0.7")));
    }

    #[test]
    fn rates_are_what_lies_between_two_reports() {
        let view = mirror();
        let at = |at_ms, counted| TrafficReport {
            at_ms,
            ..report(counted, &view.read(), |_| None)
        };
        let before = at(1000, vec![counted("10.96.0.7", 1000, 0)]);
        let mut after = at(
            1500,
            vec![counted("10.96.0.7", 2000, 0), counted("10.9.9.9", 100, 1)],
        );
        after.rate_since(&before);
        let rates: Vec<_> = after.entries.iter().map(|entry| entry.rate).collect();
        let rate = |sent_bps, received_bps| {
            Some(Rate {
                sent_bps,
                received_bps,
            })
        };
        assert_eq!(rates, [rate(16_000.0, 160_000.0), rate(1_600.0, 16_000.0)]);
        let mut same = before.clone();
        same.rate_since(&before);
        assert!(same.entries.iter().all(|entry| entry.rate.is_none()));
    }

    #[test]
    fn more_than_can_be_told_is_counted() {
        let many = (0..2005_u32).map(|n| {
            let address = IpAddr::from(std::net::Ipv4Addr::from_bits(0x0a60_0000 + n));
            counted(&address.to_string(), 100, u64::from(n))
        });
        let report = report(many.collect(), &mirror().read(), |_| None);
        assert_eq!((report.entries.len(), report.left_out), (2000, 5));
    }

    #[tokio::test]
    async fn a_daemon_that_counts_nothing_says_why() {
        let source = TrafficSource::default();
        source.missing("no eBPF".to_owned());
        let report = source.report().await;
        assert_eq!(report.missing.as_deref(), Some("no eBPF"));
    }
}

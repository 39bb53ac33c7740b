//! What `pmz status` tells of a session.

use std::collections::BTreeMap;
use std::time::Duration;

use pmz_net::carrier::choice::{Carrier, PathReport};
use pmz_net::device::lost_on_the_way_out;
use pmz_net::guard::GuardReport;
use serde_json::Value;

use super::choices::CarrierChoice;
use super::running::Running;
use super::status::{AgentStatus, CarrierKind, CarrierStatus, Status, SteeringStatus, Traffic};
use crate::session::CarrierState;

/// A carrier in a word, with the time that it took.
pub(super) fn describe(carrier: Option<Carrier>, took: Duration) -> String {
    let what = match carrier {
        Some(Carrier::Udp(to)) => format!("UDP to {to}"),
        Some(Carrier::Stream) => "streams through the API server".to_owned(),
        None => "none".to_owned(),
    };
    format!("{what}, after {} ms", took.as_millis())
}

/// Fills a status with what is known of the session at that moment.
pub(super) fn filler(
    running: &Running,
    wanted: CarrierChoice,
) -> Box<dyn Fn(&mut Status) + Send + Sync> {
    let (link, mirror, carriers) = (
        running.link.clone(),
        running.mirror.clone(),
        running.carriers.clone(),
    );
    let progress = running.progress.clone();
    let steering = running.steering_status.clone();
    let guard = running.guard.clone();
    let congestion = running.congestion.clone();
    let (device, attachment, server, context, namespace) = (
        running.device.clone(),
        running.attachment.clone(),
        running.server.clone(),
        running.context.clone(),
        running.namespace.clone(),
    );
    Box::new(move |status| {
        status.context.clone_from(&context);
        status.server = Some(server.clone());
        status.device = Some(device.clone());
        let shown = attachment.shown();
        status.routes = shown.routes;
        status.steering = Some(SteeringStatus {
            remapped: shown.remapped,
            pool: shown.pool,
            diverted: attachment.diverting().shown(),
            ..steering.clone()
        });
        status.guard = guard.lock().clone();
        status.dns = shown.dns;
        status.services = mirror.read().mirror.len() as u64;
        if let Some(welcome) = progress.borrow().welcome.clone() {
            status.addresses.clone_from(&welcome.addresses);
            status.mtu = Some(welcome.mtu);
            status.networks = Some(welcome.networks.clone());
            status.agent = Some(AgentStatus {
                namespace: namespace.clone(),
                pod: welcome.agent.clone(),
                version: welcome.version.clone(),
            });
        }
        let state = carriers.lock().clone();
        status.carrier = carrier(&state, wanted);
        status.rtt_ms = rtt(&state);
        status.congestion.clone_from(&congestion.lock());
        if let Some(peer) = link.peer() {
            let stats = peer.stats();
            status.bytes = Traffic {
                sent: stats.sent_bytes,
                received: stats.received_bytes,
            };
            status.packets = Traffic {
                sent: stats.sent,
                received: stats.received,
            };
            status.handshake_age_s = stats.handshake_age_s.map(|age| age as f64);
            status.drops = drops(&[
                serde_json::to_value(link.engine().drops()),
                serde_json::to_value(peer.attached.report()),
            ]);
            if let Some(guard) = &status.guard {
                status.drops.extend(by_the_guard(&guard.counts));
            }
            status.drops.extend(before_the_tun(&device));
        }
    })
}

/// The counters that have counted something.
fn drops(sources: &[Result<Value, serde_json::Error>]) -> BTreeMap<String, u64> {
    let objects = sources.iter().filter_map(|v| v.as_ref().ok()?.as_object());
    objects
        .flatten()
        .filter(|(name, _)| name.as_str() != "streams")
        .filter_map(|(name, value)| Some((name.clone(), value.as_u64().filter(|n| *n > 0)?)))
        .collect()
}

/// Packets that found no room before the TUN.
fn before_the_tun(device: &str) -> Option<(String, u64)> {
    let lost = lost_on_the_way_out(device)
        .inspect_err(|error| tracing::debug!(%error, device, "no count of lost packets"))
        .ok()?;
    (lost > 0).then(|| ("tun-queue".to_owned(), lost))
}

/// The guard's counters that have counted something, each a reason for which a datagram was dropped.
fn by_the_guard(report: &GuardReport) -> impl Iterator<Item = (String, u64)> {
    [
        ("guard-kind", report.kind),
        ("guard-length", report.length),
        ("guard-receiver", report.receiver),
        ("guard-source-rate", report.source_rate),
        ("guard-rate", report.rate),
    ]
    .into_iter()
    .filter(|(_, count)| *count > 0)
    .map(|(name, count)| (name.to_owned(), count))
}

fn carrier(state: &CarrierState, wanted: CarrierChoice) -> Option<CarrierStatus> {
    let (kind, endpoint) = match state.carrier? {
        Carrier::Udp(to) => (CarrierKind::Udp, to.to_string()),
        Carrier::Stream => {
            let streams = state
                .paths
                .iter()
                .filter(|p| Carrier::from(p.path) == Carrier::Stream && p.alive);
            (
                CarrierKind::Stream,
                format!("{} port-forwards", streams.count()),
            )
        }
    };
    Some(CarrierStatus {
        kind,
        endpoint,
        why: why(state, kind, wanted),
    })
}

fn why(state: &CarrierState, kind: CarrierKind, wanted: CarrierChoice) -> String {
    if wanted != CarrierChoice::Auto {
        return "no other was asked for".to_owned();
    }
    let udp = |p: &&PathReport| matches!(Carrier::from(p.path), Carrier::Udp(_));
    match kind {
        CarrierKind::Udp => "it answers, and is faster than the API server".to_owned(),
        CarrierKind::Stream => {
            let tried: Vec<String> = state
                .paths
                .iter()
                .filter(udp)
                .filter_map(|p| match Carrier::from(p.path) {
                    Carrier::Udp(to) => Some(to.to_string()),
                    Carrier::Stream => None,
                })
                .collect();
            if tried.is_empty() {
                "the agent has no UDP address outside of the tunnel".to_owned()
            } else {
                format!("no answer by UDP from {}", tried.join(", "))
            }
        }
    }
}

/// The round trip on the carrier in use: of several streams, the quickest.
fn rtt(state: &CarrierState) -> Option<f64> {
    let carrier = state.carrier?;
    let paths = state
        .paths
        .iter()
        .filter(|p| Carrier::from(p.path) == carrier);
    paths
        .filter_map(|p| p.rtt_us)
        .min()
        .map(|us| us as f64 / 1000.0)
}

//! `pmz status` for people.

use std::fmt::Write;

use super::Style;
use super::units::{bytes, duration};
use pmz_net::session::{Found, Network, Networks};

use crate::daemon::{CarrierKind, State, Status};

/// The status as lines of name and value.
pub fn text(status: &Status, style: Style) -> String {
    let mut rows: Vec<(&str, String)> = vec![("State", state(status, style))];
    if !status.context.is_empty() {
        let server = status
            .server
            .as_ref()
            .map(|s| format!(" ({s})"))
            .unwrap_or_default();
        rows.push(("Context", format!("{}{server}", status.context)));
    }
    if let Some(agent) = &status.agent {
        rows.push((
            "Agent",
            format!(
                "{}/{}, version {}",
                agent.namespace, agent.pod, agent.version
            ),
        ));
    }
    if let Some(carrier) = &status.carrier {
        let kind = match carrier.kind {
            CarrierKind::Udp => "UDP to",
            CarrierKind::Stream => "stream through",
        };
        let why = if carrier.why.is_empty() {
            String::new()
        } else {
            format!(" ({})", carrier.why)
        };
        rows.push(("Carrier", format!("{kind} {}{why}", carrier.endpoint)));
    }
    if let Some(rtt) = status.rtt_ms {
        let used = status.congestion.as_ref();
        let used = used.map(|it| format!(" (new TCP connections use {it})"));
        let used = used.unwrap_or_default();
        rows.push(("Round trip", format!("{rtt:.1} ms{used}")));
    }
    if let Some(device) = &status.device {
        let mtu = status
            .mtu
            .map(|mtu| format!(", MTU {mtu}"))
            .unwrap_or_default();
        rows.push(("Device", format!("{device}{mtu}")));
    }
    if !status.addresses.is_empty() {
        rows.push(("Addresses", join(&status.addresses)));
    }
    if !status.routes.is_empty() {
        rows.push(("Routes", join(&status.routes)));
    }
    if let Some(steering) = &status.steering {
        let mut told = match &steering.missing {
            Some(why) => format!("plain {}, without eBPF: {why}", steering.how),
            None => format!("eBPF ({})", steering.how),
        };
        if !steering.remapped.is_empty() {
            told = format!(
                "{told}; {} collide with this machine's and appear in {}",
                join(&steering.remapped),
                join(&steering.pool)
            );
        }
        for place in &steering.diverted {
            told = match &place.missing {
                None => format!("{told}; tc at {}", place.device),
                Some(why) => format!("{told}; not at {}: {why}", place.device),
            };
        }
        rows.push(("Steering", told));
    }
    if let Some(guard) = &status.guard {
        let told = match &guard.missing {
            None => "eBPF at the UDP socket".to_owned(),
            Some(why) => format!("none: {why}"),
        };
        rows.push(("Guard", told));
    }
    if let Some(Networks { services, pods }) = &status.networks {
        rows.push((
            "Networks",
            format!(
                "services {}; pods {}",
                known(services, "the services seen"),
                known(pods, "the pods seen")
            ),
        ));
    }
    if let Some(dns) = &status.dns {
        rows.push((
            "Names",
            format!(
                "{} services below {}{}{}, {}",
                status.services,
                dns.domain,
                bare(&dns.search),
                added(status.domains),
                dns.way()
            ),
        ));
    }
    rows.push((
        "Sent",
        format!(
            "{}, {} packets",
            bytes(status.bytes.sent),
            status.packets.sent
        ),
    ));
    rows.push((
        "Received",
        format!(
            "{}, {} packets",
            bytes(status.bytes.received),
            status.packets.received
        ),
    ));
    let drops = status
        .drops
        .iter()
        .filter(|(_, n)| **n > 0)
        .map(|(why, n)| format!("{n} {why}"));
    let drops: Vec<_> = drops.collect();
    if !drops.is_empty() {
        rows.push(("Dropped", style.warn(drops.join(", "))));
    }
    if let Some(age) = status.handshake_age_s {
        rows.push(("Handshake", format!("{} ago", duration(age as u64))));
    }
    if let Some(fault) = &status.last_fault {
        rows.push((
            "Last fault",
            format!("{}, {} ago", fault.what, duration(fault.ago_s)),
        ));
    }
    let mut text = String::new();
    for (name, value) in rows {
        // Writing to a string can't fail.
        let _ = writeln!(text, "{} {value}", style.dim(format!("{name:<11}")));
    }
    text
}

fn state(status: &Status, style: Style) -> String {
    let since = duration(status.since_s);
    match status.state {
        State::Connected => {
            let again = match status.reconnects {
                0 => String::new(),
                1 => ", reconnected once".to_owned(),
                n => format!(", reconnected {n} times"),
            };
            format!("{} for {since}{again}", style.good("connected"))
        }
        State::Connecting => {
            let step = status
                .step
                .as_ref()
                .map(|s| format!(": {s}"))
                .unwrap_or_default();
            format!("{} for {since}{step}", style.warn("connecting"))
        }
        State::Reconnecting => {
            let cause = status
                .cause
                .as_ref()
                .map(|c| format!(": {c}"))
                .unwrap_or_default();
            format!("{} for {since}{cause}", style.bad("reconnecting"))
        }
        State::Stopping => style.warn("stopping"),
    }
}

/// Namespaces whose services are found by `name` alone.
fn bare(namespaces: &[String]) -> String {
    match namespaces {
        [] => String::new(),
        some => format!(" (those in {} also by name alone)", some.join(", ")),
    }
}

/// Domains that the user added.
fn added(domains: u64) -> String {
    match domains {
        0 => String::new(),
        1 => " and a domain of yours".to_owned(),
        n => format!(" and {n} domains of yours"),
    }
}

/// How a network is known.
fn known(network: &Network, seen: &str) -> String {
    match network.found {
        Found::Configured => "as the agent was told".to_owned(),
        Found::ServiceCidr => "by ServiceCIDR objects".to_owned(),
        Found::Refusal => "by the API server's refusal of an address outside".to_owned(),
        Found::Nodes => "by the nodes' podCIDRs".to_owned(),
        Found::Seen => format!("guessed from {seen}"),
        Found::Other => "in some newer way".to_owned(),
    }
}

fn join<T: ToString>(list: &[T]) -> String {
    list.iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::{AgentStatus, CarrierStatus, DnsStatus, Fault, Traffic};

    fn connected() -> Status {
        Status {
            state: State::Connected,
            since_s: 125,
            context: "dev".to_owned(),
            server: Some("https://192.0.2.1:6443".to_owned()),
            agent: Some(AgentStatus {
                namespace: "pmz".to_owned(),
                pod: "agent-0".to_owned(),
                version: "0.1.0".to_owned(),
            }),
            carrier: Some(CarrierStatus {
                kind: CarrierKind::Udp,
                endpoint: "192.0.2.7:51820".to_owned(),
                why: "fastest of 2".to_owned(),
            }),
            rtt_ms: Some(40.24),
            congestion: Some("bbr".to_owned()),
            mtu: Some(1280),
            device: Some("pmz0".to_owned()),
            bytes: Traffic {
                sent: 999,
                received: 12_345_678,
            },
            drops: [("wrong-source".to_owned(), 3), ("no-room".to_owned(), 0)].into(),
            dns: Some(DnsStatus {
                how: "resolv.conf".to_owned(),
                missing: Some("eBPF: no permission".to_owned()),
                server: "100.64.0.2".parse().unwrap(),
                domain: "cluster.local".to_owned(),
                search: vec!["shop".to_owned()],
            }),
            networks: Some(Networks {
                services: Network {
                    prefixes: vec!["10.96.0.0/16".parse().unwrap()],
                    found: Found::ServiceCidr,
                },
                pods: Network::default(),
            }),
            services: 14,
            domains: 2,
            reconnects: 1,
            last_fault: Some(Fault {
                what: "the agent is gone".to_owned(),
                ago_s: 130,
            }),
            ..Status::default()
        }
    }

    #[test]
    fn a_connection_is_told_in_lines() {
        let text = text(&connected(), Style::plain());
        for line in [
            "State       connected for 2 min, reconnected once\n",
            "Context     dev (https://192.0.2.1:6443)\n",
            "Agent       pmz/agent-0, version 0.1.0\n",
            "Carrier     UDP to 192.0.2.7:51820 (fastest of 2)\n",
            "Round trip  40.2 ms (new TCP connections use bbr)\n",
            "Device      pmz0, MTU 1280\n",
            "Networks    services by ServiceCIDR objects; pods guessed from the pods seen\n",
            "Names       14 services below cluster.local (those in shop also by name alone) and 2 domains of yours, by resolv.conf (eBPF: no permission)
",
            "Received    12 MB, 0 packets\n",
            "Dropped     3 wrong-source\n",
            "Last fault  the agent is gone, 2 min ago\n",
        ] {
            assert!(text.contains(line), "{line:?} is missing in\n{text}");
        }
    }

    #[test]
    fn the_json_is_stable() {
        let json = serde_json::to_value(connected()).unwrap();
        assert_eq!(json["state"], "connected");
        assert_eq!(json["carrier"]["kind"], "udp");
        assert_eq!(json["congestion"], "bbr");
        assert_eq!(json["agent"]["pod"], "agent-0");
        assert_eq!(json["bytes"]["received"], 12_345_678);
        assert_eq!(json["drops"]["wrong-source"], 3);
        assert_eq!(json["last_fault"]["ago_s"], 130);
        assert!(json.get("cause").is_none());
        assert_eq!(serde_json::from_value::<Status>(json).unwrap(), connected());
    }
}

//! Where clients may reach the tunnel's UDP port, out of the Service that exposes it.

use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::WatchConfig;

/// Candidates that are told to clients at most: each costs them a probe.
const MAX_CANDIDATES: usize = 16;

/// The candidates, best first: those that somebody configured, the node port at the agent's own node, load
/// balancers, external addresses, the node port at the other nodes (`nodes`), and the pod itself, which few
/// clients can reach.
pub(super) fn candidates(
    service: Option<&Service>,
    config: &WatchConfig,
    nodes: &[IpAddr],
) -> Vec<SocketAddr> {
    let mut candidates = config.udp_candidates.clone();
    if let Some(service) = service {
        exposed(service, config, nodes, &mut candidates);
    }
    let pod = config
        .pod_addresses
        .iter()
        .map(|&ip| SocketAddr::new(ip, config.tunnel_port));
    candidates.extend(pod);
    let mut unique = Vec::new();
    for candidate in candidates {
        if usable(&candidate) && !unique.contains(&candidate) && unique.len() < MAX_CANDIDATES {
            unique.push(candidate);
        }
    }
    unique
}

fn exposed(
    service: &Service,
    config: &WatchConfig,
    nodes: &[IpAddr],
    candidates: &mut Vec<SocketAddr>,
) {
    let Some(spec) = &service.spec else {
        return;
    };
    let ports: Vec<_> = spec
        .ports
        .iter()
        .flatten()
        .filter(|port| leads_here(port, config.tunnel_port))
        .collect();
    let node_ports = |addresses: &[IpAddr]| -> Vec<SocketAddr> {
        let ports = ports.iter().filter_map(|port| number(port.node_port?));
        let each =
            ports.flat_map(|port| addresses.iter().map(move |&ip| SocketAddr::new(ip, port)));
        each.collect()
    };
    candidates.extend(node_ports(&config.host_addresses));
    let balancers = service
        .status
        .iter()
        .filter_map(|status| status.load_balancer.as_ref());
    let balancers = balancers.flat_map(|balancer| balancer.ingress.iter().flatten());
    // Ingresses that are host names are left to clients' configuration: their addresses change.
    let balancers = balancers.filter_map(|ingress| ingress.ip.as_deref());
    let external = spec.external_ips.iter().flatten().map(String::as_str);
    for ip in balancers
        .chain(external)
        .filter_map(|ip| ip.parse::<IpAddr>().ok())
    {
        let ports = ports.iter().filter_map(|port| number(port.port));
        candidates.extend(ports.map(|port| SocketAddr::new(ip, port)));
    }
    // Other nodes pass it on, unless they are told not to.
    if spec.external_traffic_policy.as_deref() != Some("Local") {
        candidates.extend(node_ports(nodes));
    }
}

/// Whether the port is UDP and leads to the tunnel's. A target port with a name can't be looked up
/// without the pod; the agent's own Service is trusted to mean the tunnel.
fn leads_here(port: &ServicePort, tunnel_port: u16) -> bool {
    if port.protocol.as_deref() != Some("UDP") {
        return false;
    }
    match &port.target_port {
        Some(IntOrString::Int(target)) => *target == i32::from(tunnel_port),
        Some(IntOrString::String(_)) => true,
        None => port.port == i32::from(tunnel_port),
    }
}

fn number(port: i32) -> Option<u16> {
    u16::try_from(port).ok().filter(|port| *port != 0)
}

fn usable(candidate: &SocketAddr) -> bool {
    let ip = candidate.ip();
    let link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    candidate.port() != 0
        && !(ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || link_local)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn config() -> WatchConfig {
        WatchConfig {
            tunnel_port: 51820,
            host_addresses: vec!["10.99.1.11".parse().unwrap(), "fd99::11".parse().unwrap()],
            pod_addresses: vec!["10.244.0.9".parse().unwrap()],
            ..WatchConfig::default()
        }
    }

    fn told(spec: serde_json::Value, config: &WatchConfig) -> Vec<String> {
        let status =
            json!({"loadBalancer": {"ingress": [{"ip": "203.0.113.9"}, {"hostname": "lb.x"}]}});
        let service = json!({"metadata": {"name": "pmz-agent"}, "spec": spec, "status": status});
        let service = serde_json::from_value(service).unwrap();
        candidates(Some(&service), config, &["10.99.1.12".parse().unwrap()])
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn node_ports_come_before_load_balancers_and_the_pod_comes_last() {
        let spec = json!({
            "externalIPs": ["203.0.113.10"],
            "ports": [
                {"protocol": "UDP", "port": 443, "targetPort": 51820, "nodePort": 31820},
                {"protocol": "TCP", "port": 51820, "targetPort": 51820, "nodePort": 30001},
                {"protocol": "UDP", "port": 53, "targetPort": 53, "nodePort": 30002},
            ],
        });
        let expected = [
            "10.99.1.11:31820",
            "[fd99::11]:31820",
            "203.0.113.9:443",
            "203.0.113.10:443",
            "10.99.1.12:31820",
            "10.244.0.9:51820",
        ];
        assert_eq!(told(spec, &config()), expected);
    }

    #[test]
    fn target_ports_may_be_named_or_left_out() {
        let named = json!({"ports": [
            {"protocol": "UDP", "port": 1, "targetPort": "tunnel", "nodePort": 30001},
            {"protocol": "UDP", "port": 51820, "nodePort": 30002},
            {"protocol": "UDP", "port": 2, "nodePort": 30003},
        ]});
        let config = WatchConfig {
            host_addresses: vec!["192.0.2.1".parse().unwrap()],
            ..config()
        };
        let told = told(named, &config);
        assert_eq!(told[..2], ["192.0.2.1:30001", "192.0.2.1:30002"]);
        assert!(!told.iter().any(|candidate| candidate.ends_with(":30003")));
    }

    #[test]
    fn without_a_service_the_pod_and_what_is_configured_remain() {
        let config = WatchConfig {
            udp_candidates: vec!["192.0.2.7:9".parse().unwrap()],
            ..config()
        };
        let told: Vec<_> = candidates(None, &config, &[])
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(told, ["192.0.2.7:9", "10.244.0.9:51820"]);
    }

    #[test]
    fn addresses_that_nobody_can_reach_are_not_told() {
        let addresses = [
            "127.0.0.1",
            "0.0.0.0",
            "169.254.1.1",
            "fe80::1",
            "224.0.0.1",
            "10.244.0.9",
        ];
        let config = WatchConfig {
            pod_addresses: addresses
                .iter()
                .map(|address| address.parse().unwrap())
                .collect(),
            ..config()
        };
        assert_eq!(candidates(None, &config, &[]).len(), 1);
    }
}

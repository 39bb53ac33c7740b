//! The rules themselves.

use std::net::SocketAddr;

use super::expr::{
    Expr, Is, Meta, REG_1, REG_2, Reject, Side, address_in, address_is, destination_port_is,
    family_is, octets,
};
use super::message::{Batch, ChainType, Hook};
use super::{NodeNetwork, ServiceRule, Transport};

const TABLE: &str = "pmz-playground";
const SERVICES: &str = "services";
const PREROUTING: &str = "prerouting";
const OUTPUT: &str = "output";
const POSTROUTING: &str = "postrouting";
const FORWARD_FILTER: &str = "forward-filter";
const OUTPUT_FILTER: &str = "output-filter";

/// `NF_IP_PRI_*` of linux/netfilter_ipv4.h.
const PRIORITY_DNAT: i32 = -100;
const PRIORITY_FILTER: i32 = 0;
const PRIORITY_SNAT: i32 = 100;

/// Marks connections that came to a NodePort: their pod must answer through the node. kube-proxy's own
/// mark.
const MASQUERADE_MARK: u32 = 0x4000;

/// Writes the whole table.
pub(super) fn write(batch: &mut Batch, network: &NodeNetwork, services: &[ServiceRule]) {
    batch.replace_table(TABLE);
    batch.chain(TABLE, SERVICES);
    batch.base_chain(
        TABLE,
        PREROUTING,
        ChainType::Nat,
        Hook::Prerouting,
        PRIORITY_DNAT,
    );
    batch.base_chain(TABLE, OUTPUT, ChainType::Nat, Hook::Output, PRIORITY_DNAT);
    batch.base_chain(
        TABLE,
        POSTROUTING,
        ChainType::Nat,
        Hook::Postrouting,
        PRIORITY_SNAT,
    );
    batch.base_chain(
        TABLE,
        FORWARD_FILTER,
        ChainType::Filter,
        Hook::Forward,
        PRIORITY_FILTER,
    );
    batch.base_chain(
        TABLE,
        OUTPUT_FILTER,
        ChainType::Filter,
        Hook::Output,
        PRIORITY_FILTER,
    );
    for chain in [PREROUTING, OUTPUT] {
        batch.rule(TABLE, chain, &[Expr::Jump(SERVICES)]);
    }
    for service in services {
        if service.endpoints.is_empty() {
            refuse(batch, service);
        } else {
            translate(batch, network, service);
        }
    }
    refuse_unknown(batch, network);
    masquerade(batch, network, services);
}

fn translate(batch: &mut Batch, network: &NodeNetwork, service: &ServiceRule) {
    let node_addresses = network
        .addresses
        .iter()
        .filter(|a| a.is_ipv4() == service.cluster_ip.is_ipv4());
    let node_ports = service
        .node_port
        .into_iter()
        .flat_map(|port| node_addresses.clone().map(move |a| (*a, port)));
    let here = std::iter::once((service.cluster_ip, service.port, false));
    for (address, port, marked) in
        here.chain(node_ports.map(|(address, port)| (address, port, true)))
    {
        let count = service.endpoints.len();
        for (i, endpoint) in service.endpoints.iter().enumerate() {
            let mut exprs = Vec::new();
            exprs.extend(family_is(address));
            exprs.extend(address_is(Side::Destination, address));
            exprs.extend(destination_port_is(service.transport, port));
            // The first of n takes one of n, the next one of the remaining n - 1, the last all: each
            // endpoint gets the same share.
            let remaining = (count - i) as u32;
            if remaining > 1 {
                exprs.push(Expr::Random { below: remaining });
                exprs.push(Expr::Compare(Is::Equal, 0u32.to_ne_bytes().to_vec()));
            }
            if marked {
                exprs.push(Expr::Load {
                    register: REG_1,
                    value: MASQUERADE_MARK.to_ne_bytes().to_vec(),
                });
                exprs.push(Expr::SetMark);
            }
            exprs.extend(dnat(*endpoint));
            batch.rule(TABLE, SERVICES, &exprs);
        }
    }
}

fn dnat(to: SocketAddr) -> [Expr<'static>; 3] {
    [
        Expr::Load {
            register: REG_1,
            value: octets(to.ip()),
        },
        Expr::Load {
            register: REG_2,
            value: to.port().to_be_bytes().to_vec(),
        },
        Expr::Dnat { to: to.ip() },
    ]
}

fn refuse(batch: &mut Batch, service: &ServiceRule) {
    for chain in [FORWARD_FILTER, OUTPUT_FILTER] {
        let mut exprs = Vec::new();
        exprs.extend(family_is(service.cluster_ip));
        exprs.extend(address_is(Side::Destination, service.cluster_ip));
        exprs.extend(destination_port_is(service.transport, service.port));
        exprs.push(Expr::Reject(match service.transport {
            // kube-proxy sends an ICMP error for TCP, too. Over a veth pair that one arrives while connect(2)
            // still holds its socket, and with IPv6 is then found a second later.
            Transport::Tcp => Reject::Reset,
            Transport::Udp => Reject::PortUnreachable,
        }));
        batch.rule(TABLE, chain, &exprs);
    }
}

/// What still has an address of the service network after translation goes nowhere.
fn refuse_unknown(batch: &mut Batch, network: &NodeNetwork) {
    for prefix in &network.service_cidrs {
        let mut exprs = Vec::new();
        exprs.extend(family_is(prefix.addr()));
        exprs.extend(address_in(Side::Destination, Is::Equal, *prefix));
        exprs.push(Expr::Reject(Reject::HostUnreachable));
        batch.rule(TABLE, FORWARD_FILTER, &exprs);
    }
}

fn masquerade(batch: &mut Batch, network: &NodeNetwork, services: &[ServiceRule]) {
    let marked = [
        Expr::Meta(Meta::Mark),
        Expr::Compare(Is::Equal, MASQUERADE_MARK.to_ne_bytes().to_vec()),
        Expr::Masquerade,
    ];
    batch.rule(TABLE, POSTROUTING, &marked);
    // A pod that reaches itself through its service must not see its own address as its peer's.
    let mut pods: Vec<_> = services
        .iter()
        .flat_map(|s| &s.endpoints)
        .map(SocketAddr::ip)
        .collect();
    pods.sort_unstable();
    pods.dedup();
    for pod in pods {
        let mut exprs = Vec::new();
        exprs.extend(family_is(pod));
        exprs.extend(address_is(Side::Source, pod));
        exprs.extend(address_is(Side::Destination, pod));
        exprs.push(Expr::Masquerade);
        batch.rule(TABLE, POSTROUTING, &exprs);
    }
    // The lan has no route to pods.
    for prefix in &network.pod_cidrs {
        let mut exprs = Vec::new();
        exprs.extend(family_is(prefix.addr()));
        exprs.push(Expr::Meta(Meta::OutputInterface));
        exprs.push(Expr::Compare(
            Is::Equal,
            interface_name(&network.lan_interface),
        ));
        exprs.extend(address_in(Side::Source, Is::Equal, *prefix));
        exprs.extend(address_in(Side::Destination, Is::Not, *prefix));
        exprs.push(Expr::Masquerade);
        batch.rule(TABLE, POSTROUTING, &exprs);
    }
}

/// An interface's name as `meta oifname` loads it: padded to `IFNAMSIZ`.
fn interface_name(name: &str) -> Vec<u8> {
    let mut padded = name.as_bytes().to_vec();
    padded.resize(libc::IFNAMSIZ, 0);
    padded
}

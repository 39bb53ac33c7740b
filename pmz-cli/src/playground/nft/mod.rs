//! Services as kube-proxy does them: connections to a ClusterIP go to one of the pods behind it, by
//! nf_tables rules in the node's network namespace.
//!
//! The rules are those of kube-proxy's iptables mode, and so is what an application sees: a random
//! endpoint for each connection, `ECONNREFUSED` for a service without endpoints, `EHOSTUNREACH` for a
//! ClusterIP or port that there isn't. They are written through netlink by hand, since a bare Debian has
//! neither `nft` nor `iptables`.

mod attrs;
mod conntrack;
mod expr;
mod message;
mod rules;
mod socket;

use std::io;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::netns::NetNs;
use conntrack::Flow;
use message::Batch;
use socket::NetfilterSocket;

/// A transport that services are translated for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// One port of a service at one of its addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceRule {
    /// The service's own address.
    pub cluster_ip: IpAddr,
    /// Transport.
    pub transport: Transport,
    /// The service's own port.
    pub port: u16,
    /// A port at the node's addresses of the same family that leads here, too.
    pub node_port: Option<u16>,
    /// Where to, of the same family as the ClusterIP; none: connections are refused.
    pub endpoints: Vec<SocketAddr>,
}

/// What the rules must know about the node.
#[derive(Clone, Debug)]
pub struct NodeNetwork {
    /// Interface to the lan.
    pub lan_interface: String,
    /// The node's addresses on the lan.
    pub addresses: Vec<IpAddr>,
    /// Where ClusterIPs come from.
    pub service_cidrs: Vec<IpNet>,
    /// Where pods' addresses come from.
    pub pod_cidrs: Vec<IpNet>,
}

impl NodeNetwork {
    /// Whether a UDP flow is one to a service, and answered by none of the service's endpoints.
    fn is_stale(&self, services: &[ServiceRule], flow: &Flow) -> bool {
        services
            .iter()
            .filter(|service| service.transport == Transport::Udp)
            .any(|service| {
                let to_node = service.cluster_ip.is_ipv4() == flow.destination.is_ipv4()
                    && service.node_port == Some(flow.destination.port())
                    && self.addresses.contains(&flow.destination.ip());
                let to_service =
                    flow.destination == SocketAddr::new(service.cluster_ip, service.port);
                (to_node || to_service) && !service.endpoints.contains(&flow.answers_from)
            })
    }
}

/// The node's table of services. It goes with the network namespace.
#[derive(Debug)]
pub struct ServiceTable {
    socket: NetfilterSocket,
    network: NodeNetwork,
}

impl ServiceTable {
    /// A table for the node whose namespace this is. There are no rules before the first
    /// [`Self::apply`].
    ///
    /// # Errors
    /// If the namespace can't be entered or the kernel has no netfilter.
    pub fn open(node: &NetNs, network: NodeNetwork) -> io::Result<Self> {
        let socket = node.run(NetfilterSocket::open)??;
        Ok(Self { socket, network })
    }

    /// Makes the table what `services` say, in one step: no packet sees a part of it. Connections that
    /// are there keep the endpoint that they have; UDP flows whose endpoint has gone get another.
    ///
    /// # Errors
    /// What the kernel answers; the table is then what it was before.
    pub fn apply(&mut self, services: &[ServiceRule]) -> io::Result<()> {
        let mut batch = Batch::new();
        rules::write(&mut batch, &self.network, services);
        self.socket.commit(batch)?;
        self.socket
            .forget_flows(|flow| self.network.is_stale(services, flow))
    }
}

//! What an agent can be told on its command line or by its environment.

use std::net::SocketAddr;

use clap::builder::FalseyValueParser;
use ipnet::IpNet;
use pmz_net::nat::TcpStack;
use pmz_net::tcp::Congestion;

use crate::{CONTROL_PORT, TUNNEL_PORT};

/// Options of the agent.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Port of the control connections, on loopback alone
    #[arg(long, env = "PMZ_CONTROL_PORT", default_value_t = CONTROL_PORT)]
    pub control_port: u16,

    /// UDP port of the tunnel
    #[arg(long, env = "PMZ_TUNNEL_PORT", default_value_t = TUNNEL_PORT)]
    pub tunnel_port: u16,

    /// Name of this agent, as clients show it: its pod's
    #[arg(long, env = "POD_NAME", default_value = "pmz-agent")]
    pub name: String,

    /// Namespace of this agent
    #[arg(long, env = "POD_NAMESPACE", default_value = "pmz")]
    pub namespace: String,

    /// Service that exposes the tunnel's UDP port outside the cluster
    #[arg(long, env = "PMZ_SERVICE", default_value = "pmz-agent")]
    pub service: String,

    /// Addresses of this pod, for clients that reach pods directly
    #[arg(long, env = "POD_IPS", value_delimiter = ',')]
    pub pod_ips: Vec<std::net::IpAddr>,

    /// Addresses of this pod's node, at which node ports are reached
    #[arg(long, env = "HOST_IPS", value_delimiter = ',')]
    pub host_ips: Vec<std::net::IpAddr>,

    /// More addresses at which clients may try the tunnel's UDP port
    #[arg(long, env = "PMZ_UDP_CANDIDATES", value_delimiter = ',')]
    pub udp_candidates: Vec<SocketAddr>,

    /// Prefixes of the cluster's services, where the API can't be asked
    #[arg(long, env = "PMZ_SERVICE_CIDRS", value_delimiter = ',')]
    pub service_cidrs: Vec<IpNet>,

    /// Prefixes of the cluster's pods
    #[arg(long, env = "PMZ_POD_CIDRS", value_delimiter = ',')]
    pub pod_cidrs: Vec<IpNet>,

    /// The cluster's DNS domain; found in the pod's resolv.conf where not given
    #[arg(long, env = "PMZ_CLUSTER_DOMAIN")]
    pub cluster_domain: Option<String>,

    /// Congestion control of downloads to clients by UDP: bbr or cubic
    #[arg(long, env = "PMZ_CONGESTION", default_value_t = Congestion::Bbr)]
    pub congestion: Congestion,

    /// What ends the clients' TCP connections: own, or smoltcp to compare with
    #[arg(long, env = "PMZ_TCP", default_value_t = TcpStack::Own)]
    pub tcp: TcpStack,

    /// Drop what can't be WireGuard before the tunnel's UDP socket, by an eBPF program; needs
    /// CAP_BPF
    #[arg(long, env = "PMZ_GUARD", value_parser = FalseyValueParser::new())]
    pub guard: bool,

    /// The most clients at a time
    #[arg(long, env = "PMZ_MAX_PEERS", default_value_t = 1000)]
    pub max_peers: usize,

    /// Seconds after which a client that is not heard any more is forgotten
    #[arg(long, env = "PMZ_PEER_TIMEOUT", default_value_t = 180)]
    pub peer_timeout: u64,
}

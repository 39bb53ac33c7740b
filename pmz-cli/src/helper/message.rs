//! What the daemon may ask of the helper, and what it gets.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use pmz_net::device::Offloads;
use pmz_net::guard::GuardReport;
use pmz_net::route::{Plan, PlanError, Wishes};
use serde::{Deserialize, Serialize};

use super::capture::{CaptureReply, CaptureRequest};
use super::steering::{SteerReply, SteerRequest};

/// The largest message either way, in bytes of JSON.
pub const MAX_MESSAGE: usize = 64 << 10;

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6, and IPv4 by mapped addresses.
    V6,
}

/// Guards the UDP socket that the helper opened last, from now on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuardRequest {
    /// The agent's number as a peer: this one, and [`super::AHEAD`] behind it, are let through.
    pub peer: u32,
}

/// How far routes into the tunnel may go. The same prefix on another device is never taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Claim {
    /// What nothing else has.
    #[default]
    Free,
    /// Also a part of a wider route; and narrower ones keep a part.
    Overlapping,
    /// As `Overlapping`, and also where packets go elsewhere all the same: there they are diverted.
    Diverted,
    /// Also what is wider than a network can be: the user wants all traffic in the tunnel.
    Everything,
}

/// A request. The helper answers each with one [`Answer`], in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Opens the TUN and brings it up; its descriptor comes with the answer. Once in a helper's life.
    OpenTun {
        /// `pmz` and a number, or `pmz%d` for the first that is free.
        name: String,
        /// In bytes.
        mtu: u16,
        /// The machine's addresses in the tunnel.
        addresses: Vec<IpAddr>,
    },
    /// Replaces the TUN's addresses; its routes stay, with the new source.
    SetAddresses {
        /// As in `OpenTun`.
        addresses: Vec<IpAddr>,
    },
    /// Ends the machine's TCP connections from the TUN's addresses: what was behind them is gone.
    AbortConnections,
    /// Sets the TUN's MTU.
    SetMtu {
        /// In bytes.
        mtu: u16,
    },
    /// Looks at what the machine's routing holds, and says what would be done about wishes. Changes nothing.
    Plan {
        /// What is to be reached.
        wishes: Wishes,
    },
    /// Leads prefixes into the TUN, with the TUN's address of the family as their source. Those that lead
    /// there already stay.
    AddRoutes {
        /// Where to.
        prefixes: Vec<IpNet>,
        /// What may be taken with them.
        #[serde(default)]
        claim: Claim,
    },
    /// Takes prefixes out of the TUN.
    RemoveRoutes {
        /// Which.
        prefixes: Vec<IpNet>,
    },
    /// Has TCP connections that are opened through the TUN use a congestion control, by its routes; `None`: the machine's own.
    /// Connections that are open stay as they are.
    SetRouteCongestion {
        /// `bbr` or `cubic`.
        algorithm: Option<String>,
    },
    /// Binds port 53 of one of the TUN's addresses; a UDP socket and a listening TCP socket come back.
    BindDns {
        /// One of the TUN's addresses.
        address: IpAddr,
    },
    /// A UDP socket on a free port with 8 MiB of buffer each way, whatever `rmem_max` says.
    OpenUdp {
        /// Family of the socket.
        family: Family,
    },
    /// The listening control socket, which only the daemon's user and root can open.
    ControlSocket,
    /// Sets the congestion control of the TCP socket that comes with the request.
    SetCongestion {
        /// `bbr` or `cubic`.
        algorithm: String,
    },
    /// Points /etc/resolv.conf to the TUN's addresses, until the helper ends.
    EditResolvConf {
        /// Some of the TUN's addresses.
        nameservers: Vec<IpAddr>,
        /// Search domains; empty to keep those that are there.
        #[serde(default)]
        search: Vec<String>,
    },
    /// Puts /etc/resolv.conf back.
    RestoreResolvConf,
    /// Has systemd-resolved ask the TUN's addresses for some names, as long as the TUN is there. What it was told
    /// before is over.
    LeadNames {
        /// Some of the TUN's addresses.
        nameservers: Vec<IpAddr>,
        /// Domains whose names are asked there.
        routed: Vec<String>,
        /// Such that are also put behind names as programs ask for them.
        search: Vec<String>,
    },
    /// Has systemd-resolved forget that.
    ForgetNames,
    /// Something for the eBPF programs on the TUN.
    Steer(SteerRequest),
    /// Something for the eBPF programs that catch DNS queries.
    Capture(CaptureRequest),
    /// Something for the guard before the tunnel's UDP socket.
    Guard(GuardRequest),
}

/// What comes back when it worked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "kebab-case")]
pub enum Reply {
    /// Nothing to tell.
    Done,
    /// With one descriptor: the TUN's.
    Tun {
        /// Its name.
        name: String,
        /// Its index.
        index: u32,
        /// What it does in one piece.
        offloads: Offloads,
    },
    /// With two descriptors: UDP, then TCP.
    Dns,
    /// With one descriptor.
    Socket,
    /// What would be done.
    Plan {
        /// What.
        plan: Plan,
    },
    /// What the routes have now.
    RouteCongestion {
        /// `None` where none was asked for, or the kernel does not have it.
        algorithm: Option<String>,
    },
    /// What resolv.conf said before pmz.
    ResolvConf {
        /// Its nameservers, in order.
        nameservers: Vec<SocketAddr>,
        /// Its search domains.
        search: Vec<String>,
    },
    /// From the eBPF programs on the TUN.
    Steer(SteerReply),
    /// From the eBPF programs that catch DNS queries.
    Capture(CaptureReply),
    /// What the guard has counted since the helper began.
    Guard(GuardReport),
}

/// What comes back when it did not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "error", rename_all = "kebab-case")]
pub enum Refusal {
    /// A request that no daemon of this version makes.
    #[error("the helper does not do that: {message}")]
    Invalid {
        /// What is wrong with it.
        message: String,
    },
    /// The machine has no TUN driver.
    #[error("/dev/net/tun is missing")]
    NoTun,
    /// The helper lacks a right.
    #[error("no permission to {what}")]
    Permission {
        /// What it tried.
        what: String,
    },
    /// Prefixes that can't be led into the tunnel as it is wished.
    #[error("{why}")]
    Unroutable {
        /// Why.
        why: PlanError,
    },
    /// The eBPF programs can't be loaded, attached or fed.
    #[error("{why}")]
    NoEbpf {
        /// In words for people.
        why: String,
    },
    /// systemd-resolved is not in charge of names here, or does not take them.
    #[error("{why}")]
    NoResolved {
        /// In words for people.
        why: String,
    },
    /// Another pmz runs on this machine.
    #[error("another pmz is running on this machine (it holds {path})")]
    Running {
        /// What it holds.
        path: String,
    },
    /// The kernel or a file said no.
    #[error("{message}")]
    Failed {
        /// What failed, on what, and why.
        message: String,
    },
}

impl From<PlanError> for Refusal {
    fn from(why: PlanError) -> Self {
        Self::Unroutable { why }
    }
}

/// Answer to a request.
pub type Answer = Result<Reply, Refusal>;

#[cfg(test)]
mod tests {
    use ipnet::IpNet;
    use pmz_net::route::{Clash, Fate, Kind, MAX_ROUTES, Obstacle, Wanted};

    use super::*;

    fn most() -> Vec<Wanted> {
        let net = "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff/128";
        let wanted = Wanted {
            net: net.parse().unwrap(),
            kind: Kind::Services,
        };
        vec![wanted; MAX_ROUTES]
    }

    #[test]
    fn the_largest_wishes_and_plans_fit_into_a_message() {
        let wishes = Wishes {
            wanted: most(),
            ..Wishes::default()
        };
        let clash = |net: IpNet| Clash {
            net,
            with: net,
            obstacle: Obstacle::Rule {
                preference: u32::MAX,
                table: Some(u32::MAX),
                fate: Fate::Devices(vec!["d".repeat(15); 4]),
            },
            only: Some("w".repeat(200)),
        };
        let clashes: Vec<Clash> = most().iter().map(|wanted| clash(wanted.net)).collect();
        let plan = Plan {
            remapped: most(),
            clashes: clashes.clone().into(),
            ..Plan::default()
        };
        let why = PlanError::NoPool {
            clashes: clashes.clone().into(),
            because: clashes.into(),
        };
        for bytes in [
            serde_json::to_vec(&Request::Plan { wishes }).unwrap(),
            serde_json::to_vec(&Answer::Ok(Reply::Plan { plan })).unwrap(),
            serde_json::to_vec(&Answer::Err(why.into())).unwrap(),
        ] {
            assert!(bytes.len() < MAX_MESSAGE, "{}", bytes.len());
        }
    }
}

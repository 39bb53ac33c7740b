//! What is to lead into the tunnel.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// What a prefix is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// ClusterIPs.
    Services,
    /// Pods' own addresses.
    Pods,
    /// What the user has added. No name leads there, so that virtual addresses would help nobody.
    Included,
}

/// A prefix that is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Wanted {
    /// Which.
    pub net: IpNet,
    /// What for.
    pub kind: Kind,
}

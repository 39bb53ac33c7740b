//! The cluster as this machine sees it: kubeconfig, API server, the agent's pod, port-forwards into it.

mod agent;
mod client;
mod config;
mod error;
mod forward;
mod map;
mod review;

pub use agent::AgentPod;
pub(crate) use agent::may_become_ready;
pub(crate) use agent::state as pod_state;
pub use client::{Cluster, SocketTuner};
pub use config::{Loaded, Target};
pub use error::{Action, ClusterError};
pub use forward::{PortForward, PortStream};

/// Finds the agent's pods.
pub const AGENT_SELECTOR: &str = "app.kubernetes.io/name=pmz-agent";
/// The agent's control port, on its pod's loopback.
pub const CONTROL_PORT: u16 = 7600;
/// The agent's namespace, where none is named.
pub const DEFAULT_NAMESPACE: &str = "pmz";

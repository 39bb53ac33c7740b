//! The daemon: runs as the user, holds the session, answers commands.

mod attachment;
mod board;
mod choices;
mod congestion;
mod connect_error;
mod connect_failure;
mod connector;
mod control;
mod dial;
mod diverting;
mod domains;
mod guarding;
pub mod launch;
mod log;
pub(crate) mod lookup;
mod names;
mod options;
mod outside;
pub mod process;
mod progress;
mod proof;
mod report;
mod run;
mod running;
mod status;
mod steering;
mod traffic;
mod wants;

pub use board::{Board, Phase, Step, View, Watch};
pub use choices::{CarrierChoice, EbpfChoice, OverlapChoice, SteerChoice};
pub use connect_error::ConnectError;
pub use connector::ClusterConnector;
pub use control::{Ask, ControlClient, Tell};
pub use dial::{ClusterDial, HelperTuner};
pub use domains::{AddDomain, DomainTold, Domains, RemoveDomain};
pub(crate) use log::filter as log_filter;
pub use names::{DnsChoice, SearchWish};
pub use options::{RunAs, UpOptions};
pub use run::{ConnectContext, Connector, Session, run};
pub use status::{
    AgentStatus, CarrierKind, CarrierStatus, DnsStatus, Fault, GuardStatus, State, Status,
    SteeringStatus, Traffic,
};
pub use traffic::{Rate, TrafficEntry, TrafficReport, TrafficSource};

//! What queries are led to.

use std::net::IpAddr;

use ipnet::IpNet;
use pmz_net::dns::{DnsHandle, SharedDomains};

use crate::daemon::connect_error::ConnectError;
use crate::helper::{HelperClient, HelperError, Refusal};

/// Which names are led to the server.
#[derive(Default)]
pub(super) struct Led {
    /// The cluster's.
    pub(super) domain: String,
    /// Whose reverse names are its own.
    pub(super) reverse: Vec<IpNet>,
    /// What is put behind names as programs ask for them.
    pub(super) search: Vec<String>,
    /// What the user has added.
    pub(super) domains: SharedDomains,
}

/// What queries are led to.
pub(super) struct Server<'a> {
    pub(super) helper: &'a HelperClient,
    pub(super) handle: &'a DnsHandle,
    /// Its address in the tunnel; the port is 53.
    pub(super) address: IpAddr,
    pub(super) led: &'a Led,
}

/// Why a way is not taken.
#[derive(Debug)]
pub(super) enum NoWay {
    /// This machine does not have it, for this reason.
    Impossible(String),
    /// Something is wrong that no other way mends.
    Broken(ConnectError),
}

impl From<HelperError> for NoWay {
    fn from(error: HelperError) -> Self {
        match error {
            HelperError::Refused(Refusal::NoEbpf { why } | Refusal::NoResolved { why }) => {
                Self::Impossible(why)
            }
            error => Self::Broken(error.into()),
        }
    }
}

//! The ways on which queries of this machine's programs reach the name server.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use pmz_net::dns::{DnsHandle, SharedDomains};

use super::caught::Catching;
use super::choice::DnsChoice;
use super::linked::Linked;
use crate::daemon::options::EbpfChoice;
use crate::daemon::run::ConnectError;
use crate::failure::{ExitCode, Failure, capital};
use crate::helper::{HelperClient, HelperError, Refusal, machine_nameservers};

const DNS_PORT: u16 = 53;

/// A way that there is, at least on some machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mechanism {
    Resolved,
    Ebpf,
    ResolvConf,
    Nothing,
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

/// What queries are led to.
pub(super) struct Server<'a> {
    pub(super) helper: &'a HelperClient,
    pub(super) handle: &'a DnsHandle,
    /// Its address in the tunnel; the port is 53.
    pub(super) address: IpAddr,
    /// The cluster's.
    pub(super) domain: &'a str,
    /// Whose reverse names are its own.
    pub(super) reverse: &'a [IpNet],
    /// What the user has added.
    pub(super) domains: &'a SharedDomains,
}

/// A way that is taken. The helper undoes it when it ends.
pub(super) enum Way {
    Linked(Linked),
    Caught(Catching),
    ResolvConf,
    Nothing,
}

/// A way that is taken, and why none of those before it in [`candidates`] is.
pub(super) struct Taken {
    pub(super) way: Way,
    pub(super) missing: Option<String>,
}

impl Taken {
    /// Leads queries to a server on the best way that the user's choice leaves.
    pub(super) async fn take(
        choice: DnsChoice,
        ebpf: EbpfChoice,
        server: &Server<'_>,
    ) -> Result<Self, ConnectError> {
        let mut reasons: Vec<String> = Vec::new();
        for mechanism in candidates(choice) {
            match mechanism.take(ebpf, server).await {
                Ok(way) => {
                    let missing = (!reasons.is_empty()).then(|| reasons.join("; "));
                    return Ok(Self { way, missing });
                }
                Err(NoWay::Impossible(why)) => {
                    tracing::info!(?mechanism, why, "queries can't be led on this way");
                    // Most machines don't have it, and lack nothing.
                    if choice == DnsChoice::Auto && *mechanism == Mechanism::Resolved {
                        continue;
                    }
                    reasons.push(format!("{}: {why}", mechanism.name()));
                }
                Err(NoWay::Broken(error)) => return Err(error),
            }
        }
        Err(Failure::new(
            ExitCode::General,
            capital(&format!(
                "DNS queries can't be led to pmz as you want it: {}",
                reasons.join("; ")
            )),
            "`pmz up --dns auto` takes the best way that this machine has",
        )
        .into())
    }
}

/// Best first.
fn candidates(choice: DnsChoice) -> &'static [Mechanism] {
    match choice {
        DnsChoice::Auto => &[Mechanism::Resolved, Mechanism::Ebpf, Mechanism::ResolvConf],
        DnsChoice::Resolved => &[Mechanism::Resolved],
        DnsChoice::Ebpf => &[Mechanism::Ebpf],
        DnsChoice::Resolvconf => &[Mechanism::ResolvConf],
        DnsChoice::Off => &[Mechanism::Nothing],
    }
}

impl Mechanism {
    fn name(self) -> &'static str {
        match self {
            Self::Resolved => "systemd-resolved",
            Self::Ebpf => "eBPF",
            Self::ResolvConf => "resolv.conf",
            Self::Nothing => "off",
        }
    }

    async fn take(self, ebpf: EbpfChoice, server: &Server<'_>) -> Result<Way, NoWay> {
        match self {
            Self::Resolved => {
                let linked = Linked::begin(server).await?;
                Ok(Way::Linked(linked))
            }
            Self::Ebpf if ebpf == EbpfChoice::Off => {
                Err(NoWay::Impossible("turned off by --ebpf off".to_owned()))
            }
            Self::Ebpf => {
                let catching = Catching::begin(server).await?;
                server.handle.set_upstream(upstream(machine_nameservers()));
                Ok(Way::Caught(catching))
            }
            Self::ResolvConf => {
                edit_resolv_conf(server).await?;
                Ok(Way::ResolvConf)
            }
            Self::Nothing => {
                server.handle.set_upstream(upstream(machine_nameservers()));
                Ok(Way::Nothing)
            }
        }
    }
}

impl Way {
    /// For `status`.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Linked(_) => "systemd-resolved",
            Self::Caught(_) => "ebpf",
            Self::ResolvConf => "resolv.conf",
            Self::Nothing => "off",
        }
    }

    /// Whether queries are left to themselves.
    pub(super) fn is_nothing(&self) -> bool {
        matches!(self, Self::Nothing)
    }

    /// The server that queries were led to is about to be replaced by one at another address.
    pub(super) async fn part(&self, helper: &HelperClient) -> Result<(), HelperError> {
        match self {
            Self::ResolvConf => helper.restore_resolv_conf().await,
            Self::Linked(_) => helper.forget_names().await,
            Self::Caught(_) | Self::Nothing => Ok(()),
        }
    }

    /// The server is the same, and has other names.
    pub(super) async fn follow(&mut self, server: &Server<'_>) -> Result<(), ConnectError> {
        if let Self::Linked(linked) = self {
            *linked = Linked::begin(server).await?;
        }
        Ok(())
    }

    /// Leads queries to another server.
    pub(super) async fn turn(&mut self, server: &Server<'_>) -> Result<(), ConnectError> {
        match self {
            Self::Caught(catching) => {
                catching.serve(server)?;
                server.handle.set_upstream(upstream(machine_nameservers()));
            }
            Self::Linked(linked) => *linked = Linked::begin(server).await?,
            Self::ResolvConf => edit_resolv_conf(server).await?,
            Self::Nothing => server.handle.set_upstream(upstream(machine_nameservers())),
        }
        Ok(())
    }
}

/// What is put behind names as programs ask for them.
pub(super) fn search(domain: &str) -> [String; 2] {
    [format!("svc.{domain}"), "svc".to_owned()]
}

async fn edit_resolv_conf(server: &Server<'_>) -> Result<(), HelperError> {
    let search = search(server.domain);
    let helper = server.helper;
    let previous = helper.edit_resolv_conf(&[server.address], &search).await?;
    server.handle.set_upstream(upstream(previous.nameservers));
    Ok(())
}

pub(super) fn upstream(nameservers: Vec<IpAddr>) -> Vec<SocketAddr> {
    let at = |ip| SocketAddr::new(ip, DNS_PORT);
    nameservers.into_iter().map(at).collect()
}

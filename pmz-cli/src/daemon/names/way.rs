//! The ways on which queries of this machine's programs reach the name server, and the choice among them.

use super::caught::Catching;
use super::choice::DnsChoice;
use super::linked::Linked;
use super::server::{NoWay, Server};
use crate::daemon::choices::EbpfChoice;
use crate::daemon::connect_error::ConnectError;
use crate::domains::KubeName;
use crate::failure::{ExitCode, Failure};
use crate::helper::{HelperClient, HelperError, machine_nameservers};

/// A way that there is, at least on some machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mechanism {
    Resolved,
    Ebpf,
    ResolvConf,
    Nothing,
}

/// A way that is taken. The helper undoes it when it ends.
pub(super) enum Way {
    Linked(Linked),
    Caught(Catching),
    ResolvConf,
    Nothing,
}

/// The ways that the user's choice leaves, best first, and why none of those before is taken.
pub(super) struct Ways {
    choice: DnsChoice,
    ebpf: EbpfChoice,
    left: std::slice::Iter<'static, Mechanism>,
    reasons: Vec<String>,
    /// Whether one was taken, and did not do.
    rejected: bool,
}

impl Ways {
    pub(super) fn new(choice: DnsChoice, ebpf: EbpfChoice) -> Self {
        Self {
            choice,
            ebpf,
            left: candidates(choice).iter(),
            reasons: Vec::new(),
            rejected: false,
        }
    }

    /// Leads queries to a server on the best way that is left.
    pub(super) async fn take(&mut self, server: &Server<'_>) -> Result<Way, ConnectError> {
        for mechanism in self.left.by_ref() {
            match mechanism.take(self.ebpf, server).await {
                Ok(way) => return Ok(way),
                Err(NoWay::Impossible(why)) => {
                    tracing::info!(?mechanism, why, "queries can't be led on this way");
                    // Most machines don't have it, and lack nothing.
                    if self.choice != DnsChoice::Auto || *mechanism != Mechanism::Resolved {
                        self.reasons.push(format!("{}: {why}", mechanism.name()));
                    }
                }
                Err(NoWay::Broken(error)) => return Err(error),
            }
        }
        Err(self.failure().into())
    }

    /// Undoes a way that was taken: names don't come out on it as they should.
    pub(super) async fn reject(
        &mut self,
        way: Way,
        helper: &HelperClient,
        why: &str,
    ) -> Result<(), HelperError> {
        let mechanism = way.mechanism();
        tracing::warn!(?mechanism, why, "this way of queries is left again");
        self.reasons.push(format!("{}: {why}", mechanism.name()));
        self.rejected = true;
        way.undo(helper).await
    }

    /// Why there is no better way than the one that was taken last.
    pub(super) fn missing(&self) -> Option<String> {
        (!self.reasons.is_empty()).then(|| self.reasons.join("; "))
    }

    fn failure(&self) -> Failure {
        let reasons = self.reasons.join("; ");
        let cause = match self.choice {
            DnsChoice::Auto => format!("DNS queries can't be led to pmz: {reasons}"),
            DnsChoice::Resolved | DnsChoice::Ebpf | DnsChoice::Resolvconf | DnsChoice::Off => {
                format!("DNS queries can't be led to pmz as you want it: {reasons}")
            }
        };
        let next = match (self.choice, self.rejected) {
            (DnsChoice::Auto | DnsChoice::Off, _) => {
                "Nothing has changed. Check /etc/nsswitch.conf and /etc/resolv.conf, then run `pmz up` again; \
                 `pmz up --dns off` connects without names"
            }
            (_, true) => {
                "Nothing has changed. Check /etc/nsswitch.conf and /etc/resolv.conf, or let `pmz up --dns auto` find \
                 another way"
            }
            (_, false) => "`pmz up --dns auto` takes the best way that this machine has",
        };
        Failure::new(ExitCode::General, cause, next)
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
                server.handle.set_upstream(machine_nameservers());
                Ok(Way::Caught(catching))
            }
            Self::ResolvConf => {
                edit_resolv_conf(server).await?;
                Ok(Way::ResolvConf)
            }
            Self::Nothing => {
                server.handle.set_upstream(machine_nameservers());
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

    fn mechanism(&self) -> Mechanism {
        match self {
            Self::Linked(_) => Mechanism::Resolved,
            Self::Caught(_) => Mechanism::Ebpf,
            Self::ResolvConf => Mechanism::ResolvConf,
            Self::Nothing => Mechanism::Nothing,
        }
    }

    /// Queries go where they went before.
    async fn undo(self, helper: &HelperClient) -> Result<(), HelperError> {
        match self {
            Self::Linked(linked) => {
                // What follows changes must not come after.
                drop(linked);
                helper.forget_names().await
            }
            Self::Caught(_) => helper.release_queries().await,
            Self::ResolvConf => helper.restore_resolv_conf().await,
            Self::Nothing => Ok(()),
        }
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
                server.handle.set_upstream(machine_nameservers());
            }
            Self::Linked(linked) => *linked = Linked::begin(server).await?,
            Self::ResolvConf => edit_resolv_conf(server).await?,
            Self::Nothing => server.handle.set_upstream(machine_nameservers()),
        }
        Ok(())
    }
}

/// What is put behind names as programs ask for them: `name` is found in these namespaces, `name.namespace` in all.
pub(super) fn search(domain: &str, namespaces: &[KubeName]) -> Vec<String> {
    let bare = namespaces
        .iter()
        .map(|namespace| format!("{namespace}.svc.{domain}"));
    bare.chain([format!("svc.{domain}"), "svc".to_owned()])
        .collect()
}

async fn edit_resolv_conf(server: &Server<'_>) -> Result<(), HelperError> {
    let (helper, own) = (server.helper, [server.address]);
    let previous = helper.edit_resolv_conf(&own, &server.led.search).await?;
    server.handle.set_upstream(previous.nameservers);
    Ok(())
}

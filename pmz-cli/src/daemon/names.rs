//! Names of the cluster on this machine: the server on the tunnel's address, and the way queries reach it.

mod caught;
mod choice;
mod linked;
mod way;

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use pmz_net::catalog::SharedMirror;
use pmz_net::dns::{DnsConfig, DnsHandle, DnsServer, SharedDomains, Translate, Zone};
use pmz_net::session::Welcome;

use super::lookup;
use super::run::ConnectError;
use super::status::DnsStatus;
use super::wants::Wants;
use crate::failure::{ExitCode, Failure};
use crate::helper::HelperClient;
use way::{Server, Taken};

pub use choice::DnsChoice;

/// The name server, while there is one.
#[derive(Default)]
pub(super) struct Names {
    server: Option<(IpAddr, DnsHandle)>,
    /// How queries reach it.
    taken: Option<Taken>,
    domain: String,
    /// The domains that the user added.
    pub(super) domains: SharedDomains,
}

impl Names {
    /// For `status`.
    pub(super) fn shown(&self) -> Option<DnsStatus> {
        let ((server, _), taken) = (self.server.as_ref()?, self.taken.as_ref()?);
        Some(DnsStatus {
            how: taken.way.name().to_owned(),
            missing: taken.missing.clone(),
            server: *server,
            domain: self.domain.clone(),
        })
    }

    /// The addresses of one of the cluster's names, as this machine's programs find them; where nothing leads them here,
    /// as our server has them.
    pub(super) async fn look_up(&self, name: &str) -> Result<Vec<IpAddr>, String> {
        match (&self.server, &self.taken) {
            (Some((_, server)), Some(taken)) if taken.way.is_nothing() => {
                Ok(server.addresses(name).await)
            }
            _ => lookup::look_up(name).await,
        }
    }

    /// Serves the names of the cluster that said `welcome`, on the first tunnel address, and leads queries there as
    /// the user wants it.
    pub(super) async fn serve(
        &mut self,
        helper: &HelperClient,
        mirror: &SharedMirror,
        wants: &Wants,
        welcome: &Welcome,
        reverse: Vec<IpNet>,
        translate: Option<Arc<dyn Translate>>,
    ) -> Result<(), ConnectError> {
        let domain = welcome.cluster_domain.clone();
        let zone = Zone::new(&domain).map_err(|error| {
            Failure::new(
                ExitCode::General,
                error.to_string(),
                "Give the agent its PMZ_CLUSTER_DOMAIN",
            )
        })?;
        let Some(address) = welcome.addresses.first().copied() else {
            return Err(Failure::new(
                ExitCode::NoAgent,
                "The agent gave this machine no address",
                "Run `pmz up` again",
            )
            .into());
        };
        let mut zone = zone
            .with_reverse(reverse.clone())
            .with_domains(self.domains.clone())
            .with_server_addresses(welcome.addresses.clone());
        if let Some(translate) = translate {
            zone = zone.with_translate(translate);
        }
        self.domain = domain;
        if let Some((served, handle)) = &self.server
            && *served == address
            && handle.is_running()
        {
            handle.set_zone(zone);
            let server = Server {
                helper,
                handle,
                address,
                domain: &self.domain,
                reverse: &reverse,
                domains: &self.domains,
            };
            if let Some(taken) = &mut self.taken {
                taken.way.follow(&server).await?;
            }
            return Ok(());
        }
        if let Some((_, old)) = self.server.take() {
            old.stop().await;
            if let Some(taken) = &self.taken {
                taken.way.part(helper).await?;
            }
        }
        let (udp, tcp) = helper.bind_dns(address).await?;
        let config = DnsConfig {
            zone,
            // Known once queries are led here.
            upstream: Vec::new(),
            clients: Vec::new(),
        };
        let handle =
            DnsServer::start(vec![udp], vec![tcp], mirror.clone(), config).map_err(|error| {
                Failure::new(
                    ExitCode::General,
                    format!("The name server could not be started: {error}"),
                    "Run `pmz up` again",
                )
            })?;
        let server = Server {
            helper,
            handle: &handle,
            address,
            domain: &self.domain,
            reverse: &reverse,
            domains: &self.domains,
        };
        match &mut self.taken {
            Some(taken) => taken.way.turn(&server).await?,
            None => self.taken = Some(Taken::take(wants.dns, wants.ebpf, &server).await?),
        }
        self.server = Some((address, handle));
        Ok(())
    }
}

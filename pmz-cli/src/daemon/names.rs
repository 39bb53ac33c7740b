//! Names of the cluster on this machine: the server on the tunnel's address, and the way queries reach it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;
use pmz_net::catalog::SharedMirror;
use pmz_net::dns::{DnsConfig, DnsHandle, DnsServer, SharedDomains, Translate, Zone};
use pmz_net::session::Welcome;

use super::run::ConnectError;
use crate::failure::{ExitCode, Failure};
use crate::helper::{HelperClient, PreviousResolver};

const DNS_PORT: u16 = 53;

/// The name server, while there is one.
#[derive(Default)]
pub(super) struct Names {
    server: Option<(IpAddr, DnsHandle)>,
    /// What the machine asked before.
    previous: Option<PreviousResolver>,
    pub(super) domain: String,
    /// The domains that the user added.
    pub(super) domains: SharedDomains,
}

impl Names {
    /// Where names are answered.
    pub(super) fn address(&self) -> Option<IpAddr> {
        self.server.as_ref().map(|(address, _)| *address)
    }

    /// Serves the names of the cluster that said `welcome`, on the first tunnel address.
    pub(super) async fn serve(
        &mut self,
        helper: &HelperClient,
        mirror: &SharedMirror,
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
            .with_reverse(reverse)
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
            return Ok(());
        }
        if let Some((_, old)) = self.server.take() {
            old.stop().await;
            helper.restore_resolv_conf().await?;
        }
        let (udp, tcp) = helper.bind_dns(address).await?;
        let search = vec![format!("svc.{}", self.domain), "svc".to_owned()];
        let previous = helper.edit_resolv_conf(&[address], &search).await?;
        let upstream = previous
            .nameservers
            .iter()
            .map(|ip| SocketAddr::new(*ip, DNS_PORT))
            .collect();
        self.previous = Some(previous);
        let config = DnsConfig {
            zone,
            upstream,
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
        self.server = Some((address, handle));
        Ok(())
    }
}

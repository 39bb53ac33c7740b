//! Names of the cluster on this machine: the server on the tunnel's address, and the way queries reach it.

mod caught;
mod choice;
mod linked;
mod search;
mod server;
mod way;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use pmz_net::catalog::SharedMirror;
use pmz_net::dns::{Clients, DnsConfig, DnsHandle, DnsServer, SharedDomains, Translate, Zone};
use pmz_net::session::Welcome;

use super::choices::EbpfChoice;
use super::connect_error::ConnectError;
use super::lookup::{self, NoAddress};
use super::status::DnsStatus;
use crate::domains::KubeName;
use crate::failure::{ExitCode, Failure};
use crate::helper::HelperClient;
use server::{Led, Server};
use way::{Way, Ways};

pub use choice::DnsChoice;
pub use search::SearchWish;

/// What the user wants of names.
#[derive(Clone, Debug, Default)]
pub(super) struct NameWants {
    /// How queries reach us.
    pub(super) dns: DnsChoice,
    /// Whether programs may catch them.
    pub(super) ebpf: EbpfChoice,
    /// Namespaces whose services are found by their bare names.
    pub(super) search: Vec<KubeName>,
}

/// The name server, while there is one.
#[derive(Default)]
pub(super) struct Names {
    server: Option<(IpAddr, DnsHandle)>,
    /// How queries reach it.
    way: Option<Way>,
    /// How else they could.
    ways: Option<Ways>,
    led: Led,
    /// Namespaces whose services are found by their bare names.
    bare: Vec<String>,
}

impl Names {
    /// Serves these domains of the user's from the next [`Names::serve`] on.
    pub(super) fn set_domains(&mut self, domains: SharedDomains) {
        self.led.domains = domains;
    }

    /// For `status`.
    pub(super) fn shown(&self) -> Option<DnsStatus> {
        let ((server, _), way) = (self.server.as_ref()?, self.way.as_ref()?);
        Some(DnsStatus {
            how: way.name().to_owned(),
            missing: self.ways.as_ref().and_then(Ways::missing),
            server: *server,
            domain: self.led.domain.clone(),
            search: self.bare.clone(),
        })
    }

    /// The addresses of one of the cluster's names, as this machine's programs find them; where nothing leads them here,
    /// as our server has them.
    pub(super) async fn look_up(
        &self,
        name: &str,
        within: Duration,
    ) -> Result<Vec<IpAddr>, NoAddress> {
        match (&self.server, &self.way) {
            (Some((_, server)), Some(Way::Nothing)) => Ok(server.addresses(name).await),
            _ => lookup::look_up(name, within).await,
        }
    }

    /// Leads queries to the server on another way: on the present one names don't come out as they should.
    ///
    /// # Errors
    /// Where there is no other way. Queries go where they went before `pmz up` then.
    pub(super) async fn take_another_way(
        &mut self,
        helper: &HelperClient,
        why: &str,
    ) -> Result<(), ConnectError> {
        let (Some((address, handle)), Some(ways)) = (&self.server, &mut self.ways) else {
            return Ok(());
        };
        if let Some(way) = self.way.take() {
            ways.reject(way, helper, why).await?;
        }
        let server = Server {
            helper,
            handle,
            address: *address,
            led: &self.led,
        };
        self.way = Some(ways.take(&server).await?);
        Ok(())
    }

    /// Serves the names of the cluster that said `welcome`, on the first tunnel address, and leads queries there as
    /// the user wants it.
    pub(super) async fn serve(
        &mut self,
        helper: &HelperClient,
        mirror: &SharedMirror,
        wants: &NameWants,
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
        self.bare = wants.search.iter().map(ToString::to_string).collect();
        let mut zone = zone
            .with_reverse(reverse.clone())
            .with_search(self.bare.clone())
            .with_domains(self.led.domains.clone())
            .with_server_addresses(welcome.addresses.clone());
        if let Some(translate) = translate {
            zone = zone.with_translate(translate);
        }
        self.led.search = way::search(&domain, &wants.search);
        self.led.domain = domain;
        self.led.reverse = reverse;
        if let Some((served, handle)) = &self.server
            && *served == address
            && handle.is_running()
        {
            handle.set_zone(zone);
            let server = Server {
                helper,
                handle,
                address,
                led: &self.led,
            };
            if let Some(way) = &mut self.way {
                way.follow(&server).await?;
            }
            return Ok(());
        }
        if let Some((_, old)) = self.server.take() {
            old.stop().await;
            if let Some(way) = &self.way {
                way.part(helper).await?;
            }
        }
        let (udp, tcp) = helper.bind_dns(address).await?;
        let config = DnsConfig {
            zone,
            // Known once queries are led here.
            upstream: Vec::new(),
            clients: Clients::Machine,
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
            led: &self.led,
        };
        match &mut self.way {
            Some(way) => way.turn(&server).await?,
            None => {
                let ways = Ways::new(wants.dns, wants.ebpf);
                self.way = Some(self.ways.insert(ways).take(&server).await?);
            }
        }
        self.server = Some((address, handle));
        Ok(())
    }
}

//! What the watches tell, brought together: the catalog, the agent's own Service, the networks seen.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::watcher::Event;
use pmz_net::catalog::builder::{Builder, ServiceInput, SliceInput, SliceKey};
use pmz_net::catalog::{ServiceKey, ServiceKind};
use pmz_net::session::{Found, Network, Networks};

use super::candidates::candidates;
use super::listing::Listing;
use super::prefixes::{Growth, Guess};
use super::{Survey, WatchConfig, convert};

/// Pod networks that clients are told at most; above, their guessed surroundings.
const MAX_NODE_PREFIXES: usize = 64;

/// One event of one of the watches.
#[derive(Debug)]
pub(super) enum Change {
    Service(Box<Event<Service>>),
    Slice(Box<Event<EndpointSlice>>),
}

/// What lies between the watches and everything that is derived from them. No I/O.
#[derive(Debug)]
pub(super) struct Intake {
    config: WatchConfig,
    services: Listing<ServiceKey>,
    slices: Listing<SliceKey>,
    own: Option<Service>,
    service_guess: Guess,
    pod_guess: Guess,
    /// What the API says of the networks.
    survey: Survey,
    /// An address was seen that is in no network of the survey.
    strangers: bool,
}

impl Intake {
    pub(super) fn new(config: WatchConfig) -> Self {
        let mut pod_guess = Guess::new(Growth::PODS, &config.host_addresses);
        for &address in &config.pod_addresses {
            pod_guess.inside(address);
        }
        Self {
            services: Listing::default(),
            slices: Listing::default(),
            own: None,
            service_guess: Guess::new(Growth::SERVICES, &config.host_addresses),
            pod_guess,
            survey: Survey::default(),
            strangers: false,
            config,
        }
    }

    /// Takes one event.
    pub(super) fn apply(&mut self, change: Change, builder: &mut Builder) {
        match change {
            Change::Service(event) => self.apply_service(*event, builder),
            Change::Slice(event) => self.apply_slice(*event, builder),
        }
    }

    /// Whether both watches have told all there was at least once.
    pub(super) fn is_complete(&self) -> bool {
        self.services.complete && self.slices.complete
    }

    /// Where clients may try the tunnel's UDP port.
    pub(super) fn candidates(&self) -> Vec<SocketAddr> {
        let nodes = self.survey.nodes.as_ref();
        let nodes = nodes.map_or(&[][..], |nodes| &nodes.addresses);
        candidates(self.own.as_ref(), &self.config, nodes)
    }

    /// The API was asked for the networks.
    pub(super) fn set_survey(&mut self, survey: Survey) {
        for &address in survey.nodes.iter().flat_map(|nodes| &nodes.addresses) {
            self.service_guess.outside(address);
        }
        self.survey = survey;
        self.strangers = false;
    }

    /// Whether an address was seen, since the last survey, that is in no network of it.
    pub(super) fn has_strangers(&self) -> bool {
        self.strangers
    }

    /// The cluster's networks: as configured, else as the API says, else as guessed.
    pub(super) fn networks(&self) -> Networks {
        let configured = |prefixes: &Vec<IpNet>| {
            (!prefixes.is_empty()).then(|| Network {
                prefixes: prefixes.clone(),
                found: Found::Configured,
            })
        };
        let services = configured(&self.config.service_prefixes)
            .or_else(|| self.survey.services.clone())
            .unwrap_or_else(|| seen(&self.service_guess));
        let pods = configured(&self.config.pod_prefixes)
            .or_else(|| self.nodes_network())
            .unwrap_or_else(|| seen(&self.pod_guess));
        Networks { services, pods }
    }

    /// The nodes' pod networks; and where a network plug-in gives pods other addresses, what was seen of
    /// those.
    fn nodes_network(&self) -> Option<Network> {
        let nodes = self.survey.nodes.as_ref()?;
        // So many routes are no help to anybody; and a cluster without any has its pods elsewhere.
        if nodes.pod_cidrs.is_empty() || nodes.pod_cidrs.len() > MAX_NODE_PREFIXES {
            return None;
        }
        let apart = |guess: &&IpNet| {
            let mut nodes = nodes.pod_cidrs.iter();
            !nodes.any(|net| net.contains(*guess) || guess.contains(net))
        };
        let mut prefixes = nodes.pod_cidrs.clone();
        prefixes.extend(self.pod_guess.prefixes().iter().filter(apart));
        prefixes.sort();
        Some(Network {
            prefixes,
            found: Found::Nodes,
        })
    }

    fn apply_service(&mut self, event: Event<Service>, builder: &mut Builder) {
        match event {
            Event::Init => self.services.begin(),
            Event::InitDone => {
                let Some(seen) = self.services.finish() else {
                    return;
                };
                builder.retain_services(&seen);
                if !seen.iter().any(|key| self.is_own(key)) {
                    self.own = None;
                }
            }
            Event::InitApply(service) | Event::Apply(service) => {
                let Some(key) = convert::service_key(&service.metadata) else {
                    return;
                };
                self.services.saw(&key);
                match convert::service(&service) {
                    Some(input) => {
                        self.look_at_service(&input);
                        builder.upsert_service(input);
                    }
                    None => builder.delete_service(&key),
                }
                if self.is_own(&key) {
                    self.own = Some(service);
                }
            }
            Event::Delete(service) => {
                let Some(key) = convert::service_key(&service.metadata) else {
                    return;
                };
                builder.delete_service(&key);
                if self.is_own(&key) {
                    self.own = None;
                }
            }
        }
    }

    fn apply_slice(&mut self, event: Event<EndpointSlice>, builder: &mut Builder) {
        match event {
            Event::Init => self.slices.begin(),
            Event::InitDone => {
                if let Some(seen) = self.slices.finish() {
                    builder.retain_slices(&seen);
                }
            }
            Event::InitApply(slice) | Event::Apply(slice) => {
                let Some(key) = convert::slice_key(&slice.metadata) else {
                    return;
                };
                self.slices.saw(&key);
                match convert::slice(&slice) {
                    Some(input) => {
                        self.look_at_slice(&input);
                        builder.upsert_slice(input);
                    }
                    None => builder.delete_slice(&key),
                }
            }
            Event::Delete(slice) => {
                if let Some(key) = convert::slice_key(&slice.metadata) {
                    builder.delete_slice(&key);
                }
            }
        }
    }

    fn look_at_service(&mut self, service: &ServiceInput) {
        if let ServiceKind::ClusterIp { addresses } = &service.kind {
            for &address in addresses {
                self.service_guess.inside(address);
                let services = self.survey.services.as_ref();
                self.strangers |= services.is_some_and(|n| is_stranger(&n.prefixes, address));
            }
        }
    }

    /// Only pods' addresses count: what else stands behind services may be anywhere. The API servers'
    /// own addresses are those of nodes.
    fn look_at_slice(&mut self, slice: &SliceInput) {
        let api_servers = slice.key.namespace == "default" && slice.service == "kubernetes";
        for (address, is_pod) in convert::slice_addresses(slice) {
            if api_servers {
                self.pod_guess.outside(address);
                self.service_guess.outside(address);
            } else if is_pod {
                self.pod_guess.inside(address);
                let nodes = self.survey.nodes.as_ref();
                self.strangers |= nodes.is_some_and(|n| is_stranger(&n.pod_cidrs, address));
            }
        }
    }

    fn is_own(&self, key: &ServiceKey) -> bool {
        key.namespace == self.config.namespace && key.name == self.config.service
    }
}

fn is_stranger(prefixes: &[IpNet], address: IpAddr) -> bool {
    !prefixes.is_empty() && !prefixes.iter().any(|net| net.contains(&address))
}

fn seen(guess: &Guess) -> Network {
    Network {
        prefixes: guess.prefixes().to_vec(),
        found: Found::Seen,
    }
}

#[cfg(test)]
mod tests;

//! Keeps the node's service table as the model says.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use tokio::task::JoinHandle;

use super::model::{Model, Protocol, ServiceSpec, SharedModel};
use super::nft::{ServiceRule, ServiceTable, Transport};

/// Whoever holds it has the table kept up to date.
#[derive(Debug)]
pub(super) struct ServiceProxy {
    task: JoinHandle<()>,
}

impl Drop for ServiceProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Applies the model as it is, and from then on each change of it.
pub(super) fn start(mut table: ServiceTable, model: &SharedModel) -> Result<ServiceProxy> {
    let mut changes = model.subscribe();
    let mut applied = rules(&changes.borrow_and_update());
    table
        .apply(&applied)
        .context("writing the services' rules")?;
    let task = tokio::spawn(async move {
        while changes.changed().await.is_ok() {
            let wanted = rules(&changes.borrow_and_update());
            if wanted == applied {
                continue;
            }
            match table.apply(&wanted) {
                Ok(()) => applied = wanted,
                Err(error) => tracing::error!(%error, "the services' rules could not be changed"),
            }
        }
    });
    Ok(ServiceProxy { task })
}

fn rules(model: &Model) -> Vec<ServiceRule> {
    model
        .services
        .iter()
        .flat_map(|service| service_rules(model, service))
        .collect()
}

fn service_rules(model: &Model, service: &ServiceSpec) -> Vec<ServiceRule> {
    let pods = model
        .endpoints(service)
        .filter(|pod| pod.serves())
        .flat_map(|pod| &pod.addresses);
    let endpoints: Vec<_> = pods.chain(&service.external_endpoints).copied().collect();
    let mut rules = Vec::new();
    for cluster_ip in service.cluster_ips() {
        for port in &service.ports {
            let transport = match port.protocol {
                Protocol::Tcp => Transport::Tcp,
                Protocol::Udp => Transport::Udp,
                Protocol::Sctp => continue,
            };
            let of_family = endpoints
                .iter()
                .filter(|a| a.is_ipv4() == cluster_ip.is_ipv4());
            rules.push(ServiceRule {
                cluster_ip: *cluster_ip,
                transport,
                port: port.port,
                node_port: port.node_port,
                endpoints: of_family
                    .map(|address| SocketAddr::new(*address, port.target_port))
                    .collect(),
            });
        }
    }
    rules
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::playground::{addresses, cluster};

    #[test]
    fn rules_lead_to_the_ready_pods_of_their_own_family() {
        let (mut model, _) = cluster::initial().unwrap();
        let echo = |model: &Model| {
            let all = rules(model);
            let of_echo = all
                .into_iter()
                .filter(|rule| addresses::service(10).contains(&rule.cluster_ip));
            of_echo
                .map(|rule| (rule.port, rule.endpoints))
                .collect::<Vec<_>>()
        };
        let pods: Vec<_> = model.pods[..2]
            .iter()
            .map(|pod| pod.addresses.clone())
            .collect();
        let at = |pod: usize, family: usize| SocketAddr::new(pods[pod][family], 8080);
        assert_eq!(
            echo(&model),
            [
                (80, vec![at(0, 0), at(1, 0)]),
                (80, vec![at(0, 1), at(1, 1)])
            ]
        );
        model.pods[0].ready = false;
        assert_eq!(echo(&model), [(80, vec![at(1, 0)]), (80, vec![at(1, 1)])]);
    }

    #[test]
    fn a_service_without_pods_has_rules_that_refuse() {
        let (model, _) = cluster::initial().unwrap();
        let empty = rules(&model)
            .into_iter()
            .filter(|rule| addresses::service(14).contains(&rule.cluster_ip));
        assert_eq!(
            empty.map(|rule| rule.endpoints.len()).collect::<Vec<_>>(),
            [0, 0]
        );
    }
}

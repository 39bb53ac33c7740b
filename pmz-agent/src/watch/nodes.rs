//! What the nodes tell: which pod networks they have, and at which addresses node ports are reached.

use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, ListParams};
use kube::{Client, Error};

/// Nodes of one answer of the API.
const PAGE: u32 = 500;
/// Answers that are asked for at most: 10,000 nodes.
const PAGES: usize = 20;

/// What is known of all nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Nodes {
    /// Pod networks, joined and sorted.
    pub(super) pod_cidrs: Vec<IpNet>,
    /// Addresses, those that the world can reach first.
    pub(super) addresses: Vec<IpAddr>,
}

/// Lists the nodes; `None` where the agent may not.
///
/// # Errors
/// Where the API could not be asked: worth another try.
pub(super) async fn nodes(client: &Client) -> Result<Option<Nodes>, Error> {
    let api = Api::<Node>::all(client.clone());
    let mut params = ListParams::default().limit(PAGE);
    let mut nodes = Vec::new();
    for _ in 0..PAGES {
        let page = match api.list(&params).await {
            Ok(page) => page,
            Err(Error::Api(status)) if status.is_forbidden() => return Ok(None),
            Err(error) => return Err(error),
        };
        nodes.extend(page.items);
        match page.metadata.continue_ {
            Some(more) if !more.is_empty() => params = params.continue_token(&more),
            Some(_) | None => break,
        }
    }
    Ok(Some(read(&nodes)))
}

fn read(nodes: &[Node]) -> Nodes {
    let specs = nodes.iter().filter_map(|node| node.spec.as_ref());
    let cidrs = specs.flat_map(|spec| {
        // Before there were two families there was the singular alone.
        let several = spec.pod_cidrs.iter().flatten();
        several.chain(&spec.pod_cidr)
    });
    let cidrs: Vec<IpNet> = cidrs.filter_map(|cidr| cidr.parse().ok()).collect();
    let mut pod_cidrs = IpNet::aggregate(&cidrs);
    pod_cidrs.sort();
    let all = ["ExternalIP", "InternalIP"].into_iter().flat_map(|wanted| {
        let statuses = nodes.iter().filter_map(|node| node.status.as_ref());
        let addresses = statuses.flat_map(|status| status.addresses.iter().flatten());
        addresses.filter(move |address| address.type_ == wanted)
    });
    let addresses = all.filter_map(|address| address.address.parse().ok());
    Nodes {
        pod_cidrs,
        addresses: addresses.collect(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn pod_networks_are_joined_and_reachable_addresses_come_first() {
        let node = |cidrs: &[&str], internal: &str, external: Option<&str>| -> Node {
            let mut addresses = vec![
                json!({"type": "Hostname", "address": "n"}),
                json!({"type": "InternalIP", "address": internal}),
            ];
            addresses.extend(external.map(|ip| json!({"type": "ExternalIP", "address": ip})));
            let node = json!({
                "metadata": {},
                "spec": {"podCIDR": cidrs.first(), "podCIDRs": cidrs},
                "status": {"addresses": addresses},
            });
            serde_json::from_value(node).unwrap()
        };
        let nodes = [
            node(&["10.244.0.0/24", "fd00:10:244::/64"], "10.0.0.1", None),
            node(&["10.244.1.0/24"], "10.0.0.2", Some("203.0.113.2")),
            node(&[], "10.0.0.3", None),
        ];
        let read = read(&nodes);
        let text: Vec<_> = read.pod_cidrs.iter().map(ToString::to_string).collect();
        assert_eq!(text, ["10.244.0.0/23", "fd00:10:244::/64"]);
        let text: Vec<_> = read.addresses.iter().map(ToString::to_string).collect();
        assert_eq!(text, ["203.0.113.2", "10.0.0.1", "10.0.0.2", "10.0.0.3"]);
    }
}

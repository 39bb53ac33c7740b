//! The service networks as the API knows them: ServiceCIDR objects, from Kubernetes 1.31 on; before, what
//! the API server says when it refuses an address that is in none.

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::networking::{v1, v1beta1};
use kube::api::{Api, ListParams, PostParams};
use kube::{Client, Error};
use pmz_net::session::{Found, Network};

/// ServiceCIDR objects that are looked at; clusters have one or two.
const LIMIT: u32 = 64;
/// Addresses that no service network holds, with the family that a service must have to ask for them.
const IMPOSSIBLE: [(&str, &str); 2] = [("IPv4", "0.0.0.1"), ("IPv6", "100::1")];
/// What stands before the network in a refusal.
const RANGE: &str = "range of valid IPs is ";

/// All service networks; `None` where the agent may not learn them from the API.
///
/// # Errors
/// Where the API could not be asked: worth another try.
pub(super) async fn service_network(
    client: &Client,
    namespace: &str,
) -> Result<Option<Network>, Error> {
    if let Some(prefixes) = service_cidrs(client).await? {
        let found = Found::ServiceCidr;
        return Ok(Some(Network { prefixes, found }));
    }
    let refused = refused(client, namespace).await?;
    Ok(refused.map(|prefixes| Network {
        prefixes,
        found: Found::Refusal,
    }))
}

async fn service_cidrs(client: &Client) -> Result<Option<Vec<IpNet>>, Error> {
    let params = ListParams::default().limit(LIMIT);
    match Api::<v1::ServiceCIDR>::all(client.clone())
        .list(&params)
        .await
    {
        Ok(list) => {
            let specs = list.items.into_iter().filter_map(|item| item.spec);
            Ok(parse(specs.filter_map(|spec| spec.cidrs).flatten()))
        }
        Err(Error::Api(status)) if status.is_forbidden() => Ok(None),
        Err(Error::Api(status)) if status.is_not_found() => beta(client, &params).await,
        Err(error) => Err(error),
    }
}

/// As Kubernetes 1.31 and 1.32 have them, where they are turned on.
async fn beta(client: &Client, params: &ListParams) -> Result<Option<Vec<IpNet>>, Error> {
    match Api::<v1beta1::ServiceCIDR>::all(client.clone())
        .list(params)
        .await
    {
        Ok(list) => {
            let specs = list.items.into_iter().filter_map(|item| item.spec);
            Ok(parse(specs.filter_map(|spec| spec.cidrs).flatten()))
        }
        Err(Error::Api(status)) if status.is_forbidden() || status.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Asks for impossible services, which the API server refuses with the range that it has. It is a dry run,
/// so nothing is made whatever it says.
async fn refused(client: &Client, namespace: &str) -> Result<Option<Vec<IpNet>>, Error> {
    let services = Api::<Service>::namespaced(client.clone(), namespace);
    let dry_run = PostParams {
        dry_run: true,
        field_manager: None,
    };
    let mut ranges = Vec::new();
    for (family, address) in IMPOSSIBLE {
        match services
            .create(&dry_run, &impossible(family, address))
            .await
        {
            Ok(_) => {}
            Err(Error::Api(status)) if status.is_forbidden() => return Ok(None),
            // Whatever else refuses it (a webhook that knows no dry runs) says nothing of the range, and
            // would say the same again.
            Err(Error::Api(status)) if (400..500).contains(&status.code) => {
                ranges.extend(range(&status.message));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(parse(ranges.into_iter()))
}

fn impossible(family: &str, address: &str) -> Service {
    let spec = k8s_openapi::api::core::v1::ServiceSpec {
        cluster_ip: Some(address.to_owned()),
        ip_families: Some(vec![family.to_owned()]),
        ports: Some(vec![k8s_openapi::api::core::v1::ServicePort {
            port: 1,
            ..Default::default()
        }]),
        ..Default::default()
    };
    Service {
        metadata: kube::api::ObjectMeta {
            generate_name: Some("pmz-asks-".to_owned()),
            ..Default::default()
        },
        spec: Some(spec),
        status: None,
    }
}

/// The range in what the API server says of an address outside of it: it ends `the range of valid IPs is R`
/// in all versions.
fn range(message: &str) -> Option<String> {
    let (_, range) = message.split_once(RANGE)?;
    let is_part = |c: char| c.is_ascii_hexdigit() || matches!(c, '.' | ':' | '/');
    let end = range.find(|c| !is_part(c)).unwrap_or(range.len());
    Some(range.get(..end)?.to_owned())
}

fn parse(cidrs: impl Iterator<Item = String>) -> Option<Vec<IpNet>> {
    let prefixes: Vec<IpNet> = cidrs.filter_map(|cidr| cidr.parse().ok()).collect();
    let mut prefixes = IpNet::aggregate(&prefixes);
    prefixes.sort();
    (!prefixes.is_empty()).then_some(prefixes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cidrs_are_read_joined_and_sorted() {
        let cidrs = [
            "fd00:10:96::/112",
            "10.97.0.0/16",
            "10.96.0.7/16",
            "?",
            "10.96.0.0/16",
        ];
        let prefixes = parse(cidrs.into_iter().map(str::to_owned)).unwrap();
        let prefixes: Vec<_> = prefixes.iter().map(ToString::to_string).collect();
        assert_eq!(prefixes, ["10.96.0.0/15", "fd00:10:96::/112"]);
        assert_eq!(parse(["?".to_owned()].into_iter()), None);
    }

    #[test]
    fn a_refusal_names_the_range() {
        // As Kubernetes 1.37 says it.
        let said = "Service \"pmz-asks-v46r7\" is invalid: spec.clusterIPs: Invalid value: [\"100::1\"]: \
                    failed to allocate IP 100::1: the provided IP (100::1) is not in the valid range. The \
                    range of valid IPs is fd00:10:96::/112";
        assert_eq!(range(said).as_deref(), Some("fd00:10:96::/112"));
        // Where it stands in the middle of several causes.
        let said = "[… The range of valid IPs is 10.96.0.0/16, spec.ports: Required value]";
        assert_eq!(range(said).as_deref(), Some("10.96.0.0/16"));
        let other = "spec.ipFamilies[0]: Invalid value: \"IPv6\": not configured on this cluster";
        assert_eq!(range(other), None);
    }
}

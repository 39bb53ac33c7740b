//! The service networks as the API knows them: ServiceCIDR objects, from Kubernetes 1.31 on.

use ipnet::IpNet;
use k8s_openapi::api::networking::{v1, v1beta1};
use kube::api::{Api, ListParams};
use kube::{Client, Error};

/// ServiceCIDR objects that are looked at; clusters have one or two.
const LIMIT: u32 = 64;

/// All service networks; `None` where this cluster doesn't have the objects or the agent may not list
/// them.
///
/// # Errors
/// Where the API could not be asked: worth another try.
pub(super) async fn service_cidrs(client: &Client) -> Result<Option<Vec<IpNet>>, Error> {
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
}

//! What is to be reached through the tunnel, out of what the agent says and what the user wants.

use std::net::IpAddr;
use std::time::Duration;

use http::Uri;
use ipnet::IpNet;
use pmz_net::route::{
    Kind, OverlapPolicy, Plan, PoolWish, SteerPolicy, Wanted, Wishes, cut, is_vast,
};
use pmz_net::session::Networks;

use super::choices::EbpfChoice;
use super::options::UpOptions;
use crate::failure::{ExitCode, Failure};
use crate::helper::Claim;

/// The connection to the API server stands already: its name was resolved a moment ago.
const RESOLVED_WITHIN: Duration = Duration::from_secs(5);

/// The user's part of it.
#[derive(Clone, Debug)]
pub(super) struct Wants {
    pods: bool,
    policy: OverlapPolicy,
    pool: PoolWish,
    steer: SteerPolicy,
    include: Vec<IpNet>,
    exclude: Vec<IpNet>,
    pub(super) ebpf: EbpfChoice,
    /// URL of the API server.
    pub(super) server: String,
}

impl Wants {
    pub(super) fn new(options: &UpOptions, server: &str) -> Self {
        Self {
            pods: options.pods,
            policy: options.overlap,
            pool: options.pool,
            // There is nothing to take packets over with.
            steer: match options.ebpf {
                EbpfChoice::Off => SteerPolicy::Route,
                EbpfChoice::Auto | EbpfChoice::Require => options.steer,
            },
            include: options.include.clone(),
            exclude: options.exclude.clone(),
            ebpf: options.ebpf,
            server: server.to_owned(),
        }
    }

    /// What the user does not want in the tunnel.
    pub(super) fn excluded(&self) -> &[IpNet] {
        &self.exclude
    }

    /// Where the kernel is to be watched for packets that take another way: what a plan diverts, and all of it where
    /// the user wants that. `None` where nothing is to be diverted.
    pub(super) fn watched(&self, plan: &Plan) -> Option<Vec<IpNet>> {
        if self.steer == SteerPolicy::Tc {
            return Some(plan.unchanged().map(|it| it.net).collect());
        }
        let diverted = plan.diverted.iter().map(|it| it.wanted.net);
        (!plan.diverted.is_empty()).then(|| diverted.collect())
    }

    /// How far the routes may go.
    pub(super) fn claim(&self, plan: &Plan) -> Claim {
        if self.include.iter().any(is_vast) {
            Claim::Everything
        } else if self.watched(plan).is_some() {
            Claim::Diverted
        } else if self.policy == OverlapPolicy::PreferCluster {
            Claim::Overlapping
        } else {
            Claim::Free
        }
    }

    /// The addresses that the API server's name has now; none where it can't be resolved.
    pub(super) async fn api_addresses(&self) -> Vec<IpAddr> {
        let Some((host, port)) = host_and_port(&self.server) else {
            return Vec::new();
        };
        let found = tokio::time::timeout(
            RESOLVED_WITHIN,
            tokio::net::lookup_host((host.as_str(), port)),
        );
        match found.await {
            Ok(Ok(found)) => found.map(|at| at.ip().to_canonical()).collect(),
            Ok(Err(error)) => {
                tracing::warn!(host, %error, "the API server's name can't be resolved");
                Vec::new()
            }
            Err(_) => {
                tracing::warn!(host, "the API server's name is not resolved in time");
                Vec::new()
            }
        }
    }

    /// What to plan. The API server, at these addresses, is never led into the tunnel that its own answers
    /// carry: out of the cluster's networks it is cut.
    ///
    /// # Errors
    /// Where the user has included it.
    pub(super) fn wishes(&self, networks: &Networks, api: &[IpAddr]) -> Result<Wishes, Failure> {
        for net in &self.include {
            let pieces = cut(*net, &self.exclude);
            let caught = api
                .iter()
                .find(|api| pieces.iter().any(|p| p.contains(*api)));
            if let Some(address) = caught {
                return Err(self.cuts_itself(*net, *address));
            }
        }
        let mut wanted = Vec::new();
        let mut add = |kind, nets: &[IpNet]| {
            wanted.extend(nets.iter().map(|net| Wanted { net: *net, kind }));
        };
        add(Kind::Services, &networks.services.prefixes);
        if self.pods {
            add(Kind::Pods, &networks.pods.prefixes);
        }
        add(Kind::Included, &self.include);
        let mut excluded = self.exclude.clone();
        let is_wanted = |api: &&IpAddr| wanted.iter().any(|w| w.net.contains(*api));
        excluded.extend(api.iter().filter(is_wanted).copied().map(IpNet::from));
        Ok(Wishes {
            wanted,
            excluded,
            policy: self.policy,
            pool: self.pool,
            steer: self.steer,
        })
    }

    fn cuts_itself(&self, net: IpNet, address: IpAddr) -> Failure {
        Failure::new(
            ExitCode::Usage,
            format!(
                "The API server {} has the address {address}, which lies in `--include {net}`: pmz would cut \
                 its own connection",
                self.server
            ),
            format!("Add `--exclude {address}`"),
        )
    }
}

pub(super) fn host_and_port(server: &str) -> Option<(String, u16)> {
    let uri: Uri = server.parse().ok()?;
    let host = uri.host()?.trim_start_matches('[').trim_end_matches(']');
    let usual = if uri.scheme_str() == Some("http") {
        80
    } else {
        443
    };
    Some((host.to_owned(), uri.port_u16().unwrap_or(usual)))
}

#[cfg(test)]
pub(super) mod tests {
    use pmz_net::session::Network;

    use super::*;

    fn nets(text: &str) -> Vec<IpNet> {
        text.split_whitespace()
            .map(|s| s.parse().unwrap())
            .collect()
    }

    pub(crate) fn networks(services: &str, pods: &str) -> Networks {
        let network = |text| Network {
            prefixes: nets(text),
            ..Network::default()
        };
        Networks {
            services: network(services),
            pods: network(pods),
        }
    }

    pub(crate) fn wants(include: &str, exclude: &str) -> Wants {
        Wants {
            pods: true,
            policy: OverlapPolicy::Auto,
            pool: PoolWish::default(),
            steer: SteerPolicy::Auto,
            include: nets(include),
            exclude: nets(exclude),
            ebpf: EbpfChoice::Auto,
            server: "https://api.example:6443".to_owned(),
        }
    }

    fn cluster() -> Networks {
        networks("10.96.0.0/16", "10.244.0.0/16")
    }

    fn ips(text: &str) -> Vec<IpAddr> {
        text.split_whitespace()
            .map(|s| s.parse().unwrap())
            .collect()
    }

    #[test]
    fn networks_are_wanted_for_what_they_are() {
        let mut wants = wants("192.0.2.0/24", "10.96.7.0/24");
        let kinds = |wants: &Wants| {
            let wishes = wants.wishes(&cluster(), &[]).unwrap();
            assert_eq!(wishes.excluded, nets("10.96.7.0/24"));
            let wanted = wishes.wanted.into_iter();
            wanted
                .map(|w| (w.net.to_string(), w.kind))
                .collect::<Vec<_>>()
        };
        let services = ("10.96.0.0/16".to_owned(), Kind::Services);
        let pods = ("10.244.0.0/16".to_owned(), Kind::Pods);
        let included = ("192.0.2.0/24".to_owned(), Kind::Included);
        assert_eq!(kinds(&wants), [services.clone(), pods, included.clone()]);
        wants.pods = false;
        assert_eq!(kinds(&wants), [services, included]);
    }

    #[test]
    fn the_api_server_can_not_be_included() {
        let api = ips("203.0.113.5 198.51.100.1");
        for include in ["203.0.113.0/24", "0.0.0.0/0", "203.0.113.5/32"] {
            let failure = wants(include, "").wishes(&cluster(), &api).unwrap_err();
            assert_eq!(failure.code, ExitCode::Usage);
            let text = failure.to_string();
            for words in ["api.example:6443", "203.0.113.5", include, "--exclude"] {
                assert!(text.contains(words), "{text}");
            }
        }
        let cut_out = wants("203.0.113.0/24", "203.0.113.5/32 198.51.100.0/24");
        cut_out.wishes(&cluster(), &api).unwrap();
    }

    #[test]
    fn the_api_server_is_cut_out_of_the_clusters_own_networks() {
        let wishes = wants("", "")
            .wishes(&cluster(), &ips("10.96.0.1 203.0.113.5"))
            .unwrap();
        assert_eq!(wishes.excluded, nets("10.96.0.1/32"));
    }

    #[tokio::test]
    async fn the_api_servers_addresses_are_those_of_its_name() {
        for (server, address) in [
            ("https://127.0.0.1:6443", "127.0.0.1"),
            ("https://[::1]:6443/", "::1"),
            ("https://[::ffff:192.0.2.1]/", "192.0.2.1"),
            ("http://192.0.2.1", "192.0.2.1"),
        ] {
            let mut wants = wants("", "");
            wants.server = server.to_owned();
            assert_eq!(wants.api_addresses().await, ips(address), "{server}");
        }
        let mut wants = wants("", "");
        wants.server = "https://".to_owned();
        assert!(wants.api_addresses().await.is_empty());
    }
}

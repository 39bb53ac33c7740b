//! A helper with its TUN, and what it is asked.

use std::fs;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use pmz_cli::failure::Failure;
use pmz_cli::helper::{Channel, Claim, HelperClient, HelperError, Paths, Refusal, Tun, serve};
use pmz_net::route::{Kind, OverlapPolicy, Plan, PlanError, Wanted, Wishes};
use tokio::task::JoinHandle;

use crate::USER;
use crate::netns::{dump, ip};

/// A helper with its TUN.
pub(crate) struct Bench {
    pub(crate) client: HelperClient,
    server: JoinHandle<std::io::Result<()>>,
    pub(crate) tun: Tun,
    _dir: tempfile::TempDir,
}

pub(crate) async fn bench(address: &str, address6: &str) -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let paths = Paths {
        runtime: dir.path().join("run"),
        resolv_conf: dir.path().join("resolv.conf"),
    };
    fs::write(&paths.resolv_conf, "").unwrap();
    let (ours, theirs) = Channel::pair().unwrap();
    let server = tokio::spawn(serve(theirs, USER, paths));
    let client = HelperClient::new(ours).unwrap();
    let addresses: [IpAddr; 2] = [address.parse().unwrap(), address6.parse().unwrap()];
    let tun = client.open_tun("pmz%d", 1340, &addresses).await.unwrap();
    // The kernel adds IPv6's local route by a worker of its own, a moment after the address.
    let limit = Instant::now() + Duration::from_secs(5);
    while !ip(&["-6 route show table local"]).contains(address6) {
        assert!(Instant::now() < limit, "the tunnel's address does not come");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Bench {
        client,
        server,
        tun,
        _dir: dir,
    }
}

impl Bench {
    pub(crate) async fn end(self) {
        drop((self.client, self.tun));
        let ended = tokio::time::timeout(Duration::from_secs(5), self.server).await;
        ended
            .expect("the helper outlives its peer")
            .unwrap()
            .unwrap();
    }

    pub(crate) async fn plan(&self, wishes: &Wishes) -> Result<Plan, PlanError> {
        match self.client.plan(wishes.clone()).await {
            Ok(plan) => Ok(plan),
            Err(HelperError::Refused(Refusal::Unroutable { why })) => Err(why),
            Err(other) => panic!("{other}"),
        }
    }

    /// Plans, which must be refused, as adding the routes must, and nothing may have changed. Gives what
    /// the user is told.
    pub(crate) async fn is_refused(&self, wishes: &Wishes) -> String {
        let before = dump();
        let why = self.plan(wishes).await.unwrap_err();
        let nets: Vec<IpNet> = wishes.wanted.iter().map(|wanted| wanted.net).collect();
        let claim = match wishes.policy {
            OverlapPolicy::PreferCluster => Claim::Overlapping,
            OverlapPolicy::Auto | OverlapPolicy::Remap | OverlapPolicy::Refuse => Claim::Free,
        };
        let added = self.client.add_routes(&nets, claim).await;
        assert!(
            matches!(added, Err(HelperError::Refused(Refusal::Unroutable { .. }))),
            "{added:?}"
        );
        assert_eq!(dump(), before);
        Failure::from(Refusal::Unroutable { why }).to_string()
    }

    /// Plans, which must work, and adds the routes.
    pub(crate) async fn is_routed(&self, wishes: &Wishes) -> Plan {
        let before = dump();
        let plan = self.plan(wishes).await.unwrap();
        assert!(plan.remapped.is_empty(), "{plan:?}");
        assert_eq!(dump(), before, "a plan has changed something");
        let claim = match wishes.policy {
            OverlapPolicy::PreferCluster => Claim::Overlapping,
            OverlapPolicy::Auto | OverlapPolicy::Remap | OverlapPolicy::Refuse => Claim::Free,
        };
        self.client.add_routes(&plan.routes(), claim).await.unwrap();
        plan
    }
}

pub(crate) fn wishes(nets: &[&str], policy: OverlapPolicy) -> Wishes {
    let wanted = nets.iter().map(|net| Wanted {
        net: net.parse().unwrap(),
        kind: Kind::Services,
    });
    Wishes {
        wanted: wanted.collect(),
        policy,
        ..Wishes::default()
    }
}

pub(crate) fn included(net: &str, policy: OverlapPolicy) -> Wishes {
    let mut wishes = wishes(&[net], policy);
    wishes.wanted[0].kind = Kind::Included;
    wishes
}

//! The model as objects, read back by the types of k8s-openapi.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use pmz_cli::playground::model::PodPhase;
use tokio::time::timeout;

use crate::cluster::{Cluster, SOON};

async fn slices(cluster: &Cluster, service: &str) -> BTreeMap<String, EndpointSlice> {
    let api: Api<EndpointSlice> = Api::namespaced(cluster.client("admin").await, "default");
    let of = ListParams::default().labels(&format!("kubernetes.io/service-name={service}"));
    let found = api.list(&of).await.unwrap();
    found
        .items
        .into_iter()
        .map(|s| (s.address_type.clone(), s))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn services_have_the_fields_of_their_type() {
    let cluster = Cluster::start();
    let api: Api<Service> = Api::namespaced(cluster.client("admin").await, "default");
    let spec = async |name: &str| api.get(name).await.unwrap().spec.unwrap();
    let echo = spec("echo").await;
    assert_eq!(echo.type_.as_deref(), Some("ClusterIP"));
    assert_eq!(echo.cluster_ip.as_deref(), Some("10.96.0.10"));
    assert_eq!(echo.cluster_ips.unwrap(), ["10.96.0.10", "fd00:10:96::a"]);
    assert_eq!(echo.ip_families.unwrap(), ["IPv4", "IPv6"]);
    let db = spec("db").await;
    assert_eq!(
        (db.cluster_ip.as_deref(), db.type_.as_deref()),
        (Some("None"), Some("ClusterIP"))
    );
    let outside = spec("outside").await;
    assert_eq!(outside.external_name.as_deref(), Some("example.test"));
    assert!(outside.cluster_ip.is_none() && outside.ports.is_none());
    let np = spec("np").await;
    assert_eq!(np.type_.as_deref(), Some("NodePort"));
    assert_eq!(np.ports.unwrap()[0].node_port, Some(31000));
}

#[tokio::test(flavor = "multi_thread")]
async fn there_is_a_slice_per_family_with_all_of_a_services_pods() {
    let cluster = Cluster::start();
    let echo = slices(&cluster, "echo").await;
    assert_eq!(echo.keys().collect::<Vec<_>>(), ["IPv4", "IPv6"]);
    let v6 = &echo["IPv6"];
    assert_eq!(v6.endpoints[1].addresses, ["fd00:10:244::b"]);
    let target = v6.endpoints[1].target_ref.as_ref().unwrap();
    assert_eq!(
        (target.kind.as_deref(), target.name.as_deref()),
        (Some("Pod"), Some("echo-1"))
    );
    assert_eq!(v6.endpoints[1].node_name.as_deref(), Some("node-0"));
    assert_eq!(v6.endpoints[1].hostname, None);
    let port = &v6.ports.as_ref().unwrap()[0];
    assert_eq!((port.name.as_deref(), port.port), (Some(""), Some(8080)));

    let db = slices(&cluster, "db").await;
    assert_eq!(db["IPv4"].endpoints[0].hostname.as_deref(), Some("db-0"));
    assert!(
        db["IPv4"]
            .labels()
            .contains_key("service.kubernetes.io/headless")
    );
    assert!(slices(&cluster, "empty").await["IPv4"].endpoints.is_empty());
    assert!(slices(&cluster, "outside").await.is_empty());
    let kubernetes = slices(&cluster, "kubernetes").await;
    assert_eq!(kubernetes["IPv4"].name_any(), "kubernetes");
    assert_eq!(kubernetes["IPv4"].endpoints[0].addresses, ["10.99.0.11"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_is_not_ready_or_ends_is_shown_so_everywhere() {
    let cluster = Cluster::start();
    let pods: Api<Pod> = Api::namespaced(cluster.client("admin").await, "default");
    let generation = slices(&cluster, "echo").await["IPv4"].metadata.generation;
    let before = cluster.server.store().version();
    cluster.model.update(|m| {
        for pod in m.pods.iter_mut().filter(|p| p.namespace == "default") {
            match pod.name.as_str() {
                "echo-0" => pod.ready = false,
                "echo-1" => pod.terminating = true,
                "db-0" => pod.phase = PodPhase::Failed,
                _ => {}
            }
        }
    });
    timeout(SOON, async {
        // Three pods, and the slices of two services in two families.
        while cluster.server.store().version() < before + 7 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    let slice = &slices(&cluster, "echo").await["IPv4"];
    assert_eq!(slice.metadata.generation, generation.map(|g| g + 1));
    let conditions = |index: usize| {
        let c = slice.endpoints[index].conditions.clone().unwrap();
        (c.ready, c.serving, c.terminating)
    };
    assert_eq!(conditions(0), (Some(false), Some(false), Some(false)));
    assert_eq!(conditions(1), (Some(false), Some(true), Some(true)));
    assert!(slices(&cluster, "db").await["IPv4"].endpoints.is_empty());

    let ready = |pod: &Pod| {
        let conditions = pod.status.as_ref().unwrap().conditions.as_ref().unwrap();
        conditions
            .iter()
            .find(|c| c.type_ == "Ready")
            .unwrap()
            .status
            .clone()
    };
    let echo = pods.get("echo-0").await.unwrap();
    assert_eq!(ready(&echo), "False");
    let status = echo.status.unwrap();
    assert_eq!(status.pod_ip.as_deref(), Some("10.244.0.10"));
    assert_eq!(status.pod_ips.unwrap().len(), 2);
    assert_eq!(status.host_ip.as_deref(), Some("10.99.0.11"));
    assert!(
        pods.get("echo-1")
            .await
            .unwrap()
            .metadata
            .deletion_timestamp
            .is_some()
    );
    let failed = pods
        .list(&ListParams::default().fields("status.phase=Failed"))
        .await
        .unwrap();
    assert_eq!(failed.items[0].name_any(), "db-0");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_no_namespace_can_be_read_too() {
    let cluster = Cluster::start();
    let client = cluster.client("admin").await;
    let node = Api::<Node>::all(client.clone())
        .get("node-0")
        .await
        .unwrap();
    assert_eq!(
        node.spec.unwrap().pod_cidrs.unwrap(),
        ["10.244.0.0/24", "fd00:10:244::/64"]
    );
    let cidr = Api::<ServiceCIDR>::all(client.clone())
        .get("kubernetes")
        .await
        .unwrap();
    assert_eq!(
        cidr.spec.unwrap().cidrs.unwrap(),
        ["10.96.0.0/16", "fd00:10:96::/112"]
    );
    let shop = Api::<Namespace>::all(client).get("shop").await.unwrap();
    assert_eq!(shop.labels()["kubernetes.io/metadata.name"], "shop");
}

//! Lists and watches.

use futures::{StreamExt, TryStreamExt, pin_mut};
use http::Request;
use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{ListParams, VersionMatch, WatchEvent, WatchParams};
use kube::runtime::watcher::{self, Event, InitialListStrategy};
use kube::{Api, Client, ResourceExt};
use tokio::time::timeout;

use crate::cluster::{Cluster, SOON, labels, pod, service};

fn names<K: kube::Resource>(all: &[K]) -> Vec<String> {
    all.iter().map(ResourceExt::name_any).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_cut_by_limit_and_go_on_in_the_same_version() {
    let cluster = Cluster::start();
    let namespaces: Api<Namespace> = Api::all(cluster.client("admin").await);
    let first = namespaces
        .list(&ListParams::default().limit(3))
        .await
        .unwrap();
    assert_eq!(names(&first.items), ["default", "kube-system", "pmz"]);
    assert_eq!(first.metadata.remaining_item_count, Some(1));
    let token = first.metadata.continue_.unwrap();
    cluster.model.update(|m| {
        m.namespaces.push("zzz".into());
    });
    let rest = ListParams::default().limit(3).continue_token(&token);
    let second = namespaces.list(&rest).await.unwrap();
    assert_eq!(names(&second.items), ["shop"]);
    assert_eq!(
        second.metadata.resource_version,
        first.metadata.resource_version
    );
    assert!(second.metadata.continue_.is_none());

    cluster.server.store().compact();
    match namespaces.list(&rest).await {
        Err(kube::Error::Api(status)) => {
            assert_eq!((status.code, status.reason.as_str()), (410, "Expired"));
        }
        other => panic!("a forgotten version was listed: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_obey_selectors_and_versions() {
    let cluster = Cluster::start();
    let client = cluster.client("admin").await;
    let services: Api<Service> = Api::all(client.clone());
    let list = async |params: ListParams| names(&services.list(&params).await.unwrap().items);
    assert_eq!(
        list(ListParams::default().labels("app in (echo, db)")).await,
        ["db", "echo", "echo"]
    );
    assert_eq!(
        list(
            ListParams::default()
                .labels("app=echo")
                .fields("metadata.namespace=shop")
        )
        .await,
        ["echo"]
    );
    assert_eq!(
        list(ListParams::default().fields("spec.type=ExternalName")).await,
        ["outside"]
    );

    let before = services
        .list(&ListParams::default())
        .await
        .unwrap()
        .metadata
        .resource_version
        .unwrap();
    cluster
        .model
        .update(|m| m.services.retain(|s| s.namespace != "shop"));
    wait_for(&cluster, before.parse().unwrap()).await;
    let past = ListParams::default()
        .at(&before)
        .matching(VersionMatch::Exact);
    assert_eq!(list(past).await.len(), 7);
    assert_eq!(list(ListParams::default()).await.len(), 6);

    let bad = services
        .list(&ListParams::default().labels("a b"))
        .await
        .unwrap_err();
    assert!(
        bad.to_string()
            .contains("found 'b', expected: in, notin, =, ==, !=, gt, lt"),
        "{bad}"
    );
}

/// Until the store is at a later version.
async fn wait_for(cluster: &Cluster, version: u64) {
    timeout(SOON, async {
        while cluster.server.store().version() <= version {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
}

fn kind(event: &WatchEvent<Service>) -> String {
    match event {
        WatchEvent::Added(s) => format!("ADDED {}", s.name_any()),
        WatchEvent::Modified(s) => format!("MODIFIED {}", s.name_any()),
        WatchEvent::Deleted(s) => format!("DELETED {}", s.name_any()),
        WatchEvent::Bookmark(_) => "BOOKMARK".into(),
        WatchEvent::Error(e) => format!("ERROR {} {}", e.code, e.reason),
    }
}

/// The next events of a watch.
async fn events(
    stream: &mut (impl futures::Stream<Item = kube::Result<WatchEvent<Service>>> + Unpin),
    count: usize,
) -> Vec<String> {
    let mut found = Vec::new();
    while found.len() < count {
        let event = timeout(SOON, stream.try_next()).await.unwrap().unwrap();
        found.push(event.as_ref().map_or("END".into(), kind));
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn watches_see_changes_from_the_version_on_that_they_name() {
    let cluster = Cluster::start();
    let services: Api<Service> = Api::namespaced(cluster.client("admin").await, "default");
    let version = services
        .list(&ListParams::default())
        .await
        .unwrap()
        .metadata
        .resource_version
        .unwrap();
    cluster
        .model
        .update(|m| m.services.push(service("default", "new", 20)));
    cluster
        .model
        .update(|m| m.services.push(service("shop", "unseen", 21)));
    let watch = services
        .watch(&WatchParams::default(), &version)
        .await
        .unwrap();
    pin_mut!(watch);
    assert_eq!(events(&mut watch, 1).await, ["ADDED new"]);
    cluster
        .model
        .update(|m| m.services.last_mut().unwrap().labels.clear());
    cluster.model.update(|m| {
        let new = m.services.iter_mut().find(|s| s.name == "new").unwrap();
        new.labels.clear();
    });
    assert_eq!(events(&mut watch, 1).await, ["MODIFIED new"]);
    cluster
        .model
        .update(|m| m.services.retain(|s| s.name != "new"));
    assert_eq!(events(&mut watch, 1).await, ["DELETED new"]);
    assert_eq!(cluster.server.running_watches(), 1);
    cluster.server.store().drop_watches();
    assert_eq!(events(&mut watch, 1).await, ["END"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_stops_to_match_is_deleted_for_its_watchers() {
    let cluster = Cluster::start();
    let services: Api<Service> = Api::namespaced(cluster.client("admin").await, "default");
    let params = WatchParams::default().labels("tier=front");
    let version = cluster.server.store().version().to_string();
    let watch = services.watch(&params, &version).await.unwrap();
    pin_mut!(watch);
    let set = |value: &'static str| {
        cluster.model.update(|m| {
            let echo = m.services.iter_mut().find(|s| s.name == "echo").unwrap();
            echo.labels = labels(&[("tier", value)]);
        });
    };
    set("front");
    assert_eq!(events(&mut watch, 1).await, ["ADDED echo"]);
    set("back");
    let gone = timeout(SOON, watch.try_next())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    match gone {
        // As it was when it still matched, in the version in which it no longer did.
        WatchEvent::Deleted(s) => {
            assert_eq!(s.labels()["tier"], "front");
            let version: u64 = s.resource_version().unwrap().parse().unwrap();
            assert!(version <= cluster.server.store().version());
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn watches_end_after_their_timeout_with_a_bookmark_before() {
    let cluster = Cluster::start();
    let services: Api<Service> = Api::namespaced(cluster.client("admin").await, "default");
    let version = cluster.server.store().version().to_string();
    let watch = services
        .watch(&WatchParams::default().timeout(3), &version)
        .await
        .unwrap();
    pin_mut!(watch);
    assert_eq!(events(&mut watch, 2).await, ["BOOKMARK", "END"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_from_a_forgotten_version_is_told_so() {
    let cluster = Cluster::start();
    let services: Api<Service> = Api::all(cluster.client("admin").await);
    let version = cluster.server.store().version().to_string();
    let running = services
        .watch(&WatchParams::default(), &version)
        .await
        .unwrap();
    pin_mut!(running);
    cluster
        .model
        .update(|m| m.services.push(service("default", "first", 20)));
    assert_eq!(events(&mut running, 1).await, ["ADDED first"]);
    cluster.server.store().compact();
    let late = services
        .watch(&WatchParams::default(), &version)
        .await
        .unwrap();
    pin_mut!(late);
    assert_eq!(events(&mut late, 1).await, ["ERROR 410 Expired"]);
    // Who was up to date has missed nothing.
    cluster
        .model
        .update(|m| m.services.push(service("default", "second", 21)));
    assert_eq!(events(&mut running, 1).await, ["ADDED second"]);
}

async fn recovers(client: Client, cluster: &Cluster, strategy: InitialListStrategy) {
    let slices: Api<EndpointSlice> = Api::all(client);
    let config = watcher::Config {
        initial_list_strategy: strategy,
        ..watcher::Config::default()
    };
    let events = watcher::watcher(slices, config);
    pin_mut!(events);
    let mut listed = 0;
    loop {
        match timeout(SOON, events.next()).await.unwrap().unwrap() {
            Ok(Event::InitApply(_)) => listed += 1,
            Ok(Event::InitDone) => break,
            Ok(Event::Init) => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(listed >= 10, "{listed}");
    cluster
        .model
        .update(|m| m.pods.push(pod("default", "echo-9", "echo", 99)));
    let changed = timeout(SOON, events.next()).await.unwrap().unwrap();
    assert!(matches!(changed, Ok(Event::Apply(_))), "{changed:?}");

    // The watch breaks, and what happens meanwhile is forgotten.
    cluster.server.stop().await;
    let version = cluster.server.store().version();
    cluster
        .model
        .update(|m| m.pods.retain(|p| p.name != "echo-9"));
    wait_for(cluster, version).await;
    cluster.server.store().compact();
    cluster.server.resume().unwrap();
    let mut restarted = false;
    let back = timeout(SOON, async {
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Init) => restarted = true,
                Ok(Event::InitDone) => return true,
                _ => {}
            }
        }
        false
    });
    assert!(back.await.unwrap());
    assert!(restarted);
}

#[tokio::test(flavor = "multi_thread")]
async fn kubes_watcher_recovers_from_a_forgotten_version() {
    let cluster = Cluster::start();
    let client = cluster.agent();
    recovers(client.clone(), &cluster, InitialListStrategy::ListWatch).await;
    recovers(client, &cluster, InitialListStrategy::StreamingList).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn discovery_lists_what_can_be_read() {
    let cluster = Cluster::start();
    let client = cluster.client("dev").await;
    assert_eq!(
        client.list_core_api_versions().await.unwrap().versions,
        ["v1"]
    );
    let resources = client.list_core_api_resources("v1").await.unwrap();
    let found = names_of(&resources.resources);
    assert!(
        found.contains(&"services".to_owned()) && found.contains(&"pods/portforward".to_owned())
    );
    let groups = client.list_api_groups().await.unwrap();
    assert!(groups.groups.iter().any(|g| g.name == "discovery.k8s.io"));
    let slices = client
        .list_api_group_resources("discovery.k8s.io/v1")
        .await
        .unwrap();
    assert_eq!(names_of(&slices.resources), ["endpointslices"]);
    let health = Request::get("/readyz").body(Vec::new()).unwrap();
    assert_eq!(client.request_text(health).await.unwrap(), "ok");
}

fn names_of(all: &[k8s_openapi::apimachinery::pkg::apis::meta::v1::APIResource]) -> Vec<String> {
    all.iter().map(|r| r.name.clone()).collect()
}

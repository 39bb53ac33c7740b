//! Who may do what, and the words of refusals.

use http::Request;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use kube::api::{ListParams, PostParams};
use kube::{Api, Client};

use crate::cluster::{Cluster, client_of};

fn status(error: kube::Error) -> kube::core::Status {
    match error {
        kube::Error::Api(status) => *status,
        other => panic!("not an answer of the API: {other}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_developer_may_list_the_agents_pods_and_nothing_else() {
    let cluster = Cluster::start();
    let client = cluster.client("dev").await;
    let pods: Api<Pod> = Api::namespaced(client.clone(), "pmz");
    let found = pods
        .list(&ListParams::default().labels("app=pmz-agent"))
        .await
        .unwrap();
    assert_eq!(found.items.len(), 1);

    let services: Api<Service> = Api::all(client.clone());
    let refused = status(services.list(&ListParams::default()).await.unwrap_err());
    assert_eq!((refused.code, refused.reason.as_str()), (403, "Forbidden"));
    assert_eq!(
        refused.message,
        "services is forbidden: User \"dev\" cannot list resource \"services\" in API group \"\" at the \
         cluster scope"
    );
    let nodes: Api<Node> = Api::all(client.clone());
    let refused = status(nodes.get("node-0").await.unwrap_err());
    assert_eq!(
        refused.message,
        "nodes \"node-0\" is forbidden: User \"dev\" cannot get resource \"nodes\" in API group \"\" at the \
         cluster scope"
    );
    let version = client.apiserver_version().await.unwrap();
    assert_eq!(
        (version.major.as_str(), version.minor.as_str()),
        ("1", "37")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agent_may_watch_services_but_not_list_pods() {
    let cluster = Cluster::start();
    let client = cluster.agent();
    let services: Api<Service> = Api::all(client.clone());
    assert_eq!(
        services
            .list(&ListParams::default())
            .await
            .unwrap()
            .items
            .len(),
        7
    );
    let pods: Api<Pod> = Api::all(client);
    let refused = status(pods.list(&ListParams::default()).await.unwrap_err());
    assert_eq!(
        refused.message,
        "pods is forbidden: User \"system:serviceaccount:pmz:pmz-agent\" cannot list resource \"pods\" in \
         API group \"\" at the cluster scope"
    );
}

async fn portforward_refusal(client: Client, pod: &str) -> kube::core::Status {
    let pods: Api<Pod> = Api::namespaced(client, "pmz");
    match pods.portforward(pod, &[8080]).await {
        Ok(_) => panic!("the port-forward was let through"),
        Err(error) => status(error),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_forward_wants_get_and_create() {
    let cluster = Cluster::start();
    let refused = portforward_refusal(cluster.client("dev2").await, "pmz-agent-0").await;
    assert_eq!(refused.code, 403);
    assert_eq!(
        refused.message,
        "pods \"pmz-agent-0\" is forbidden: User \"dev2\" cannot get resource \"pods/portforward\" in API \
         group \"\" in the namespace \"pmz\""
    );
    let refused = portforward_refusal(cluster.client("half").await, "pmz-agent-0").await;
    assert_eq!(
        (refused.code, refused.message.as_str()),
        (403, "pods \"pmz-agent-0\" is forbidden: ")
    );
    let missing = portforward_refusal(cluster.client("dev").await, "nope").await;
    assert_eq!(
        (missing.code, missing.message.as_str()),
        (404, "pods \"nope\" not found")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_nobody_has_is_unauthorized() {
    let cluster = Cluster::start();
    let yaml = cluster.server.kubeconfig("dev").unwrap();
    let token = yaml
        .lines()
        .find_map(|l| l.trim().strip_prefix("token: "))
        .unwrap();
    let client = client_of(&yaml.replace(token, "nonsense")).await;
    let pods: Api<Pod> = Api::namespaced(client, "pmz");
    let refused = status(pods.list(&ListParams::default()).await.unwrap_err());
    assert_eq!(
        (refused.code, refused.message.as_str()),
        (401, "Unauthorized")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn access_reviews_say_what_is_allowed_and_why() {
    let cluster = Cluster::start();
    let client = cluster.client("dev").await;
    let reviews: Api<SelfSubjectAccessReview> = Api::all(client);
    for (resource, subresource, allowed) in [
        ("pods", Some("portforward"), true),
        ("services", None, false),
    ] {
        let review = SelfSubjectAccessReview {
            spec: SelfSubjectAccessReviewSpec {
                resource_attributes: Some(ResourceAttributes {
                    namespace: Some("pmz".into()),
                    verb: Some("create".into()),
                    resource: Some(resource.into()),
                    subresource: subresource.map(str::to_owned),
                    ..Default::default()
                }),
                ..Default::default()
            },
            ..Default::default()
        };
        let answer = reviews
            .create(&PostParams::default(), &review)
            .await
            .unwrap();
        let status = answer.status.unwrap();
        assert_eq!(status.allowed, allowed, "{resource}");
        assert_eq!(
            status.reason,
            allowed.then(|| {
                "RBAC: allowed by RoleBinding \"pmz-user/pmz\" of Role \"pmz-user\" to User \"dev\"".into()
            })
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kubeconfigs_and_files_are_there_for_those_who_are() {
    let cluster = Cluster::start();
    assert!(cluster.server.kubeconfig("nobody").is_none());
    assert!(
        cluster
            .server
            .service_account_files("pmz", "nobody")
            .is_none()
    );
    let files = cluster
        .server
        .service_account_files("pmz", "pmz-agent")
        .unwrap();
    assert_eq!(files.namespace, "pmz");
    assert!(files.ca.starts_with("-----BEGIN CERTIFICATE-----"));
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_that_lead_nowhere_are_not_found_as_on_the_real_server() {
    let cluster = Cluster::start();
    let client = cluster.client("admin").await;
    let ask = |path: &str| {
        let client = client.clone();
        let request = Request::get(path).body(Vec::new()).unwrap();
        async move { status(client.request_text(request).await.unwrap_err()) }
    };
    for (path, message) in [
        (
            "/api/v1/foos",
            "the server could not find the requested resource",
        ),
        (
            "/apis/discovery.k8s.io/v1/foos",
            "the server could not find the requested resource",
        ),
        (
            "/api/v1/namespaces/pmz/nodes",
            "the server could not find the requested resource",
        ),
        (
            "/api/v1/pods/echo-0",
            "the server could not find the requested resource",
        ),
        (
            "/api/v1/namespaces/pmz/pods/nope",
            "pods \"nope\" not found",
        ),
        (
            "/apis/discovery.k8s.io/v1/namespaces/pmz/endpointslices/nope",
            "endpointslices.discovery.k8s.io \"nope\" not found",
        ),
    ] {
        let found = ask(path).await;
        assert_eq!(
            (found.code, found.message.as_str()),
            (404, message),
            "{path}"
        );
    }
    assert_eq!(ask("/apis/foo/v1/bars").await.code, 404);
    let delete = Request::delete("/api/v1/namespaces/pmz/pods/x")
        .body(Vec::new())
        .unwrap();
    assert_eq!(
        status(client.request_text(delete).await.unwrap_err()).code,
        405
    );
}

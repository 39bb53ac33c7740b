//! Small workloads of the cluster's own image.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use pmz_tests::eventually;
use pmz_tests::lab::Lab;

/// Controllers that have lost their API server are back at work by then.
const CONTROLLERS: Duration = Duration::from_secs(60);
/// Bytes at `/blob` of [`web`]: the namespace's name in lines, over and over.
pub(crate) const BLOB: usize = 4_000_000;

/// Has namespace, pod and Service `web`, which answers a GET with "hello from NAMESPACE", on that node
/// where one is named. Waits until it is ready.
pub(crate) async fn web(lab: &Lab, namespace: &str, node: Option<&str>) -> Result<()> {
    let node = node.map_or_else(String::new, |node| format!("nodeName: {node}"));
    let manifest = format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: web, namespace: {namespace}, labels: {{app: web}}}}
spec:
  {node}
  terminationGracePeriodSeconds: 0
  containers:
  - name: web
    image: localhost/busybox:1
    command: [sh, -c]
    args:
    - mkdir /tmp/www && echo hello from {namespace} > /tmp/www/index.html && yes {namespace} | head -c {BLOB} > /tmp/www/blob && exec httpd -f -p 8080 -h /tmp/www
    readinessProbe: {{httpGet: {{path: /, port: 8080}}, periodSeconds: 1}}
---
apiVersion: v1
kind: Service
metadata: {{name: web, namespace: {namespace}}}
spec:
  ipFamilyPolicy: PreferDualStack
  selector: {{app: web}}
  ports: [{{port: 80, targetPort: 8080}}]
"
    );
    make_namespace(lab, namespace).await?;
    lab.apply(&manifest).await?;
    lab.ready(namespace, "web").await?;
    served(lab, namespace, "web").await
}

/// Has a namespace with a Service `echo` that sends lines back, and gives its address. Waits until it is
/// ready.
pub(crate) async fn echo(lab: &Lab, namespace: &str) -> Result<SocketAddr> {
    let manifest = format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: echo, namespace: {namespace}, labels: {{app: echo}}}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: echo
    image: localhost/busybox:1
    command: [nc, -ll, -p, \"7\", -e, cat]
    readinessProbe: {{tcpSocket: {{port: 7}}, periodSeconds: 1}}
---
apiVersion: v1
kind: Service
metadata: {{name: echo, namespace: {namespace}}}
spec:
  selector: {{app: echo}}
  ports: [{{port: 7}}]
"
    );
    make_namespace(lab, namespace).await?;
    lab.apply(&manifest).await?;
    lab.ready(namespace, "echo").await?;
    served(lab, namespace, "echo").await?;
    let get = format!("get service echo -n {namespace} -o jsonpath={{.spec.clusterIP}}");
    let address = lab.ask(&get).await?.parse().context("no ClusterIP")?;
    Ok(SocketAddr::new(address, 7))
}

/// Waits until a Service has an endpoint that is ready. The controllers take their time where the API server
/// was away: they elect a new leader first.
pub(crate) async fn served(lab: &Lab, namespace: &str, service: &str) -> Result<()> {
    let ready = format!(
        "get endpointslices -n {namespace} -l kubernetes.io/service-name={service} \
         -o jsonpath={{.items[*].endpoints[*].conditions.ready}}"
    );
    let served = async || Ok(lab.ask(&ready).await?.contains("true").then_some(()));
    eventually("an endpoint", CONTROLLERS, served).await
}

/// Makes a namespace, and waits until pods can be made in it: until it has its service account.
pub(crate) async fn make_namespace(lab: &Lab, name: &str) -> Result<()> {
    let namespace = format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}}}\n");
    lab.apply(&namespace).await?;
    let account = format!("get serviceaccount default -n {name}");
    let made = async || Ok(lab.ask(&account).await.is_ok().then_some(()));
    eventually("a service account", CONTROLLERS, made).await
}

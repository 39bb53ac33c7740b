//! Small workloads of the cluster's own image.

use anyhow::Result;
use pmz_tests::lab::Lab;

/// Has namespace, pod and Service `web`, which answers a GET with "hello from NAMESPACE", on that node
/// where one is named. Waits until it is ready.
pub(crate) async fn web(lab: &Lab, namespace: &str, node: Option<&str>) -> Result<()> {
    let node = node.map_or_else(String::new, |node| format!("nodeName: {node}"));
    let manifest = format!(
        "apiVersion: v1
kind: Namespace
metadata: {{name: {namespace}}}
---
apiVersion: v1
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
    - mkdir /tmp/www && echo hello from {namespace} > /tmp/www/index.html && exec httpd -f -p 8080 -h /tmp/www
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
    lab.apply(&manifest).await?;
    lab.ready(namespace, "web").await
}

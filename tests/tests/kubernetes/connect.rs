//! Connecting, by a user with no more rights than that needs.

use anyhow::ensure;
use pmz_tests::lab::{Uses, on_cluster};

#[test]
fn a_user_with_the_four_rights_connects_and_reaches_services_by_name() {
    on_cluster("four_rights", Uses::Shared, async |lab| {
        lab.apply(
            "
apiVersion: v1
kind: Namespace
metadata: {name: hello}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: hello, labels: {app: web}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: web
    image: localhost/busybox:1
    command: [sh, -c, 'mkdir /tmp/www; echo hello from $HOSTNAME > /tmp/www/index.html; exec httpd -f -p 8080 -h /tmp/www']
    readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: hello}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
",
        )
        .await?;
        let kubeconfig = lab.developer("ann").await?;
        let laptop = lab.laptop("ann", &kubeconfig).await?;
        lab.ask(&[
            "wait",
            "-n",
            "hello",
            "--for=condition=Ready",
            "pod/web",
            "--timeout=25s",
        ])
        .await?;
        laptop.up(&[]).await?;
        let body = laptop.get("http://web.hello.svc/").await?;
        ensure!(body == "hello from web\n", "{body:?}");
        Ok(())
    });
}

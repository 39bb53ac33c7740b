//! The whole product on a real Kubernetes: API server, kubelets, kube-proxy, CoreDNS, containers.

mod connect;

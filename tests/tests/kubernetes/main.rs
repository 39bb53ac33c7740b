//! The whole product on a real Kubernetes: API server, kubelets, kube-proxy, CoreDNS, containers.

mod access;
mod clients;
mod connect;
mod servers;
mod staying;
mod traffic;
mod workload;

//! The whole product on a real Kubernetes: API server, kubelets, kube-proxy, CoreDNS, containers.
//!
//! | variable | what it gives |
//! |---|---|
//! | `PMZ_LAB` | a folder with the commands that boot a cluster on this machine: all tests run |
//! | `PMZ_TEST_PROGRAMS` | nginx, redis and h2load, by `fetch-programs` beside this file: the tests of load run |
//! | `KUBECONFIG_E2E` | an administrator's kubeconfig: what needs no more runs on that cluster, with an agent of its own in a namespace `pmz-e2e-…`, all of which goes again; `kubectl` must be there, and `PMZ_IMAGE` names the agent's image where it isn't the released one |
//!
//! Without the first and the last every test says that it is skipped.

mod access;
mod clients;
mod connect;
mod deploy;
mod dns;
mod networks;
mod overlap;
mod servers;
mod staying;
mod traffic;
mod workload;

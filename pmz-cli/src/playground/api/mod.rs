//! The stand-in for the Kubernetes API server: the protocol of Kubernetes 1.37 over TLS, as far as pmz, kube-rs
//! and a looking kubectl need it. Answers were compared with a real server's, errors word by word.
//!
//! There are: discovery, `/version`, health; namespaces, nodes, pods, services, endpointslices and servicecidrs
//! to get, list and watch; self-subject access reviews; `pods/portforward` ([`portforward`]). Who may do what is
//! decided by [`Binding`]s as RBAC does it. Writing is refused with 405 to whoever would be allowed to: objects
//! come from the playground, through [`Store`].
//!
//! Not there, though a real server has it: HTTP/2, protobuf (what `kubectl auth can-i` sends), YAML, tables for
//! kubectl's columns (it shows names and ages), aggregated discovery (clients fall back), client certificates.

mod discovery;
mod faults;
mod kubeconfig;
mod list;
mod objects;
mod pki;
mod portforward;
mod rbac;
mod request;
mod resources;
mod review;
mod run;
mod select;
mod server;
mod service;
mod status;
mod store;
mod sync;
mod watch;

pub use faults::Frozen;
pub use kubeconfig::ServiceAccountFiles;
pub use portforward::PodDialer;
pub use rbac::{Binding, Identity, Rule};
pub use server::{ApiServer, Config};
pub use store::{Store, StoreError};
pub use sync::{Follower, follow};

/// A server that can't be started, or not again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A certificate can't be made.
    #[error("the API server's certificate can't be made")]
    Certificate(#[from] rcgen::Error),
    /// TLS can't be set up.
    #[error("TLS for the API server can't be set up")]
    Tls(#[from] rustls::Error),
    /// The listener can't be used.
    #[error("the API server can't listen")]
    Listen(#[source] std::io::Error),
}

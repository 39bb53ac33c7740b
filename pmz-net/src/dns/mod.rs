//! Names of the cluster, answered on the developer's machine from the catalog's mirror.
//!
//! [`resolve`](resolve()) is the whole of what a name means, without I/O: it follows the "Kubernetes
//! DNS-Based Service Discovery" specification 1.1.0, and where that is silent, CoreDNS. [`DnsServer`]
//! puts it behind sockets and asks the machine's original name servers for everything else. Queries that were caught on
//! their way to another server ([`crate::capture`], [`DnsHandle::serve_captured`]) go on to that one where they are none
//! of ours, byte for byte.

mod captured;
mod cluster;
mod custom;
mod domain;
mod forward;
mod found;
#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod malformed;
mod name;
mod port;
mod reply;
mod resolve;
mod reverse;
mod server;
mod services;
mod table;
mod translate;
#[cfg(any(test, fuzzing))]
mod trial;
mod zone;

pub use captured::{CapturedQueries, Servers};
pub use domain::{Domain, DomainError};
/// Domain names of DNS, as [`Domain`] and [`DomainTable`] have them.
pub use hickory_proto::rr::Name;
pub use name::reverse_zones;
pub use port::{PortRef, PortRefError};
pub use resolve::{Answer, resolve};
pub use server::{Clients, DnsConfig, DnsHandle, DnsServer};
pub use table::{CustomDomain, DomainTable, SharedDomains};
pub use translate::Translate;
#[cfg(fuzzing)]
pub use trial::try_message;
pub use zone::{Zone, ZoneError};

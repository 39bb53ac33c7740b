//! Links, addresses and routes of this machine, by rtnetlink, and what a new route would collide with.
//!
//! [`conflicts`] decides and is pure; [`Netlink`] reads and changes what the kernel holds, in the network
//! namespace of the thread that opened it.

mod conflict;
mod connections;
mod netlink;

pub use conflict::{Conflict, ExistingRoute, Overlap, conflicts};
pub use connections::abort_connections;
pub use netlink::{Netlink, RouteError};

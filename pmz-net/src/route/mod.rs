//! Links, addresses and routes of this machine, by rtnetlink, and what a new route would collide with.
//!
//! [`Netlink`] reads and changes what the kernel holds, in the network namespace of the thread that opened
//! it. A [`Survey`] is what it reads; [`plan`] decides by it, and [`clashes`] finds, both without a system
//! call.

mod clash;
mod connections;
mod decode;
mod diversion;
mod netlink;
mod plan;
mod pool;
mod prefix;
mod rule;
mod survey;
mod surveyor;
mod tables;
mod walk;
mod wanted;

pub use clash::{Clash, Fate, Obstacle, Overlap};
pub use connections::abort_connections;
pub use diversion::{Diverted, SteerPolicy};
pub use netlink::{Netlink, RouteError};
pub use plan::{Found, MAX_ROUTES, OverlapPolicy, Plan, PlanError, Subject, Wishes, plan};
pub use pool::{BadPool, Pool, PoolWish};
pub use prefix::{BadPrefix, cut, is_everything, is_vast, outermost, parse_prefix};
pub use rule::{Rule, RuleAction};
pub use survey::{ExistingRoute, Hop, Lookup, OwnAddress, RouteKind, Survey};
pub use walk::clashes;
pub use wanted::{Kind, Wanted};

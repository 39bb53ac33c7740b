//! The agent's TCP and the kernel's in namespaces of their own, for tests and benches.

mod bed;
mod on_tun;
mod view;

pub use bed::{Bed, Setting, fresh_netns, sysctl};
pub use on_tun::NatOnTun;
pub use view::View;

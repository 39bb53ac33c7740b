//! What people see: colour, progress, tables. Data goes to stdout, talk to stderr.

mod agent;
mod names;
mod progress;
mod status;
mod style;
mod traffic;
mod units;

pub use agent::text as agent_text;
pub use names::{Names, only as names_only, text as names_text};
pub use progress::Progress;
pub use status::text as status_text;
pub use style::Style;
pub use traffic::text as traffic_text;

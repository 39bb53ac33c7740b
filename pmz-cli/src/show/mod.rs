//! What people see: colour, progress, tables. Data goes to stdout, talk to stderr.

mod progress;
mod status;
mod style;

pub use progress::Progress;
pub use status::text as status_text;
pub use style::Style;

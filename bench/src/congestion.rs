//! Which congestion controls are measured, and who has which.

use std::fmt;
use std::fs;

use anyhow::Result;

/// What the applications use where a row doesn't say otherwise: what a developer's machine has.
pub(crate) const APPLICATIONS: Congestion = Congestion::Cubic;
/// What most API servers' machines have.
pub(crate) const API_SERVER: Congestion = Congestion::Cubic;
/// What pmz asks for, for its own connections to the API server.
pub(crate) const ASKED: Congestion = Congestion::Bbr;

/// TCP's congestion control.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Congestion {
    /// What most machines have
    Cubic,
    /// What pmz asks for
    Bbr,
}

impl Congestion {
    /// The kernel's name for it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Cubic => "cubic",
            Self::Bbr => "bbr",
        }
    }

    /// Whether the kernel has it, as it is now.
    pub(crate) fn is_available(self) -> Result<bool> {
        let names = fs::read_to_string("/proc/sys/net/ipv4/tcp_available_congestion_control")?;
        Ok(names.split_whitespace().any(|name| name == self.name()))
    }
}

impl From<Congestion> for pmz_net::tcp::Congestion {
    fn from(congestion: Congestion) -> Self {
        match congestion {
            Congestion::Bbr => Self::Bbr,
            Congestion::Cubic => Self::Cubic,
        }
    }
}

impl fmt::Display for Congestion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

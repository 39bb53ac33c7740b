//! What this machine is, as far as figures depend on it.

use std::fs;

use serde::Serialize;

/// The machine.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) kernel: String,
    /// What sockets use that nobody set otherwise, such as the agent's to the pods.
    pub(crate) congestion: String,
    /// Processes that wanted to run, on average of the minute before.
    pub(crate) load: f64,
    /// Whether this program was built with optimisation.
    pub(crate) release: bool,
}

impl Machine {
    /// This one, now. What it doesn't tell stays empty.
    pub(crate) fn this() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let cpuinfo = read("/proc/cpuinfo");
        let cpu = cpuinfo
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
            .map(|(_, name)| name.trim().to_owned());
        let load = read("/proc/loadavg");
        Self {
            cpu: cpu.unwrap_or_default(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            congestion: read("/proc/sys/net/ipv4/tcp_congestion_control")
                .trim()
                .to_owned(),
            load: load
                .split_whitespace()
                .next()
                .and_then(|load| load.parse().ok())
                .unwrap_or(0.0),
            release: !cfg!(debug_assertions),
        }
    }
}

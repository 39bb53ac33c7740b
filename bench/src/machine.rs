//! What this machine is, as far as figures depend on it, and what is installed on it.

use std::fmt;
use std::fs;
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

/// Programs that are measured or used, and how they are asked for their version.
const PROGRAMS: [(&str, &[&str]); 7] = [
    ("wireguard-go", &["--version"]),
    ("boringtun-cli", &["--version"]),
    ("gotatun", &["--version"]),
    ("iperf3", &["--version"]),
    ("kubectl", &["version", "--client"]),
    ("telepresence", &["version"]),
    ("kubevpn", &["version"]),
];

/// The machine.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    /// Seconds since 1970, at the start.
    pub(crate) time: u64,
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
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            time: now.map_or(0, |now| now.as_secs()),
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

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}, {} cores, Linux {}, default congestion control {}, load {} at the start{}",
            self.cpu,
            self.cores,
            self.kernel,
            self.congestion,
            self.load,
            if self.release {
                ""
            } else {
                "; NO RELEASE BUILD"
            }
        )
    }
}

/// What a program says of itself.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Version {
    pub(crate) program: &'static str,
    /// None where it is not installed.
    pub(crate) version: Option<String>,
}

impl Version {
    /// pmz's own, and those of all programs that a run can make use of.
    pub(crate) fn all() -> Vec<Self> {
        let pmz = Self {
            program: "pmz",
            version: Some(env!("CARGO_PKG_VERSION").into()),
        };
        let others = PROGRAMS.map(|(program, arguments)| Self {
            program,
            version: asked(program, arguments),
        });
        [pmz].into_iter().chain(others).collect()
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let version = self.version.as_deref().unwrap_or("not installed");
        write!(f, "{}: {version}", self.program)
    }
}

/// The first line in which a program tells a number; none where there is no such program.
fn asked(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .ok()?;
    let said = String::from_utf8_lossy(&output.stdout);
    Some(with_a_number(&said).unwrap_or_else(|| "of an unknown version".into()))
}

fn with_a_number(said: &str) -> Option<String> {
    let mut lines = said.lines().map(str::trim);
    let number = |line: &&str| line.chars().any(|c| c.is_ascii_digit());
    lines.find(number).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_the_first_line_with_a_number_below_whatever_greets() {
        let go = "┌──────┐\n│ Running is not required │\n└──────┘\nwireguard-go v0.0.20250522\n\nUserspace 64";
        assert_eq!(
            with_a_number(go).as_deref(),
            Some("wireguard-go v0.0.20250522")
        );
        assert_eq!(with_a_number("no number"), None);
    }

    #[test]
    fn a_program_that_is_not_there_has_no_version() {
        assert_eq!(asked("pmz-has-no-such-program", &[]), None);
        assert!(Version::all()[0].version.is_some());
    }
}

//! What went wrong, for people and for scripts: one paragraph with the cause and the next step, and an exit
//! code. A failure travels from the daemon to the command that waits for it.

pub(crate) mod unroutable;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::helper::{HelperError, Refusal};

/// pmz's exit codes, beside 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum ExitCode {
    /// Anything without a code of its own.
    General = 1,
    /// The command line makes no sense, or names what does not exist.
    Usage = 2,
    /// pmz is not running.
    NotRunning = 3,
    /// A right is missing, on this machine or in the cluster.
    Permission = 4,
    /// The cluster does not answer.
    Unreachable = 5,
    /// The cluster answers, but has no agent that can serve.
    NoAgent = 6,
    /// Ctrl-C, as shells have it.
    Interrupted = 130,
}

/// A failure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// For scripts.
    pub code: ExitCode,
    /// What failed, on what, and why: a sentence.
    pub cause: String,
    /// What to do next: a sentence.
    pub next: String,
    /// What pmz itself could do about it, if it is asked to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offer: Option<Offer>,
}

/// A remedy that takes the user's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Offer {
    /// Deploy an agent.
    Deploy,
}

impl Failure {
    /// A failure out of its two sentences; full stops are added where they are missing.
    pub fn new(code: ExitCode, cause: impl Into<String>, next: impl Into<String>) -> Self {
        Self {
            code,
            cause: cause.into(),
            next: next.into(),
            offer: None,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // One paragraph, also where a server's message came in lines.
        let mut first = true;
        for sentence in [&self.cause, &self.next] {
            let sentence = sentence.split_whitespace().collect::<Vec<_>>().join(" ");
            if sentence.is_empty() {
                continue;
            }
            let stop = if sentence.ends_with(['.', '!', '?']) {
                ""
            } else {
                "."
            };
            write!(f, "{}{sentence}{stop}", if first { "" } else { " " })?;
            first = false;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}

impl From<HelperError> for Failure {
    fn from(error: HelperError) -> Self {
        match error {
            HelperError::Refused(refusal) => refusal.into(),
            other => Self::new(
                ExitCode::General,
                capital(&other.to_string()),
                "Run `pmz up` again; if it happens again, `pmz up --foreground -v` shows why",
            ),
        }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let cause = capital(&refusal.to_string());
        match refusal {
            Refusal::NoTun => Self::new(
                ExitCode::General,
                "This machine has no TUN driver: /dev/net/tun is missing",
                "Load it with `sudo modprobe tun`; in a container, start it with \
                 `--device /dev/net/tun --cap-add NET_ADMIN`",
            ),
            Refusal::Permission { .. } => Self::new(
                ExitCode::Permission,
                cause,
                "pmz needs root, or CAP_NET_ADMIN in a container (`--cap-add NET_ADMIN`)",
            ),
            Refusal::NoEbpf { .. } => Self::new(
                ExitCode::General,
                cause,
                "`pmz up --ebpf off` does without; `pmz status` then shows what is missing",
            ),
            Refusal::NoResolved { .. } => Self::new(
                ExitCode::General,
                cause,
                "`pmz up --dns auto` takes another way; `pmz status` shows which",
            ),
            Refusal::Unroutable { why } => unroutable::failure(&why),
            Refusal::Running { .. } => Self::new(
                ExitCode::General,
                cause,
                "`pmz status` shows it, `pmz down` (as the same user, or as root) ends it",
            ),
            Refusal::Invalid { .. } => Self::new(
                ExitCode::General,
                cause,
                "The helper and the daemon are of different builds, or the agent gave addresses that no \
                 tunnel has: use the same version of pmz everywhere",
            ),
            Refusal::Failed { .. } => Self::new(
                ExitCode::General,
                cause,
                "`pmz up --foreground -v` shows more",
            ),
        }
    }
}

/// The text with its first letter in upper case.
pub(crate) fn capital(text: &str) -> String {
    let mut letters = text.chars();
    match letters.next() {
        Some(first) => first.to_uppercase().chain(letters).collect(),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_one_paragraph_whatever_a_server_says() {
        let failure = Failure::new(ExitCode::General, "The server says:\n  no\n", "Try again.");
        assert_eq!(failure.to_string(), "The server says: no. Try again.");
    }

    #[test]
    fn a_machine_without_tun_gets_the_command_that_helps() {
        let text = Failure::from(Refusal::NoTun).to_string();
        assert!(text.contains("/dev/net/tun is missing"), "{text}");
        assert!(text.contains("sudo modprobe tun"), "{text}");
    }

    #[test]
    fn a_missing_right_names_the_capability() {
        let failure = Failure::from(Refusal::Permission {
            what: "open a TUN".to_owned(),
        });
        assert_eq!(failure.code, ExitCode::Permission);
        let text = failure.to_string();
        assert!(text.starts_with("No permission to open a TUN."), "{text}");
        assert!(text.contains("CAP_NET_ADMIN"), "{text}");
    }
}

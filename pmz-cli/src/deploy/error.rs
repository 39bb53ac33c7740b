//! Why an agent could not be deployed or deleted.

use std::time::Duration;

use crate::cluster::ClusterError;
use crate::failure::{ExitCode, Failure, capital};

/// Why an option's value makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadOption(pub(super) String);

/// See the variants.
#[derive(Debug, thiserror::Error)]
pub enum DeployError {
    /// An option's value makes no sense.
    #[error(transparent)]
    Option(#[from] BadOption),
    /// The cluster said no, or nothing.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// Somebody else has set fields that the manifests set, too.
    #[error("{object} has been changed by others: {}", .conflicts.join(", "))]
    Conflict {
        /// Which object.
        object: String,
        /// Field and who set it, each.
        conflicts: Vec<String>,
    },
    /// The namespace is on its way out.
    #[error("the namespace {namespace:?} is being deleted")]
    Terminating {
        /// Which.
        namespace: String,
    },
    /// Waiting would not help.
    #[error("the agent can't start: {what}")]
    CantStart {
        /// Why.
        what: String,
        /// What to do.
        next: String,
    },
    /// Deleting takes longer than was waited.
    #[error("{object} is still being deleted after {} s", .within.as_secs())]
    StillThere {
        /// Which object.
        object: String,
        /// How long was waited.
        within: Duration,
        /// The agent's namespace.
        namespace: String,
    },
    /// It took too long.
    #[error("the agent was not ready within {} s: {state}", .within.as_secs())]
    NotReady {
        /// How long was waited.
        within: Duration,
        /// How far it got, and what is in its way.
        state: String,
        /// What to do.
        next: String,
    },
}

impl From<DeployError> for Failure {
    fn from(error: DeployError) -> Self {
        let cause = capital(&error.to_string());
        match error {
            DeployError::Cluster(error) => error.into(),
            DeployError::Option(_) => Self::new(ExitCode::Usage, cause, ""),
            DeployError::Conflict { .. } => Self::new(
                ExitCode::General,
                cause,
                "Give the same values as options, or take these fields over with `pmz agent deploy \
                 --force-conflicts`",
            ),
            DeployError::Terminating { namespace } => Self::new(
                ExitCode::General,
                cause,
                format!(
                    "Wait until `kubectl get namespace {namespace}` finds nothing, and try again"
                ),
            ),
            DeployError::StillThere { namespace, .. } => Self::new(
                ExitCode::General,
                cause,
                format!(
                    "`kubectl get all -n {namespace}` shows what it waits for; then `pmz agent delete` again"
                ),
            ),
            DeployError::CantStart { next, .. } | DeployError::NotReady { next, .. } => {
                Self::new(ExitCode::NoAgent, cause, next)
            }
        }
    }
}

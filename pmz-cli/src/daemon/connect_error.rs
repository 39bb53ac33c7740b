//! Why there is no session.

use crate::cluster::ClusterError;
use crate::failure::Failure;
use crate::helper::HelperError;

/// Why an attempt failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectError {
    /// For the user.
    pub failure: Failure,
    /// Whether trying again may work with nothing changed. A session that was lost is tried again whatever
    /// the cause, only more slowly where this is false.
    pub transient: bool,
}

impl From<Failure> for ConnectError {
    /// A failure that trying again won't mend.
    fn from(failure: Failure) -> Self {
        Self {
            failure,
            transient: false,
        }
    }
}

impl From<HelperError> for ConnectError {
    fn from(error: HelperError) -> Self {
        Failure::from(error).into()
    }
}

impl From<ClusterError> for ConnectError {
    fn from(error: ClusterError) -> Self {
        let transient = error.is_transient();
        Self {
            failure: error.into(),
            transient,
        }
    }
}

//! What a connection that is not made tells the user.

use super::choices::CarrierChoice;
use super::connect_error::ConnectError;
use super::options::UpOptions;
use super::running::Running;
use crate::cluster::ClusterError;
use crate::failure::{ExitCode, Failure};
use crate::session::OpenError;

/// How long a carrier may take to prove itself.
pub(super) const CARRIER_WITHIN: std::time::Duration = std::time::Duration::from_secs(20);

pub(super) fn open_failure(error: OpenError) -> ConnectError {
    match error {
        OpenError::Dial(error) => match error.downcast::<ClusterError>() {
            Ok(error) => error.into(),
            Err(error) => ConnectError {
                failure: Failure::new(
                    ExitCode::Unreachable,
                    format!("The agent could not be reached: {error:#}"),
                    "Run `pmz up` again",
                ),
                transient: true,
            },
        },
        OpenError::Refused { agent, refusal } => Failure::new(
            ExitCode::NoAgent,
            format!("The agent {agent} refused: {}", refusal.message),
            "",
        )
        .into(),
        OpenError::Codec { .. } | OpenError::Closed(_) | OpenError::Mute { .. } => ConnectError {
            failure: Failure::new(
                ExitCode::NoAgent,
                error.to_string(),
                "Look at the agent's log: `kubectl -n pmz logs -l app.kubernetes.io/name=pmz-agent`",
            ),
            transient: true,
        },
    }
}

pub(super) fn no_carrier(running: &Running, options: &UpOptions) -> ConnectError {
    let fault = running.carriers.lock().stream_fault.clone();
    let why = fault
        .map(|fault| format!(" (a stream: {fault})"))
        .unwrap_or_default();
    let next = match options.carrier {
        CarrierChoice::Udp => {
            "UDP may be blocked on the way: run `pmz up` without `--transport udp`"
        }
        CarrierChoice::Auto | CarrierChoice::Stream => {
            "Look at the agent's log: `kubectl -n pmz logs -l app.kubernetes.io/name=pmz-agent`"
        }
    };
    let within = CARRIER_WITHIN.as_secs();
    let cause = format!("No packet came back through the tunnel within {within} s{why}");
    ConnectError {
        failure: Failure::new(ExitCode::Unreachable, cause, next),
        transient: true,
    }
}

pub(super) async fn ended(running: &mut Running) -> ConnectError {
    let why = match (&mut running.task).await {
        Ok(Err(error)) => format!("{error:#}"),
        Ok(Ok(())) => "it was told to end".to_owned(),
        Err(error) => error.to_string(),
    };
    let cause = format!("The session ended: {why}");
    ConnectError {
        failure: Failure::new(ExitCode::General, cause, "Run `pmz up` again"),
        transient: true,
    }
}

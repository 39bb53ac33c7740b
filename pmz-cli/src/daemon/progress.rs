//! What the daemon knows of its session from the changes that it is told.

use std::sync::Arc;

use pmz_net::carrier::distance::Distance;
use pmz_net::catalog::SharedMirror;
use pmz_net::session::Welcome;
use tokio::sync::watch;

use crate::session::{Change, Reporter};

/// What is known of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Progress {
    /// Sessions with agents so far.
    pub(super) opened: u64,
    pub(super) welcome: Option<Arc<Welcome>>,
    /// A carrier has proven itself in the present session.
    pub(super) carried: bool,
    /// How far away the agent is, as packets go.
    pub(super) distance: Distance,
    /// Why the control connection is gone, while it is.
    pub(super) control_down: Option<String>,
}

/// Keeps the progress up to date, and the mirror stale while names would lead nowhere.
pub(super) fn reporter(changes: watch::Sender<Progress>, mirror: SharedMirror) -> Reporter {
    Box::new(move |change| {
        changes.send_modify(|progress| match change {
            Change::Opened(welcome) => {
                progress.opened += 1;
                progress.carried = false;
                progress.welcome = Some(Arc::new(*welcome));
                if progress.opened > 1 {
                    mirror.mark_stale();
                }
            }
            Change::Carrier(carrier) => {
                tracing::info!(?carrier, "packets go this way now");
                progress.carried = true;
                mirror.mark_fresh();
            }
            Change::Distance(distance) => progress.distance = distance,
            Change::Networks(networks) => {
                if let Some(welcome) = &mut progress.welcome {
                    Arc::make_mut(welcome).networks = networks;
                }
            }
            Change::Lost => {
                progress.carried = false;
                mirror.mark_stale();
            }
            Change::Control(down) => {
                if let Some(cause) = &down {
                    tracing::info!(cause, "the control connection is gone; it is opened again");
                    progress.control_down = down;
                }
            }
        });
    })
}

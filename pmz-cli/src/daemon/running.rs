//! What stands between the daemon's start and its end, whichever agent is at the other side.

use std::sync::Arc;

use pmz_net::carrier::distance::Distance;
use pmz_net::catalog::SharedMirror;
use pmz_net::session::Welcome;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::attachment::Attachment;
use super::congestion;
use super::guarding;
use super::outside::OutsideName;
use super::status::SteeringStatus;
use super::steering::Steering;
use crate::session::{self, Change, Link};

/// What is known of the session from its changes.
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

/// Everything that stands once a first session stood.
pub(super) struct Running {
    pub(super) link: Arc<Link>,
    pub(super) mirror: SharedMirror,
    pub(super) carriers: Arc<parking_lot::Mutex<session::CarrierState>>,
    pub(super) progress: watch::Receiver<Progress>,
    pub(super) device: String,
    pub(super) attachment: Arc<Attachment>,
    /// Where names are led to us.
    pub(super) outside: Option<OutsideName>,
    /// Whether names came out as they should once.
    pub(super) names_proven: bool,
    /// While eBPF programs steer.
    pub(super) steering: Option<Arc<Steering>>,
    pub(super) steering_status: SteeringStatus,
    /// What the guard's task shows.
    pub(super) guard: guarding::Shown,
    /// What connections use, as the task that decides it shows.
    pub(super) congestion: congestion::Shown,
    /// Keep what hangs on the TUN up to date.
    pub(super) _followers: Vec<AbortOnDropHandle<()>>,
    pub(super) server: String,
    pub(super) context: String,
    pub(super) namespace: String,
    pub(super) stop: CancellationToken,
    pub(super) task: JoinHandle<anyhow::Result<()>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Keeps the progress up to date, and the mirror stale while names would lead nowhere.
pub(super) fn reporter(
    changes: watch::Sender<Progress>,
    mirror: SharedMirror,
) -> session::Reporter {
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

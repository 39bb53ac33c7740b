//! What stands between the daemon's start and its end, whichever agent is at the other side.

use std::sync::Arc;

use pmz_net::catalog::SharedMirror;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::attachment::Attachment;
use super::congestion;
use super::guarding;
use super::outside::OutsideName;
use super::progress::Progress;
use super::status::SteeringStatus;
use super::steering::Steering;
use crate::session::{CarrierState, Link};

/// Everything that stands once a first session stood.
pub(super) struct Running {
    pub(super) link: Arc<Link>,
    pub(super) mirror: SharedMirror,
    pub(super) carriers: Arc<parking_lot::Mutex<CarrierState>>,
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

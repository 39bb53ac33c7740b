//! What TCP connections into the tunnel use: BBR while their packets take a long way by UDP, else what the machine has.
//!
//! By UDP an application's own TCP meets the losses of the way, and Cubic, which most machines have, takes each for
//! congestion. On a local network nothing is lost that would be worth what BBR's pacing costs. By streams nothing is lost
//! at all, and Cubic heeds the queue before the streams, which BBR does not.

use std::sync::Arc;

use parking_lot::Mutex;
use pmz_net::carrier::distance::Distance;
use tokio::sync::watch;

use super::progress::Progress;
use crate::helper::{HelperClient, HelperError};

/// Keeps up its rate where packets are lost.
const FAR: &str = "bbr";

/// What the routes have, where it is not the machine's own; shared with whoever shows it.
pub(super) type Shown = Arc<Mutex<Option<String>>>;

/// Follows the distance to the agent for as long as it is polled. The tunnel works without it all the same: what is in the
/// way is told in the log once.
pub(super) async fn run(
    helper: HelperClient,
    mut progress: watch::Receiver<Progress>,
    shown: Shown,
) {
    // The helper begins without one.
    let mut told = Distance::Near;
    let mut missing = false;
    loop {
        let distance = progress.borrow_and_update().distance;
        if distance != told {
            told = distance;
            let wanted = (distance == Distance::Far).then_some(FAR);
            match helper.set_route_congestion(wanted).await {
                Ok(has) => {
                    if has.as_deref() == wanted {
                        tracing::info!(?distance, congestion = ?has, "new connections use this");
                    } else if !missing {
                        missing = true;
                        tracing::info!(
                            wanted,
                            "this kernel does not have it: uploads suffer losses"
                        );
                    }
                    *shown.lock() = has;
                }
                Err(HelperError::Refused(why)) => {
                    tracing::warn!(%why, "connections keep the congestion control that they had");
                }
                // Without the helper everything ends.
                Err(_) => return,
            }
        }
        if progress.changed().await.is_err() {
            return;
        }
    }
}

//! Keeps the guard where the way to the agent is by UDP, while there is such a way.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pmz_net::carrier::choice::Carrier;

use super::status::GuardStatus;
use crate::helper::{HelperClient, HelperError};
use crate::session::{CarrierState, Link};

/// How often the way is looked at: as often as the paths are probed.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// What `status` tells of the guard; shared with whoever shows it.
pub(super) type Shown = Arc<Mutex<Option<GuardStatus>>>;

/// Follows the carrier for as long as it is polled. Without a guard the tunnel works all the same, so that what is in
/// the way is shown, and told in the log once.
pub(super) async fn run(
    helper: HelperClient,
    link: Arc<Link>,
    carriers: Arc<Mutex<CarrierState>>,
    shown: Shown,
) {
    let mut ticks = tokio::time::interval(LOOK_AGAIN);
    loop {
        ticks.tick().await;
        let Some((toward, peer)) = way(&link, &carriers) else {
            continue;
        };
        let status = match helper.guard(toward, peer).await {
            Ok(guarded) => GuardStatus {
                device: guarded.device,
                missing: None,
                counts: guarded.report,
            },
            Err(HelperError::Refused(why)) => GuardStatus {
                missing: Some(why.to_string()),
                ..GuardStatus::default()
            },
            // Without the helper everything ends.
            Err(_) => return,
        };
        let before = shown.lock().replace(status.clone());
        if let Some(why) = &status.missing
            && before.is_none_or(|before| before.missing != status.missing)
        {
            tracing::warn!(why, "the tunnel's UDP port is not guarded");
        }
    }
}

/// The agent's address by UDP, and its number as a peer.
fn way(link: &Link, carriers: &Mutex<CarrierState>) -> Option<(IpAddr, u32)> {
    let Some(Carrier::Udp(to)) = carriers.lock().carrier else {
        return None;
    };
    Some((to.ip().to_canonical(), link.peer()?.id().0))
}

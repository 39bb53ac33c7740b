//! Keeps the guard before the UDP socket, once the way to the agent is by UDP.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pmz_net::carrier::choice::Carrier;

use super::status::GuardStatus;
use crate::helper::{HelperClient, HelperError};
use crate::session::{CarrierState, Link};

/// How often the guard is told of the peer, and asked what it has counted: as often as the paths are probed.
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
        let Some(peer) = peer(&link, &carriers) else {
            continue;
        };
        let status = match helper.guard(peer).await {
            Ok(counts) => GuardStatus {
                missing: None,
                counts,
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

/// The agent's number as a peer, where packets go by UDP.
fn peer(link: &Link, carriers: &Mutex<CarrierState>) -> Option<u32> {
    let Some(Carrier::Udp(_)) = carriers.lock().carrier else {
        return None;
    };
    Some(link.peer()?.id().0)
}

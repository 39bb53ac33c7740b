//! Keeps packets diverted that something on this machine leads elsewhere, and follows them where they go.

use std::time::Duration;

use ipnet::IpNet;
use parking_lot::Mutex;
use pmz_net::steer::{DivertedDevice, LEASE};

use crate::helper::{HelperClient, HelperError};

/// How often the kernel is asked where packets go, and the filters' lease renewed: one that is missed does no harm.
const LOOK_AGAIN: Duration = Duration::from_millis(1500);
const _: () = assert!(LOOK_AGAIN.as_millis() * 3 < LEASE.as_millis());

/// What is looked for, and the devices that are known ahead.
type Places = (Vec<IpNet>, Vec<String>);

/// Where packets are taken over.
#[derive(Debug)]
pub(super) struct Diverting {
    helper: HelperClient,
    /// Held while the helper is asked, so that what it was told last is what holds.
    places: tokio::sync::Mutex<Option<Places>>,
    shown: Mutex<Vec<DivertedDevice>>,
}

impl Diverting {
    /// Nowhere yet.
    pub(super) fn new(helper: HelperClient) -> Self {
        Self {
            helper,
            places: tokio::sync::Mutex::default(),
            shown: Mutex::default(),
        }
    }

    /// What `status` tells of it.
    pub(super) fn shown(&self) -> Vec<DivertedDevice> {
        self.shown.lock().clone()
    }

    /// Diverts there from now on; nowhere, where there are no places.
    ///
    /// # Errors
    /// Where the helper can't.
    pub(super) async fn lead(&self, places: Option<Places>) -> Result<(), HelperError> {
        let mut held = self.places.lock().await;
        let had = std::mem::replace(&mut *held, places);
        match &*held {
            Some((prefixes, devices)) => self.divert(prefixes, devices).await,
            None if had.is_some() => self.divert(&[], &[]).await,
            None => Ok(()),
        }
    }

    /// Follows for as long as it is polled.
    pub(super) async fn run(&self) {
        let mut ticks = tokio::time::interval(LOOK_AGAIN);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut failing = false;
        loop {
            ticks.tick().await;
            let held = self.places.lock().await;
            let Some((prefixes, devices)) = &*held else {
                continue;
            };
            match self.divert(prefixes, devices).await {
                Ok(()) => failing = false,
                Err(HelperError::Refused(why)) if !failing => {
                    tracing::warn!(%why, "packets that go elsewhere are not followed");
                    failing = true;
                }
                Err(HelperError::Refused(_)) => {}
                // Without the helper everything ends.
                Err(_) => return,
            }
        }
    }

    async fn divert(&self, prefixes: &[IpNet], devices: &[String]) -> Result<(), HelperError> {
        let found = self.helper.divert(prefixes, devices).await?;
        let before = std::mem::replace(&mut *self.shown.lock(), found.clone());
        for place in found.iter().filter(|place| !before.contains(place)) {
            let device = &place.device;
            match &place.missing {
                None => tracing::info!(device, "packets to the cluster are taken over there"),
                Some(why) => {
                    tracing::warn!(
                        device,
                        why,
                        "packets to the cluster are not taken over there"
                    );
                }
            }
        }
        Ok(())
    }
}

//! Keeps the eBPF program's knowledge of single addresses up to date, and hands out virtual ones.
//!
//! A name leads to an address only once the program knows the address: what it does not know of a service's
//! prefix it refuses.

mod targets;

use std::net::IpAddr;
use std::time::Instant;

use ipnet::IpNet;
use pmz_net::catalog::{MirrorState, SharedMirror};
use pmz_net::dns::Translate;
use pmz_net::remap::{AddressMap, KEPT, NoAddress, Used};
use pmz_net::steer::{PrefixKind, SteerReport, SteeredPrefix, TargetTraffic};
use targets::{Targets, changes, wanted};

use crate::helper::{HelperClient, HelperError};

/// Changes that go to the helper in one message.
const BATCH: usize = 256;

/// What the program knows, and what it is to know.
#[derive(Debug)]
pub(super) struct Steering {
    helper: HelperClient,
    mirror: SharedMirror,
    addresses: parking_lot::Mutex<Addresses>,
    /// Held while the program is told something.
    told: tokio::sync::Mutex<Told>,
}

/// Looked at for each name: nobody waits with this lock held.
#[derive(Debug)]
struct Addresses {
    map: AddressMap,
    /// Prefixes in which the program refuses what it does not know.
    services: Vec<IpNet>,
    known: Targets,
}

#[derive(Debug, Default)]
struct Told {
    prefixes: Vec<SteeredPrefix>,
    complete: bool,
}

impl Steering {
    /// For a program that knows nothing yet.
    pub(super) fn new(helper: HelperClient, mirror: SharedMirror) -> Self {
        Self {
            helper,
            mirror,
            addresses: parking_lot::Mutex::new(Addresses {
                map: AddressMap::default(),
                services: Vec::new(),
                known: Targets::new(),
            }),
            told: tokio::sync::Mutex::default(),
        }
    }

    /// What goes into the tunnel from now on, and what of the cluster's own prefixes gets virtual addresses, out of
    /// which pool.
    ///
    /// # Errors
    /// Where the helper can't.
    pub(super) async fn lead(
        &self,
        prefixes: Vec<SteeredPrefix>,
        remapped: Vec<IpNet>,
        pool: &[IpNet],
    ) -> Result<(), HelperError> {
        let mut told = self.told.lock().await;
        {
            let mut addresses = self.addresses.lock();
            addresses.map.set_remapped(remapped);
            pool.iter()
                .for_each(|prefix| addresses.map.add_pool(prefix));
            let services = prefixes.iter().filter(|it| it.kind == PrefixKind::Services);
            addresses.services = services.map(|it| it.prefix).collect();
        }
        self.update(&mut told).await?;
        if told.prefixes != prefixes {
            self.helper.steer_prefixes(&prefixes).await?;
            told.prefixes = prefixes;
        }
        Ok(())
    }

    /// What went to and came from each address, and what the programs counted altogether.
    ///
    /// # Errors
    /// Where the helper can't.
    pub(super) async fn counted(&self) -> Result<(Vec<TargetTraffic>, SteerReport), HelperError> {
        Ok((
            self.helper.traffic().await?,
            self.helper.steer_report().await?,
        ))
    }

    /// The cluster's address behind a virtual one.
    pub(super) fn cluster_address(&self, address: IpAddr) -> Option<IpAddr> {
        self.addresses.lock().map.real(address)
    }

    /// What this machine uses for an address of the cluster, where that is decided. Decides nothing.
    pub(super) fn peek(&self, real: IpAddr) -> Option<IpAddr> {
        match self.addresses.lock().map.peek(real) {
            Used::Itself => Some(real),
            Used::Virtual(address) => Some(address),
            Used::None => None,
        }
    }

    /// The services that it follows.
    pub(super) fn mirror(&self) -> &SharedMirror {
        &self.mirror
    }

    /// Follows the mirror for as long as it is polled.
    pub(super) async fn run(&self) {
        let mut changes = self.mirror.subscribe();
        loop {
            if let Err(error) = self.update(&mut *self.told.lock().await).await {
                tracing::warn!(%error, "the steering program does not follow the cluster's services");
            }
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// Tells the program what it does not know yet.
    async fn update(&self, told: &mut Told) -> Result<(), HelperError> {
        let fresh = self.mirror.state() == MirrorState::Fresh;
        if told.complete && !fresh {
            told.complete = false;
            self.helper.steer_complete(false).await?;
        }
        let (changes, wanted) = {
            let view = self.mirror.read();
            let addresses = self.addresses.lock();
            let wanted = wanted(&view, &addresses.map);
            (changes(&addresses.known, &wanted), wanted)
        };
        if !changes.is_empty() {
            for batch in changes.chunks(BATCH) {
                self.helper.steer_targets(batch).await?;
            }
            self.addresses.lock().known = wanted;
        }
        if fresh && !told.complete {
            self.helper.steer_complete(true).await?;
            told.complete = true;
        }
        Ok(())
    }

    /// Hands out a virtual address to each that needs one.
    async fn assign(&self, real: &[IpAddr]) {
        let now = Instant::now();
        let exhausted = {
            let map = &mut self.addresses.lock().map;
            let nobody_makes_way = |_| true;
            let needy = real.iter().filter(|real| map.peek(**real) == Used::None);
            let needy: Vec<IpAddr> = needy.copied().collect();
            let tried = needy
                .into_iter()
                .map(|real| (real, map.assign(now, real, nobody_makes_way)));
            let exhausted = tried.filter(|(_, got)| matches!(got, Err(NoAddress::Exhausted(_))));
            exhausted.map(|(real, _)| real).collect::<Vec<_>>()
        };
        if exhausted.is_empty() {
            return;
        }
        let in_use = match self.helper.traffic().await {
            Ok(traffic) => traffic,
            Err(error) => {
                tracing::warn!(%error, "no virtual address is free, and none is known to be out of use");
                return;
            }
        };
        let recent = in_use
            .iter()
            .filter(|it| u128::from(it.idle_ns) < KEPT.as_nanos());
        let recent: std::collections::HashSet<IpAddr> = recent.map(|it| it.address).collect();
        let map = &mut self.addresses.lock().map;
        for real in exhausted {
            match map.assign(now, real, |address| recent.contains(&address)) {
                Ok(assigned) => tracing::info!(%real, ?assigned, "a virtual address changes hands"),
                Err(error) => tracing::warn!(%real, %error, "names lead nowhere"),
            }
        }
    }
}

impl Addresses {
    /// What a name may lead to, where the program knows it.
    fn ready(&mut self, now: Instant, real: IpAddr) -> Option<IpAddr> {
        let address = match self.map.used(now, real) {
            Used::Itself if !self.services.iter().any(|net| net.contains(&real)) => {
                return Some(real);
            }
            Used::Itself => real,
            Used::Virtual(address) => address,
            Used::None => return None,
        };
        self.known.contains_key(&address).then_some(address)
    }
}

#[async_trait::async_trait]
impl Translate for Steering {
    async fn used(&self, real: &[IpAddr]) -> Vec<Option<IpAddr>> {
        let ready = || -> Vec<Option<IpAddr>> {
            let mut addresses = self.addresses.lock();
            let now = Instant::now();
            real.iter()
                .map(|real| addresses.ready(now, *real))
                .collect()
        };
        let found = ready();
        if found.iter().all(Option::is_some) {
            return found;
        }
        let mut told = self.told.lock().await;
        self.assign(real).await;
        if let Err(error) = self.update(&mut told).await {
            tracing::warn!(%error, "the steering program does not learn of an address");
        }
        ready()
    }

    fn real(&self, used: IpAddr) -> Option<IpAddr> {
        self.cluster_address(used)
    }
}

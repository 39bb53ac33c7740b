//! systemd-resolved asks our server, for the domains that the TUN's link has with it.

use std::fmt::Display;
use std::future::pending;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use pmz_net::dns::{SharedDomains, reverse_zones};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use super::server::Server;
use crate::helper::{HelperClient, HelperError, MAX_DOMAINS, nameservers_of};

/// The name servers that systemd-resolved knows, all links' and its own, for programs that would rather ask these
/// (systemd-resolved(8)).
const SERVERS: &str = "/run/systemd/resolve/resolv.conf";

/// A change that is refused is tried so often, for some three minutes; then it waits for the next one.
const TRIES: u32 = 12;
/// Between two tries, the first time and doubled from there on.
const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// The link's domains, kept as the user's change. They are forgotten with the TUN.
pub(super) struct Linked {
    following: JoinHandle<()>,
}

impl Drop for Linked {
    fn drop(&mut self) {
        self.following.abort();
    }
}

impl Linked {
    /// Has systemd-resolved ask the server for what is ours.
    pub(super) async fn begin(server: &Server<'_>) -> Result<Self, HelperError> {
        let link = Link {
            helper: server.helper.clone(),
            address: server.address,
            // What is the cluster's is ours, and so is what leads back from its addresses.
            routed: std::iter::once(server.led.domain.clone())
                .chain(server.led.reverse.iter().flat_map(reverse_zones).map(plain))
                .collect(),
            search: server.led.search.clone(),
            domains: server.led.domains.clone(),
        };
        let mut changes = link.domains.subscribe();
        changes.borrow_and_update();
        link.lead().await?;
        // Names below a domain that the user led elsewhere, and what external names are aliases of.
        server.handle.set_upstream(others(server.address));
        let following = tokio::spawn(follow(changes, async move || link.lead().await));
        Ok(Self { following })
    }
}

/// Leads names anew at each change. What is refused is tried again, less and less often: systemd-resolved, or the bus, may
/// be starting anew.
async fn follow<T, E: Display>(
    mut changes: watch::Receiver<T>,
    mut lead: impl AsyncFnMut() -> Result<(), E>,
) {
    let mut refusals = Refusals::default();
    let mut due = None;
    loop {
        let again = async {
            match due {
                Some(due) => sleep_until(due).await,
                None => pending().await,
            }
        };
        tokio::select! {
            changed = changes.changed() => {
                if changed.is_err() {
                    return;
                }
                refusals = Refusals::default();
            }
            () = again => {}
        }
        changes.borrow_and_update();
        due = match lead().await {
            Ok(()) => None,
            Err(error) => {
                let wait = refusals.next();
                tracing::warn!(%error, ?wait, "systemd-resolved does not follow a change of domains");
                wait.map(|wait| Instant::now() + wait)
            }
        };
    }
}

/// How often one change was refused.
#[derive(Default)]
struct Refusals(u32);

impl Refusals {
    /// One more: how long to wait before the change is tried again; `None` where it was refused often enough.
    fn next(&mut self) -> Option<Duration> {
        let wait = FIRST_WAIT.saturating_mul(2u32.saturating_pow(self.0));
        self.0 += 1;
        (self.0 < TRIES).then_some(wait.min(LONGEST_WAIT))
    }
}

struct Link {
    helper: HelperClient,
    address: IpAddr,
    routed: Vec<String>,
    search: Vec<String>,
    domains: SharedDomains,
}

impl Link {
    async fn lead(&self) -> Result<(), HelperError> {
        // The cluster's own first: of too many, the user's last ones are left out.
        let domains = self.domains.get().routed().into_iter().map(plain);
        let mut routed = self.routed.clone();
        routed.extend(domains.filter(|it| !it.is_empty()));
        if routed.len() > MAX_DOMAINS {
            tracing::warn!(
                domains = routed.len(),
                "systemd-resolved is told of the first {MAX_DOMAINS} only"
            );
            routed.truncate(MAX_DOMAINS);
        }
        self.helper
            .lead_names(&[self.address], &routed, &self.search)
            .await
    }
}

/// As systemd-resolved writes it: without the root's dot.
fn plain(name: pmz_net::dns::Name) -> String {
    name.to_ascii().trim_end_matches('.').to_owned()
}

/// Who is asked for what is not ours.
fn others(own: IpAddr) -> Vec<SocketAddr> {
    let mut servers = nameservers_of(Path::new(SERVERS));
    servers.retain(|server| server.ip() != own);
    servers
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;
    use tokio::time::timeout;

    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    /// Names that are led, with the time of each try since the beginning; so many tries are refused at first.
    fn led(refused: u32) -> (watch::Sender<()>, mpsc::UnboundedReceiver<Duration>) {
        let (change, changes) = watch::channel(());
        let (note, tries) = mpsc::unbounded_channel();
        let begun = Instant::now();
        let mut left = refused;
        tokio::spawn(follow(changes, async move || {
            let _ = note.send(begun.elapsed());
            if left == 0 {
                return Ok(());
            }
            left -= 1;
            Err("not now")
        }));
        (change, tries)
    }

    async fn all(tries: &mut mpsc::UnboundedReceiver<Duration>) -> Vec<Duration> {
        let mut all = Vec::new();
        while let Ok(Some(at)) = timeout(LONG, tries.recv()).await {
            all.push(at);
        }
        all
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_that_is_refused_is_tried_again_until_it_is_taken() {
        let (change, mut tries) = led(3);
        change.send_replace(());
        let at = [0, 250, 750, 1750].map(Duration::from_millis);
        assert_eq!(all(&mut tries).await, at);
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_change_is_tried_at_once_and_as_often() {
        let (change, mut tries) = led(TRIES + 1);
        change.send_replace(());
        let first = all(&mut tries).await;
        assert_eq!(first.len(), TRIES as usize, "{first:?}");
        let longest = first.windows(2).map(|it| it[1] - it[0]).max();
        assert_eq!(longest, Some(LONGEST_WAIT));
        assert!(first.last() < Some(&Duration::from_secs(240)), "{first:?}");
        change.send_replace(());
        let next = all(&mut tries).await;
        assert_eq!(next.len(), 2, "{next:?}");
        assert_eq!(next[1] - next[0], FIRST_WAIT);
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_between_two_tries_goes_with_the_next_one_at_once() {
        let (change, mut tries) = led(1);
        change.send_replace(());
        assert_eq!(tries.recv().await, Some(Duration::ZERO));
        change.send_replace(());
        assert_eq!(all(&mut tries).await, [Duration::ZERO]);
    }
}

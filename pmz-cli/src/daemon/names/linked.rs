//! systemd-resolved asks our server, for the domains that the TUN's link has with it.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use pmz_net::dns::{SharedDomains, reverse_zones};
use tokio::task::JoinHandle;

use super::way::{Server, upstream};
use crate::helper::{HelperClient, HelperError, MAX_DOMAINS, nameservers_of};

/// The name servers that systemd-resolved knows, all links' and its own, for programs that would rather ask these
/// (systemd-resolved(8)).
const SERVERS: &str = "/run/systemd/resolve/resolv.conf";

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
            routed: std::iter::once(server.domain.to_owned())
                .chain(server.reverse.iter().flat_map(reverse_zones).map(plain))
                .collect(),
            search: server.search.to_vec(),
            domains: server.domains.clone(),
        };
        let mut changes = link.domains.subscribe();
        changes.borrow_and_update();
        link.lead().await?;
        // Names below a domain that the user led elsewhere, and what external names are aliases of.
        server.handle.set_upstream(others(server.address));
        let following = tokio::spawn(async move {
            while changes.changed().await.is_ok() {
                changes.borrow_and_update();
                if let Err(error) = link.lead().await {
                    tracing::warn!(%error, "systemd-resolved does not follow a change of domains");
                }
            }
        });
        Ok(Self { following })
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
    servers.retain(|server| *server != own);
    upstream(servers)
}

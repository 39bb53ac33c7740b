//! systemd-resolved, told over D-Bus which names are the tunnel's.
//!
//! What it is told belongs to the TUN's link, and is forgotten with it: nothing is left to undo when the helper is gone.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use tokio::time::timeout;
use zbus::fdo::DBusProxy;
use zbus::names::BusName;
use zbus::{Connection, proxy};

/// The name on the bus.
const NAME: &str = "org.freedesktop.resolve1";
/// Where its stub listens (systemd-resolved(8)): a resolv.conf that names it leads all programs there.
const STUBS: [&str; 2] = ["127.0.0.53", "127.0.0.54"];
/// How long the bus and resolved may take for all that is asked at once.
const WITHIN: Duration = Duration::from_secs(5);
/// linux/socket.h
const AF_INET: i32 = libc::AF_INET;
const AF_INET6: i32 = libc::AF_INET6;

/// Why names can't be led through systemd-resolved.
#[derive(Debug, thiserror::Error)]
pub(super) enum ResolvedError {
    #[error("{path} does not lead to systemd-resolved's stub (127.0.0.53)")]
    NotAsked { path: String },
    #[error("read {path}: {source}")]
    Unreadable {
        path: String,
        source: std::io::Error,
    },
    #[error("the system's bus is not there: {0}")]
    NoBus(#[source] zbus::Error),
    #[error("systemd-resolved does not run")]
    NotRunning,
    #[error("systemd-resolved serves another network namespace")]
    Elsewhere,
    #[error("systemd-resolved does not take {what}: {source}")]
    Refused {
        what: &'static str,
        source: zbus::Error,
    },
    #[error("systemd-resolved has not answered within {} s", WITHIN.as_secs())]
    Silent,
}

/// org.freedesktop.resolve1(5)
#[proxy(
    interface = "org.freedesktop.resolve1.Manager",
    default_service = "org.freedesktop.resolve1",
    default_path = "/org/freedesktop/resolve1",
    gen_blocking = false
)]
trait Manager {
    #[zbus(name = "SetLinkDNS")]
    fn set_link_dns(&self, index: i32, servers: &[(i32, Vec<u8>)]) -> zbus::Result<()>;
    fn set_link_domains(&self, index: i32, domains: &[(String, bool)]) -> zbus::Result<()>;
    fn set_link_default_route(&self, index: i32, is: bool) -> zbus::Result<()>;
    #[zbus(name = "SetLinkLLMNR")]
    fn set_link_llmnr(&self, index: i32, mode: &str) -> zbus::Result<()>;
    #[zbus(name = "SetLinkMulticastDNS")]
    fn set_link_multicast_dns(&self, index: i32, mode: &str) -> zbus::Result<()>;
    #[zbus(name = "SetLinkDNSOverTLS")]
    fn set_link_dns_over_tls(&self, index: i32, mode: &str) -> zbus::Result<()>;
    #[zbus(name = "SetLinkDNSSEC")]
    fn set_link_dnssec(&self, index: i32, mode: &str) -> zbus::Result<()>;
    fn revert_link(&self, index: i32) -> zbus::Result<()>;
    fn flush_caches(&self) -> zbus::Result<()>;
}

/// What a link answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LinkNames<'a> {
    pub(super) servers: &'a [IpAddr],
    /// Domains whose names are asked there.
    pub(super) routed: &'a [String],
    /// Those that are also put behind names as programs ask for them.
    pub(super) search: &'a [String],
}

/// systemd-resolved, where programs on this machine ask it.
#[derive(Debug)]
pub(super) struct Resolved {
    manager: ManagerProxy<'static>,
}

impl Resolved {
    /// Finds it, by a resolv.conf that leads to it.
    pub(super) async fn find(resolv_conf: &Path) -> Result<Self, ResolvedError> {
        let path = || resolv_conf.display().to_string();
        let text = fs::read_to_string(resolv_conf).map_err(|source| ResolvedError::Unreadable {
            path: path(),
            source,
        })?;
        if !leads_to_stub(&text) {
            return Err(ResolvedError::NotAsked { path: path() });
        }
        timeout(WITHIN, Self::connect())
            .await
            .map_err(|_| ResolvedError::Silent)?
    }

    async fn connect() -> Result<Self, ResolvedError> {
        let bus = Connection::system().await.map_err(ResolvedError::NoBus)?;
        let names = DBusProxy::new(&bus).await.map_err(ResolvedError::NoBus)?;
        let name = BusName::try_from(NAME).map_err(|error| ResolvedError::NoBus(error.into()))?;
        let Ok(process) = names.get_connection_unix_process_id(name).await else {
            return Err(ResolvedError::NotRunning);
        };
        // Links have numbers, and another namespace's link may have the same.
        let own = netns("self");
        if own.is_none() || own != netns(&process.to_string()) {
            return Err(ResolvedError::Elsewhere);
        }
        let manager = ManagerProxy::new(&bus)
            .await
            .map_err(ResolvedError::NoBus)?;
        Ok(Self { manager })
    }

    /// Has a link answer these names and no others, until it goes.
    pub(super) async fn lead(
        &self,
        index: u32,
        names: &LinkNames<'_>,
    ) -> Result<(), ResolvedError> {
        timeout(WITHIN, self.set(index, names))
            .await
            .map_err(|_| ResolvedError::Silent)?
    }

    async fn set(&self, index: u32, names: &LinkNames<'_>) -> Result<(), ResolvedError> {
        let index = index as i32;
        let manager = &self.manager;
        let refused = |what| move |source| ResolvedError::Refused { what, source };
        // Nothing but its own domains goes there, from the first moment on.
        manager
            .set_link_default_route(index, false)
            .await
            .map_err(refused("that a link is no default route"))?;
        let off = refused("that something is off on a link");
        manager.set_link_llmnr(index, "no").await.map_err(off)?;
        manager
            .set_link_multicast_dns(index, "no")
            .await
            .map_err(off)?;
        // What the cluster says is not signed, and the root's servers deny that its domain is there. The tunnel
        // guards it.
        manager.set_link_dnssec(index, "no").await.map_err(off)?;
        manager
            .set_link_dns_over_tls(index, "no")
            .await
            .map_err(off)?;
        let domains: Vec<(String, bool)> = names
            .routed
            .iter()
            .map(|domain| (domain.clone(), true))
            .chain(names.search.iter().map(|domain| (domain.clone(), false)))
            .collect();
        manager
            .set_link_domains(index, &domains)
            .await
            .map_err(refused("a link's domains"))?;
        let servers: Vec<(i32, Vec<u8>)> = names.servers.iter().map(octets).collect();
        manager
            .set_link_dns(index, &servers)
            .await
            .map_err(refused("a link's name server"))?;
        // That there is no such name may have been learned a moment ago.
        manager
            .flush_caches()
            .await
            .map_err(refused("that its cache is emptied"))
    }

    /// Has the link answer nothing any more.
    pub(super) async fn revert(&self, index: u32) -> Result<(), ResolvedError> {
        timeout(WITHIN, self.manager.revert_link(index as i32))
            .await
            .map_err(|_| ResolvedError::Silent)?
            .map_err(|source| ResolvedError::Refused {
                what: "that a link is as before",
                source,
            })
    }
}

fn octets(address: &IpAddr) -> (i32, Vec<u8>) {
    match address {
        IpAddr::V4(address) => (AF_INET, address.octets().to_vec()),
        IpAddr::V6(address) => (AF_INET6, address.octets().to_vec()),
    }
}

/// Whether the first server of a resolv.conf is the stub.
fn leads_to_stub(text: &str) -> bool {
    let mut lines = text.lines().map(str::split_whitespace);
    let first = lines.find_map(|mut words| match words.next() {
        Some("nameserver") => words.next(),
        _ => None,
    });
    first.is_some_and(|server| STUBS.contains(&server))
}

/// What tells the network namespace of a process from others.
fn netns(process: &str) -> Option<(u64, u64)> {
    let file = fs::metadata(format!("/proc/{process}/ns/net")).ok()?;
    Some((file.dev(), file.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resolv_conf_leads_to_the_stub_by_its_first_server() {
        for text in [
            "nameserver 127.0.0.53\noptions edns0 trust-ad\nsearch .\n",
            "# comment\n\tnameserver\t127.0.0.53\n",
            "nameserver 127.0.0.54",
        ] {
            assert!(leads_to_stub(text), "{text:?}");
        }
        for text in [
            "",
            "nameserver\n",
            "nameserver 192.0.2.1\nnameserver 127.0.0.53\n",
            "#nameserver 127.0.0.53\n",
            "nameserver 127.0.0.1\n",
        ] {
            assert!(!leads_to_stub(text), "{text:?}");
        }
    }

    #[tokio::test]
    async fn a_machine_whose_programs_ask_another_server_is_told_apart_without_a_bus() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("resolv.conf");
        let error = Resolved::find(&path).await.unwrap_err();
        assert!(matches!(error, ResolvedError::Unreadable { .. }), "{error}");
        fs::write(&path, "nameserver 192.0.2.1\n").unwrap();
        let error = Resolved::find(&path).await.unwrap_err();
        assert!(matches!(error, ResolvedError::NotAsked { .. }), "{error}");
    }
}

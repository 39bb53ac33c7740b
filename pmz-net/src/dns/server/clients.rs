//! Whose questions are answered. The tunnel's address is this machine's own, and the kernel takes what comes for it by any
//! interface: whoever is on the same network could have names of the cluster from it, and use it to ask others.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::SockaddrStorage;
use parking_lot::Mutex;

use crate::dns::forward::any_like;

/// How long it is believed where an address is: containers come and go.
const BELIEVED: Duration = Duration::from_secs(5);
/// Addresses of which that is remembered.
const MAX_KNOWN: usize = 1024;
/// Interfaces, as the kernel shows them (sysfs-class-net).
const INTERFACES: &str = "/sys/class/net";
/// Any port does: nothing is sent there.
const DISCARD: u16 = 9;

/// Whose questions a server answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Clients {
    /// Anybody's.
    Anybody,
    /// Those from these networks.
    Networks(Vec<IpNet>),
    /// Those of this machine's programs, and of containers and virtual machines behind a bridge of the machine's to which
    /// no other machine is connected.
    Machine,
}

/// Tells clients from strangers.
#[derive(Debug)]
pub(super) struct Access {
    clients: Clients,
    known: Mutex<HashMap<IpAddr, (bool, Instant)>>,
}

impl Access {
    pub(super) fn new(clients: Clients) -> Self {
        Self {
            clients,
            known: Mutex::default(),
        }
    }

    /// Whether a question from there is answered.
    pub(super) fn admits(&self, source: SocketAddr) -> bool {
        let client = source.ip().to_canonical();
        match &self.clients {
            Clients::Anybody => true,
            Clients::Networks(networks) => networks.iter().any(|net| net.contains(&client)),
            Clients::Machine => self.is_of_this_machine(SocketAddr::new(client, DISCARD)),
        }
    }

    fn is_of_this_machine(&self, client: SocketAddr) -> bool {
        if client.ip().is_loopback() {
            return true;
        }
        let before = self.known.lock().get(&client.ip()).copied();
        if let Some((answer, since)) = before
            && since.elapsed() < BELIEVED
        {
            return answer;
        }
        let answer = is_within(client).unwrap_or_else(|error| {
            tracing::debug!(%client, %error, "it is not known where a client is; it is refused");
            false
        });
        let mut known = self.known.lock();
        if known.len() >= MAX_KNOWN {
            known.clear();
        }
        known.insert(client.ip(), (answer, Instant::now()));
        answer
    }
}

/// Whether answers to an address stay within this machine. That is what counts: a stranger may write what he likes into
/// his question's source, and then hears nothing.
fn is_within(client: SocketAddr) -> io::Result<bool> {
    let socket = UdpSocket::bind(any_like(client))?;
    // Nothing is sent: the kernel chooses the address that it would send from.
    socket.connect(client)?;
    let from = socket.local_addr()?.ip();
    if from == client.ip() {
        return Ok(true);
    }
    let interfaces = Path::new(INTERFACES);
    let mut all = getifaddrs()?.filter(|it| it.address.as_ref().and_then(ip) == Some(from));
    Ok(all.any(|it| is_inner_bridge(&interfaces.join(it.interface_name))))
}

fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|it| IpAddr::V4(it.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|it| IpAddr::V6(it.ip())))
}

/// Whether an interface is a bridge without a port that leads out of the machine.
fn is_inner_bridge(interface: &Path) -> bool {
    if !interface.join("bridge").is_dir() {
        return false;
    }
    let Ok(ports) = fs::read_dir(interface.join("brif")) else {
        return false;
    };
    let mut ports = ports.map_while(Result::ok);
    // Each is a link to the bridge's view of the port; the port itself stands beside the bridge.
    !ports.any(|port| leads_out(&interface.with_file_name(port.file_name())))
}

/// Whether there may be another machine at a bridge's port. At a veth's or a tap device's other end there is a container,
/// a virtual machine or a program. All others are hardware, lie over another interface, or are of a kind with a name (bond,
/// vlan, vxlan).
fn leads_out(port: &Path) -> bool {
    let Ok(entries) = fs::read_dir(port) else {
        return true;
    };
    let mut entries = entries.map_while(Result::ok).map(|entry| entry.file_name());
    let is_over =
        |name: OsString| name == "device" || name.as_encoded_bytes().starts_with(b"lower_");
    let kind = fs::read_to_string(port.join("uevent"));
    kind.is_ok_and(|kind| kind.contains("DEVTYPE=")) || entries.any(is_over)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_told_apart_whatever_way_an_address_is_written() {
        let access = Access::new(Clients::Networks(vec!["10.64.0.0/16".parse().unwrap()]));
        for (source, admitted) in [
            ("10.64.0.2:53", true),
            ("[::ffff:10.64.0.2]:53", true),
            ("10.65.0.2:53", false),
            ("[fd00::1]:53", false),
        ] {
            assert_eq!(access.admits(source.parse().unwrap()), admitted, "{source}");
        }
        assert!(Access::new(Clients::Anybody).admits("192.0.2.1:9".parse().unwrap()));
    }

    #[test]
    fn this_machines_own_addresses_are_admitted_and_those_that_lead_elsewhere_are_not() {
        let access = Access::new(Clients::Machine);
        let own = getifaddrs().unwrap().filter_map(|it| ip(&it.address?));
        // An address of a link takes the link's number.
        let own = own.filter(|it| !matches!(it, IpAddr::V6(it) if it.is_unicast_link_local()));
        for own in own.chain(["127.0.0.1".parse().unwrap()]) {
            assert!(access.admits(SocketAddr::new(own, 4711)), "{own}");
        }
        // For documentation, and so nobody's (RFC 5737).
        assert!(!access.admits("192.0.2.1:4711".parse().unwrap()));
    }

    #[test]
    fn a_bridge_is_within_the_machine_as_long_as_no_port_leads_to_another_one() {
        let root = std::env::temp_dir().join(format!("pmz-bridges-{}", std::process::id()));
        let make = |path: &str| fs::create_dir_all(root.join(path)).unwrap();
        for (port, more) in [
            ("veth", "statistics"),
            ("tap", "statistics"),
            ("eno1", "device"),
            ("macvlan", "lower_eno1"),
            ("vxlan", "statistics"),
        ] {
            make(&format!("{port}/{more}"));
            let kind = match port {
                "vxlan" => "DEVTYPE=vxlan\n",
                _ => "",
            };
            let uevent = format!("{kind}INTERFACE={port}\nIFINDEX=7\n");
            fs::write(root.join(port).join("uevent"), uevent).unwrap();
            make(&format!("to-{port}/bridge"));
            make(&format!("to-{port}/brif/{port}"));
            make(&format!("to-{port}/brif/veth"));
        }
        make("empty/bridge");
        make("empty/brif");
        make("gone/bridge");
        make("gone/brif/gone0");
        let within = |name: &&str| is_inner_bridge(&root.join(name));
        let bridges = [
            "to-veth",
            "to-tap",
            "empty",
            "to-eno1",
            "to-macvlan",
            "to-vxlan",
            "gone",
            "veth",
        ];
        let inner: Vec<&str> = bridges.into_iter().filter(within).collect();
        fs::remove_dir_all(&root).unwrap();
        assert_eq!(inner, ["to-veth", "to-tap", "empty"]);
    }
}

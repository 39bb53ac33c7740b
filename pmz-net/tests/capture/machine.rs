//! A machine with loopback and an interface that leads nowhere, in a network namespace of its own.

use std::net::{IpAddr, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::time::Duration;

use ipnet::IpNet;
use pmz_net::capture::{Capture, CaptureSockets, Datagram, Slots, receive, send};
use pmz_net::route::Netlink;

use crate::cgroup;
use crate::common::cables::give;
use crate::common::namespace::Namespace;

/// Longer than anything here takes.
pub(crate) const LIMIT: Duration = Duration::from_secs(5);
/// The loopback interface's number, in every namespace.
const LOOPBACK: u32 = 1;
/// Addresses of the machine that are not loopback's.
pub(crate) const ADDRESSES: [&str; 2] = ["192.0.2.1", "2001:db8::1"];

pub(crate) struct Machine(Namespace);

impl Machine {
    pub(crate) fn new() -> Self {
        let machine = Self(Namespace::new());
        machine.with_netlink(async |netlink| {
            netlink.bring_up(LOOPBACK, u16::MAX).await.unwrap();
            for address in ADDRESSES {
                let address = address.parse().unwrap();
                netlink.add_address(LOOPBACK, address).await.unwrap();
            }
        });
        machine
    }

    pub(crate) fn namespace(&self) -> &Namespace {
        &self.0
    }

    /// Runs `f` inside.
    pub(crate) fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        self.0.run(f)
    }

    fn with_netlink(&self, f: impl AsyncFnOnce(&Netlink) + Send) {
        self.0
            .block_on(|| async { f(&Netlink::open().unwrap()).await });
    }

    /// Makes a network for IPv6 slots the machine's own.
    pub(crate) fn slots(&self) -> Slots {
        let slots = Slots::random();
        let network = IpNet::new(slots.v6().unwrap().into(), 112).unwrap();
        self.with_netlink(async |netlink| netlink.add_local(LOOPBACK, network).await.unwrap());
        slots
    }

    /// Catches what the tests' processes ask in here.
    pub(crate) fn capture(&self) -> (Capture, CaptureSockets) {
        let slots = self.slots();
        self.run(|| Capture::attach(cgroup::own().as_fd(), slots).unwrap())
    }

    pub(crate) fn udp(&self, at: &str) -> UdpSocket {
        let socket = self.run(|| UdpSocket::bind(at)).unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        socket
    }

    pub(crate) fn connect(&self, to: &str) -> std::io::Result<TcpStream> {
        let to = to.parse().unwrap();
        let stream = self.run(|| TcpStream::connect_timeout(&to, LIMIT))?;
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        Ok(stream)
    }
}

/// Waits for a datagram.
pub(crate) fn next(socket: &UdpSocket) -> (Datagram, Vec<u8>) {
    let mut wait = [nix::poll::PollFd::new(
        socket.as_fd(),
        nix::poll::PollFlags::POLLIN,
    )];
    let limit = u16::try_from(LIMIT.as_millis()).unwrap();
    assert_eq!(
        nix::poll::poll(&mut wait, limit).unwrap(),
        1,
        "nothing comes"
    );
    let mut buffer = [0; 512];
    let datagram = receive(socket, &mut buffer).unwrap();
    (datagram, buffer[..datagram.length].to_vec())
}

/// Takes a query, says which server was meant, and answers `answer`.
pub(crate) fn answer(capture: &Capture, socket: &UdpSocket, bytes: &[u8]) -> IpAddr {
    let (datagram, _) = next(socket);
    send(socket, bytes, datagram.from, datagram.at).unwrap();
    let slot = capture.slots().slot(datagram.at).unwrap();
    capture.server(slot).unwrap().unwrap()
}

/// Sends to a port of the machine from another one, over a cable, and something behind it, which arrives as well.
pub(crate) fn from_a_neighbour(machine: &Machine, port: u16) {
    let neighbour = Machine::new();
    machine.0.join("cable0", &neighbour.0, "cable1");
    for (machine, device, address) in [
        (machine, "cable0", [10, 9, 0, 1]),
        (&neighbour, "cable1", [10, 9, 0, 2]),
    ] {
        machine.0.with_links(|handle| async move {
            give(&handle, device, &[address.into()]).await;
        });
    }
    let witness = machine.udp("10.9.0.1:0");
    let client = neighbour.udp("10.9.0.2:0");
    client.send_to(b"from outside", ("10.9.0.1", port)).unwrap();
    client
        .send_to(b"behind it", witness.local_addr().unwrap())
        .unwrap();
    let (length, _) = witness.recv_from(&mut [0; 64]).unwrap();
    assert_eq!(length, 9);
}

//! A machine with loopback and an interface that leads nowhere, in a network namespace of its own.

use std::fs::File;
use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use ipnet::IpNet;
use nix::sched::{CloneFlags, setns, unshare};
use pmz_net::capture::{Capture, CaptureSockets, Datagram, Slots, receive, send};
use pmz_net::route::Netlink;

use crate::cgroup;

/// Longer than anything here takes.
pub(crate) const LIMIT: Duration = Duration::from_secs(5);
/// Addresses of the machine that are not loopback's.
pub(crate) const ADDRESSES: [&str; 2] = ["192.0.2.1", "2001:db8::1"];

pub(crate) struct Machine {
    namespace: OwnedFd,
}

impl Machine {
    pub(crate) fn new() -> Self {
        let namespace = std::thread::scope(|scope| {
            let made = scope.spawn(|| {
                unshare(CloneFlags::CLONE_NEWNET).unwrap();
                File::open("/proc/thread-self/ns/net").unwrap().into()
            });
            made.join().unwrap()
        });
        let machine = Self { namespace };
        machine.with_netlink(async |netlink| {
            netlink.bring_up(1, u16::MAX).await.unwrap();
            for address in ADDRESSES {
                netlink
                    .add_address(1, address.parse().unwrap())
                    .await
                    .unwrap();
            }
        });
        machine
    }

    /// Runs `f` inside.
    pub(crate) fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(self.namespace.as_fd(), CloneFlags::CLONE_NEWNET).unwrap();
                f()
            });
            match thread.join() {
                Ok(value) => value,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    fn with_netlink(&self, f: impl AsyncFnOnce(&Netlink) + Send) {
        self.run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async { f(&Netlink::open().unwrap()).await });
        });
    }

    fn with_links(&self, f: impl AsyncFnOnce(&rtnetlink::Handle) + Send) {
        self.run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let (connection, handle, _) = rtnetlink::new_connection().unwrap();
                let connection = tokio::spawn(connection);
                f(&handle).await;
                connection.abort();
            });
        });
    }

    /// Makes a network for IPv6 slots the machine's own.
    pub(crate) fn slots(&self) -> Slots {
        let slots = Slots::random();
        let network = IpNet::new(slots.v6().unwrap().into(), 112).unwrap();
        self.with_netlink(async |netlink| netlink.add_local(1, network).await.unwrap());
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

    pub(crate) fn listener(&self, at: &str) -> TcpListener {
        self.run(|| TcpListener::bind(at)).unwrap()
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
    let peer = neighbour.namespace.try_clone().unwrap();
    machine.with_links(async |handle| {
        use std::os::fd::AsRawFd;
        let cable = rtnetlink::LinkVeth::new("cable0", "cable1").build();
        handle.link().add(cable).execute().await.unwrap();
        let index = nix::net::if_::if_nametoindex("cable1").unwrap();
        let moved = rtnetlink::LinkUnspec::new_with_index(index)
            .setns_by_fd(peer.as_raw_fd())
            .build();
        handle.link().set(moved).execute().await.unwrap();
    });
    for (machine, device, address) in [
        (machine, "cable0", [10, 9, 0, 1]),
        (&neighbour, "cable1", [10, 9, 0, 2]),
    ] {
        machine.with_links(async |handle| {
            let index = nix::net::if_::if_nametoindex(device).unwrap();
            handle
                .address()
                .add(index, address.into(), 24)
                .execute()
                .await
                .unwrap();
            let up = rtnetlink::LinkUnspec::new_with_index(index).up().build();
            handle.link().set(up).execute().await.unwrap();
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

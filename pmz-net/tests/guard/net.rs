//! Three machines at one bridge, each in a network namespace of its own: a client, an agent, and a neighbour.

use std::fs::File;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::sched::{CloneFlags, setns, unshare};
use rtnetlink::packet_route::address::AddressHeaderFlags;
use rtnetlink::packet_route::link::{InfoData, InfoVeth, LinkAttribute, LinkInfo};
use rtnetlink::{Handle, LinkBridge, LinkUnspec, LinkVeth};

/// Each machine's interface to the bridge.
pub(crate) const ETH: &str = "eth0";

/// A network namespace. It goes with this value and the sockets made in it.
pub(crate) struct Machine {
    namespace: OwnedFd,
    addresses: Vec<IpAddr>,
}

impl Machine {
    fn new() -> Self {
        std::thread::scope(|scope| {
            let made = scope.spawn(|| {
                unshare(CloneFlags::CLONE_NEWNET).unwrap();
                File::open("/proc/thread-self/ns/net").unwrap().into()
            });
            Self {
                namespace: made.join().unwrap(),
                addresses: Vec::new(),
            }
        })
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

    /// Runs `f` inside, with rtnetlink.
    pub(crate) fn with_links<F: Future<Output = ()>>(&self, f: impl FnOnce(Handle) -> F + Send) {
        self.run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let (connection, handle, _) = rtnetlink::new_connection().unwrap();
                let connection = tokio::spawn(connection);
                f(handle).await;
                connection.abort();
            });
        });
    }

    /// Its IPv4 address.
    pub(crate) fn v4(&self) -> IpAddr {
        self.addresses[0]
    }

    /// Its IPv6 address.
    pub(crate) fn v6(&self) -> IpAddr {
        self.addresses[1]
    }
}

/// The machines, and what joins them.
pub(crate) struct Lab {
    pub(crate) client: Machine,
    pub(crate) agent: Machine,
    pub(crate) neighbour: Machine,
    _bridge: Machine,
}

impl Lab {
    pub(crate) fn new() -> Self {
        let bridge = Machine::new();
        bridge.with_links(|handle| async move {
            let message = LinkBridge::new("br0").build();
            handle.link().add(message).execute().await.unwrap();
            up(&handle, "br0").await;
        });
        let mut machines = [1, 2, 3].map(|number| {
            let machine = Machine::new();
            plug(&bridge, &machine, number);
            machine
        });
        for (machine, number) in machines.iter_mut().zip(1_u8..) {
            let addresses = [
                IpAddr::from([10, 9, 0, number]),
                IpAddr::from([0xfd00, 9, 0, 0, 0, 0, 0, u16::from(number)]),
            ];
            machine.with_links(|handle| async move {
                give(&handle, ETH, &addresses).await;
                up(&handle, "lo").await;
            });
            machine.addresses = addresses.to_vec();
        }
        let [client, agent, neighbour] = machines;
        Self {
            client,
            agent,
            neighbour,
            _bridge: bridge,
        }
    }
}

/// Gives an interface addresses, of /24 and /64 networks, and brings it up.
pub(crate) async fn give(handle: &Handle, device: &str, addresses: &[IpAddr]) {
    let index = nix::net::if_::if_nametoindex(device).unwrap();
    for address in addresses {
        let bits = if address.is_ipv4() { 24 } else { 64 };
        let mut request = handle.address().add(index, *address, bits);
        if address.is_ipv6() {
            request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
        }
        request.execute().await.unwrap();
    }
    up(handle, device).await;
}

async fn up(handle: &Handle, device: &str) {
    let index = nix::net::if_::if_nametoindex(device).unwrap();
    let message = LinkUnspec::new_with_index(index).up().build();
    handle.link().set(message).execute().await.unwrap();
}

fn plug(bridge: &Machine, machine: &Machine, number: u8) {
    let fd = machine.namespace.as_raw_fd();
    bridge.with_links(|handle| async move {
        let name = format!("port{number}");
        let mut veth = LinkVeth::new(&name, ETH).build();
        for attribute in &mut veth.attributes {
            let LinkAttribute::LinkInfo(infos) = attribute else {
                continue;
            };
            for info in infos {
                if let LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))) = info {
                    peer.attributes.push(LinkAttribute::NetNsFd(fd));
                }
            }
        }
        handle.link().add(veth).execute().await.unwrap();
        let index = nix::net::if_::if_nametoindex(name.as_str()).unwrap();
        let controller = nix::net::if_::if_nametoindex("br0").unwrap();
        let message = LinkUnspec::new_with_index(index)
            .controller(controller)
            .up()
            .build();
        handle.link().set(message).execute().await.unwrap();
    });
}

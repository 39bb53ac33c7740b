//! Three machines at one bridge, each in a network namespace of its own: a client, an agent, and a neighbour.

use std::net::IpAddr;
use std::ops::Deref;

use rtnetlink::{LinkBridge, LinkUnspec};

use crate::common::cables::give;
use crate::common::namespace::Namespace;

/// Each machine's interface to the bridge.
pub(crate) const ETH: &str = "eth0";

/// A machine, which is a network namespace with an interface.
pub(crate) struct Machine {
    namespace: Namespace,
    addresses: [IpAddr; 2],
}

impl Deref for Machine {
    type Target = Namespace;

    fn deref(&self) -> &Namespace {
        &self.namespace
    }
}

impl Machine {
    /// Plugs a new one into the bridge.
    fn new(bridge: &Namespace, number: u8) -> Self {
        let namespace = Namespace::new();
        let port = format!("port{number}");
        bridge.join(&port, &namespace, ETH);
        bridge.with_links(|handle| async move {
            let index = nix::net::if_::if_nametoindex(port.as_str()).unwrap();
            let controller = nix::net::if_::if_nametoindex("br0").unwrap();
            let message = LinkUnspec::new_with_index(index)
                .controller(controller)
                .up()
                .build();
            handle.link().set(message).execute().await.unwrap();
        });
        let addresses = [
            IpAddr::from([10, 9, 0, number]),
            IpAddr::from([0xfd00, 9, 0, 0, 0, 0, 0, u16::from(number)]),
        ];
        namespace.with_links(|handle| async move {
            give(&handle, ETH, &addresses).await;
            give(&handle, "lo", &[]).await;
        });
        Self {
            namespace,
            addresses,
        }
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
    _bridge: Namespace,
}

impl Lab {
    pub(crate) fn new() -> Self {
        let bridge = Namespace::new();
        bridge.with_links(|handle| async move {
            let message = LinkBridge::new("br0").build();
            handle.link().add(message).execute().await.unwrap();
            give(&handle, "br0", &[]).await;
        });
        let [client, agent, neighbour] = [1, 2, 3].map(|number| Machine::new(&bridge, number));
        Self {
            client,
            agent,
            neighbour,
            _bridge: bridge,
        }
    }
}

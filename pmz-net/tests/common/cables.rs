//! What joins namespaces: veth pairs and their addresses.

use std::net::IpAddr;
use std::os::fd::AsRawFd;

use rtnetlink::packet_route::address::AddressHeaderFlags;
use rtnetlink::packet_route::link::{InfoData, InfoVeth, LinkAttribute, LinkInfo};
use rtnetlink::{Handle, LinkUnspec, LinkVeth};

use super::namespace::Namespace;

impl Namespace {
    /// Makes a veth pair: the one end here, the other there.
    pub(crate) fn join(&self, near: &str, there: &Self, far: &str) {
        let fd = there.0.as_raw_fd();
        self.with_links(|handle| async move {
            let mut veth = LinkVeth::new(near, far).build();
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
        });
    }
}

/// Gives an interface addresses, of /24 and /64 networks, brings it up, and tells its index.
pub(crate) async fn give(handle: &Handle, device: &str, addresses: &[IpAddr]) -> u32 {
    let index = nix::net::if_::if_nametoindex(device).unwrap();
    for address in addresses {
        let bits = if address.is_ipv4() { 24 } else { 64 };
        let mut request = handle.address().add(index, *address, bits);
        if address.is_ipv6() {
            request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
        }
        request.execute().await.unwrap();
    }
    let message = LinkUnspec::new_with_index(index).up().build();
    handle.link().set(message).execute().await.unwrap();
    index
}

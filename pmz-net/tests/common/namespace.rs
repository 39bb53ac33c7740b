//! Network namespaces of a test's own.

use std::fs::File;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::sched::{CloneFlags, setns, unshare};
use rtnetlink::packet_route::address::AddressHeaderFlags;
use rtnetlink::packet_route::link::{InfoData, InfoVeth, LinkAttribute, LinkInfo};
use rtnetlink::{Handle, LinkUnspec, LinkVeth};

/// A network namespace. It goes with this value and what was opened in it.
pub(crate) struct Namespace(OwnedFd);

impl Namespace {
    pub(crate) fn new() -> Self {
        std::thread::scope(|scope| {
            let made = scope.spawn(|| {
                unshare(CloneFlags::CLONE_NEWNET).unwrap();
                Self(File::open("/proc/thread-self/ns/net").unwrap().into())
            });
            made.join().unwrap()
        })
    }

    /// Runs `f` inside.
    pub(crate) fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(self.0.as_fd(), CloneFlags::CLONE_NEWNET).unwrap();
                f()
            });
            match thread.join() {
                Ok(value) => value,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// Runs `f` inside, on a tokio runtime.
    pub(crate) fn block_on<T: Send, F: Future<Output = T>>(
        &self,
        f: impl FnOnce() -> F + Send,
    ) -> T {
        self.run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async { f().await })
        })
    }

    /// Runs `f` inside, with rtnetlink.
    pub(crate) fn with_links<F: Future<Output = ()>>(&self, f: impl FnOnce(Handle) -> F + Send) {
        self.block_on(|| async {
            let (connection, handle, _) = rtnetlink::new_connection().unwrap();
            let connection = tokio::spawn(connection);
            f(handle).await;
            connection.abort();
        });
    }

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

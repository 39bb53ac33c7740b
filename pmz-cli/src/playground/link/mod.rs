//! The link emulator: two TUNs in two network namespaces, joined by a thread that delays, loses,
//! reorders and spaces packets, and worse. The kernel's own (netem) is a module that many machines haven't got.

mod bottleneck;
mod chance;
mod edge;
mod pipe;
mod spec;
mod transit;

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use anyhow::{Context, Result};
use ipnet::IpNet;
use nix::sys::eventfd::{EfdFlags, EventFd};
use parking_lot::Mutex;
use pmz_net::device::{Tun, open_tun};

pub use pipe::PipeCounters;
pub use spec::{LinkSpec, LinkSpecError, LossBursts, Policer, QueueLimit};

use super::netlink::Links;
use super::netns::NetNs;

/// Packets that may stand before a TUN: as many as the link is to drop by itself, or not, at any rate.
const TUN_QUEUE: u32 = 10_000;

/// One end of an emulated link.
#[derive(Clone, Copy, Debug)]
pub struct LinkEnd<'a> {
    /// Where the interface is to be.
    pub netns: &'a NetNs,
    /// Its name.
    pub interface: &'a str,
    /// Its addresses.
    pub addresses: &'a [IpNet],
}

/// A link between two network namespaces that is as bad as asked for. It goes when dropped.
#[derive(Debug)]
pub struct LinkEmulator {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// What the link's thread and the others share.
#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Grows with each change of the state.
    version: AtomicU64,
    /// Wakes the thread after a change of the state.
    changed: EventFd,
}

#[derive(Debug)]
struct State {
    spec: LinkSpec,
    stopped: bool,
    counters: [PipeCounters; 2],
}

impl LinkEmulator {
    /// Joins two network namespaces by a link: a TUN of that MTU in each, up, with its addresses. The
    /// same seed makes the same choices for the same packets. Must be called in a tokio runtime.
    ///
    /// # Errors
    /// Without the right to make TUNs there, or if there are interfaces of these names.
    pub async fn between(
        a: LinkEnd<'_>,
        b: LinkEnd<'_>,
        mtu: u32,
        spec: LinkSpec,
        seed: u64,
    ) -> Result<Self> {
        let mut tuns = Vec::new();
        for end in [a, b] {
            let opened = end.netns.run(|| open_tun(end.interface))?;
            let opened = opened.with_context(|| format!("making the TUN {}", end.interface))?;
            tuns.push(Tun::new(opened.fd)?);
        }
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                spec,
                stopped: false,
                counters: Default::default(),
            }),
            version: AtomicU64::new(0),
            changed: EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?,
        });
        let edge = edge::Edge::new(tuns, mtu, seed, Arc::clone(&shared))?;
        let thread = std::thread::Builder::new()
            .name("pmz-link".into())
            .spawn(move || edge.run())?;
        let emulator = Self {
            shared,
            thread: Some(thread),
        };
        for end in [a, b] {
            let links = Links::open(end.netns)?;
            links
                .set_mtu_and_queue(end.interface, mtu, TUN_QUEUE)
                .await?;
            links.up(end.interface).await?;
            for address in end.addresses {
                links.add_address(end.interface, *address).await?;
            }
        }
        Ok(emulator)
    }

    /// What the link is like now.
    pub fn spec(&self) -> LinkSpec {
        self.shared.state.lock().spec.clone()
    }

    /// Makes it another one: what is sent after this call has returned meets the new one, and maybe
    /// some of what was sent just before. Packets that are under way arrive as it was.
    pub fn set_spec(&self, spec: LinkSpec) {
        self.shared.change(|state| state.spec = spec);
    }

    /// What became of the packets so far, from `a` to `b` and from `b` to `a`.
    pub fn counters(&self) -> [PipeCounters; 2] {
        self.shared.state.lock().counters
    }
}

impl Drop for LinkEmulator {
    fn drop(&mut self) {
        self.shared.change(|state| state.stopped = true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state.lock();
        change(&mut state);
        self.version.fetch_add(1, Ordering::Release);
        drop(state);
        // Can only fail when it has been woken 2^64 times without looking.
        let _ = self.changed.write(1);
    }

    fn changed(&self) -> impl AsFd + '_ {
        self.changed.as_fd()
    }
}

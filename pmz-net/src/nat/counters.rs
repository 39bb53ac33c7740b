//! What the NAT counts.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde::Serialize;

use crate::tcp::Counters;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Counters of a NAT: written by its thread, read by anybody.
        #[derive(Debug, Default)]
        pub struct NatCounters {
            $($(#[$doc])* pub(super) $name: AtomicU64,)*
        }

        /// The counters at one moment.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
        pub struct NatSnapshot {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl NatCounters {
            /// Reads all counters; each is exact, together they are not from one instant.
            pub fn snapshot(&self) -> NatSnapshot {
                NatSnapshot { $($name: self.$name.load(Relaxed),)* }
            }
        }
    };
}

counters! {
    /// Flows that there are now.
    flows,
    /// TCP connections that there are now, dials included.
    tcp_flows,
    /// UDP flows that there are now.
    udp_flows,
    /// ICMP echo flows that there are now.
    icmp_flows,
    /// Bytes of memory for TCP payload held by flows now.
    buffer_bytes,
    /// Frames taken from the inbox.
    frames_in,
    /// Bytes of those.
    bytes_in,
    /// Frames given to the egress.
    frames_out,
    /// Bytes of those.
    bytes_out,
    /// TCP dials begun.
    dials,
    /// TCP dials that a destination refused.
    dials_refused,
    /// TCP dials that found the destination unreachable, in time or at all.
    dials_unreachable,
    /// Flows not made because a limit on flows was reached.
    flow_limit_hits,
    /// Flows not made because a peer's buffers were used up.
    buffer_limit_hits,
    /// Times that memory for TCP payload was refused because all flows together had as much as they may.
    buffer_refusals,
    /// The same because a peer's flows had.
    peer_buffer_refusals,
    /// Flows not made because the process had no descriptors, ports or memory left.
    resource_limit_hits,
    /// Idle UDP flows that made way for new ones.
    evicted,
    /// Flows that ended because nothing was heard.
    expired,
    /// Packets to destinations that policy refuses.
    denied,
    /// Echo requests that this process may not send.
    echo_not_permitted,
    /// Packets dropped because they were malformed or of no protocol that is handled.
    malformed,
    /// TCP segments dropped because they did not fit the connection.
    bad_segments,
    /// TCP segments of no known connection, answered by RST.
    stray_segments,
    /// TCP segments sent to clients again.
    tcp_resent,
    /// Retransmission timeouts towards clients.
    tcp_timeouts,
    /// Last segments probed for before such a timeout.
    tcp_tail_probes,
    /// Losses that turned out to be none.
    tcp_spurious,
    /// Times that a flow sent nothing because of too many segments in flight.
    tcp_segment_limit_hits,
    /// Times that a service was held up because the flow's buffer was as full as it may be.
    tcp_buffer_limit_hits,
    /// Bytes of clients thrown away because memory for them was refused; they come again.
    tcp_refused_bytes,
    /// Datagrams dropped on the way to a service because the kernel would not take them.
    datagrams_dropped,
    /// IP packets put together from fragments.
    reassembled,
    /// IP packets given up because fragments overlapped, were too many, or did not come.
    reassembly_failures,
}

impl NatCounters {
    pub(super) fn add_tcp(&self, counted: Counters) {
        let Counters {
            resent,
            timeouts,
            tail_probes,
            spurious,
            segment_limit,
            buffer_limit,
            refused_bytes,
        } = counted;
        for (counter, n) in [
            (&self.tcp_resent, resent),
            (&self.tcp_timeouts, timeouts),
            (&self.tcp_tail_probes, tail_probes),
            (&self.tcp_spurious, spurious),
            (&self.tcp_segment_limit_hits, segment_limit),
            (&self.tcp_buffer_limit_hits, buffer_limit),
            (&self.tcp_refused_bytes, refused_bytes),
        ] {
            if n > 0 {
                add(counter, n);
            }
        }
    }
}

/// Adds to a counter.
pub(super) fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Relaxed);
}

/// Counts one.
pub(super) fn bump(counter: &AtomicU64) {
    add(counter, 1);
}

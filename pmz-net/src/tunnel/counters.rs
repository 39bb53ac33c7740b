//! Why messages and packets are dropped, counted.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

macro_rules! drops {
    ($($(#[$doc:meta])* $variant:ident $field:ident,)*) => {
        /// Why a received message was dropped.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Drop { $($(#[$doc])* $variant,)* }

        /// How many messages were dropped, by reason.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        pub struct DropCounts { $($(#[$doc])* pub $field: u64,)* }

        #[derive(Default)]
        pub(super) struct Counters { $($field: AtomicU64,)* }

        impl Counters {
            pub(super) fn add(&self, reason: Drop) {
                match reason {
                    $(Drop::$variant => self.$field.fetch_add(1, Ordering::Relaxed),)*
                };
            }

            pub(super) fn snapshot(&self) -> DropCounts {
                DropCounts { $($field: self.$field.load(Ordering::Relaxed),)* }
            }
        }
    };
}

drops! {
    /// No WireGuard message, or one with no IP packet in it.
    Malformed malformed,
    /// Its receiver index is no session's of ours.
    UnknownReceiver unknown_receiver,
    /// A handshake by a key that is no peer's.
    UnknownKey unknown_key,
    /// Its tag or MAC is wrong.
    NotAuthentic not_authentic,
    /// Seen before, or too old to tell.
    Replay replay,
    /// More handshakes than the rate limiter lets through.
    RateLimited rate_limited,
    /// The inner packet's source isn't the peer's address.
    WrongSource wrong_source,
}

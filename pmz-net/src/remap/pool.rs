//! A prefix whose addresses are handed out one after another.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// More than are ever handed out: the eBPF program's map of them is as large.
const MOST: u64 = 1 << 16;

/// What is left of a prefix. Its first address, which names the prefix, and its last are not handed out.
#[derive(Debug)]
pub(super) struct Pool {
    network: IpAddr,
    next: u64,
    end: u64,
}

impl Pool {
    pub(super) fn new(prefix: &IpNet) -> Self {
        let bits = u32::from(prefix.max_prefix_len() - prefix.prefix_len());
        let last = 1_u64.checked_shl(bits).map_or(MOST, |size| size - 1);
        Self {
            network: prefix.network(),
            next: 1,
            end: last.min(MOST),
        }
    }

    pub(super) fn is_ipv4(&self) -> bool {
        self.network.is_ipv4()
    }

    /// How many addresses there are, handed out or not.
    pub(super) fn size(&self) -> u64 {
        self.end.saturating_sub(1)
    }

    /// One that was never handed out.
    pub(super) fn next(&mut self) -> Option<IpAddr> {
        if self.next >= self.end {
            return None;
        }
        let offset = self.next;
        self.next += 1;
        Some(match self.network {
            IpAddr::V4(network) => {
                // No larger than the prefix, so it can't carry out of it.
                Ipv4Addr::from_bits(network.to_bits() | offset as u32).into()
            }
            IpAddr::V6(network) => {
                Ipv6Addr::from_bits(network.to_bits() | u128::from(offset)).into()
            }
        })
    }
}

//! What the guard goes by, and what it has counted.

use std::collections::HashSet;
use std::net::IpAddr;

use aya::Ebpf;
use aya::maps::{Array, HashMap, MapData, MapError, PerCpuArray};
use pmz_xdp_types::Address;
use pmz_xdp_types::guard::{self as types, Config, count};
use serde::{Deserialize, Serialize};

use super::GuardError;
use crate::steer::SteerError;
use crate::steer::maps::{missing_is_fine, typed};
use crate::tunnel::PeerId;

/// What the guard goes by, and what it has counted.
pub struct GuardMaps {
    config: Array<MapData, Config>,
    peers: HashMap<MapData, u32, u32>,
    known: HashMap<MapData, Address, u32>,
    counts: PerCpuArray<MapData, u64>,
    flags: u32,
}

/// Datagrams to the tunnel's port since the guard was attached. What the kernel had joined counts as one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct GuardReport {
    /// What went on to the socket.
    pub passed: u64,
    /// Dropped: of no type that WireGuard has.
    pub kind: u64,
    /// Dropped: of a length that its type does not have.
    pub length: u64,
    /// Dropped: to a receiver that is no peer's.
    pub receiver: u64,
    /// Dropped: handshake initiations, too many from one prefix.
    pub source_rate: u64,
    /// Dropped: handshake initiations, too many altogether.
    pub rate: u64,
}

impl GuardReport {
    /// All that was dropped.
    pub fn dropped(&self) -> u64 {
        self.kind + self.length + self.receiver + self.source_rate + self.rate
    }

    /// With what another guard has counted.
    pub fn plus(&self, other: &Self) -> Self {
        Self {
            passed: self.passed + other.passed,
            kind: self.kind + other.kind,
            length: self.length + other.length,
            receiver: self.receiver + other.receiver,
            source_rate: self.source_rate + other.source_rate,
            rate: self.rate + other.rate,
        }
    }
}

impl GuardMaps {
    /// Takes the maps out of the loaded object; `joined` as in [`Config::JOINED`].
    pub(super) fn take(programs: &mut Ebpf, joined: bool) -> Result<Self, SteerError> {
        let mut maps = Self {
            config: typed(programs, types::CONFIG)?,
            peers: typed(programs, types::PEERS)?,
            known: typed(programs, types::KNOWN)?,
            counts: typed(programs, types::COUNTS)?,
            flags: if joined { Config::JOINED } else { 0 },
        };
        maps.configure()?;
        Ok(maps)
    }

    fn configure(&mut self) -> Result<(), SteerError> {
        let flags = self.flags;
        self.config
            .set(0, Config { flags }, 0)
            .map_err(|error| SteerError::writing(types::CONFIG, &error))
    }

    /// Messages to this peer pass from now on.
    ///
    /// # Errors
    /// If the map has no room: then messages to any receiver pass, for as long as this guard lives. Losing a
    /// peer's would be worse.
    pub fn add_peer(&mut self, peer: PeerId) -> Result<(), GuardError> {
        let Err(error) = self.peers.insert(peer.0, 0, 0) else {
            return Ok(());
        };
        self.flags |= Config::ANY_RECEIVER;
        self.configure()?;
        Err(SteerError::writing(types::PEERS, &error).into())
    }

    /// Messages to this peer are dropped from now on, if it was one.
    ///
    /// # Errors
    /// If the map can't be written.
    pub fn remove_peer(&mut self, peer: PeerId) -> Result<(), GuardError> {
        Ok(missing_is_fine(types::PEERS, self.peers.remove(&peer.0))?)
    }

    /// Where peers are heard from, all of them: from there, initiations are not held up by what others send. Later
    /// addresses than the map has room for are left out.
    ///
    /// # Errors
    /// If the map can't be written.
    pub fn set_known(
        &mut self,
        sources: impl IntoIterator<Item = IpAddr>,
    ) -> Result<(), GuardError> {
        let wanted: HashSet<Address> = sources
            .into_iter()
            .map(prefix)
            .take(types::MAX_KNOWN as usize)
            .collect();
        let had: HashSet<Address> = self
            .known
            .keys()
            .collect::<Result<_, MapError>>()
            .map_err(|error| SteerError::reading(types::KNOWN, &error))?;
        for gone in had.difference(&wanted) {
            missing_is_fine(types::KNOWN, self.known.remove(gone))?;
        }
        for new in wanted.difference(&had) {
            self.known
                .insert(new, 0, 0)
                .map_err(|error| SteerError::writing(types::KNOWN, &error))?;
        }
        Ok(())
    }

    /// What was counted.
    ///
    /// # Errors
    /// If the map can't be read.
    pub fn report(&self) -> Result<GuardReport, GuardError> {
        let read = |reason: u32| {
            self.counts
                .get(&reason, 0)
                .map(|values| values.iter().sum())
                .map_err(|error| SteerError::reading(types::COUNTS, &error))
        };
        Ok(GuardReport {
            passed: read(count::PASSED)?,
            kind: read(count::KIND)?,
            length: read(count::LENGTH)?,
            receiver: read(count::RECEIVER)?,
            source_rate: read(count::SOURCE_RATE)?,
            rate: read(count::ALL_RATE)?,
        })
    }
}

/// The prefix that an address is in, as the program makes it.
fn prefix(address: IpAddr) -> Address {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let mask = u32::MAX << (32 - types::V4_PREFIX);
            Address::v4((address.to_bits() & mask).to_be())
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX << (128 - types::V6_PREFIX);
            let [a, b, c, d] = split(address.to_bits() & mask);
            Address([a, b, c, d].map(u32::to_be))
        }
    }
}

fn split(bits: u128) -> [u32; 4] {
    [96, 64, 32, 0].map(|shift| (bits >> shift) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_a_24_of_ipv4_and_a_56_of_ipv6() {
        let of = |text: &str| prefix(text.parse().unwrap());
        assert_eq!(of("192.0.2.77"), of("192.0.2.200"));
        assert_ne!(of("192.0.2.77"), of("192.0.3.77"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.2"));
        assert_eq!(of("2001:db8:1:aa01::1"), of("2001:db8:1:aaff:5::2"));
        assert_ne!(of("2001:db8:1:aa01::1"), of("2001:db8:1:ab01::1"));
        let Address([a, b, c, d]) = of("2001:db8:1:aa01::1");
        assert_eq!(
            [a, b, c, d].map(u32::from_be),
            [0x2001_0db8, 0x0001_aa00, 0, 0]
        );
    }
}

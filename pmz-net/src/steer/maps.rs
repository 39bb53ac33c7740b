//! The maps: writing what the programs go by.

use std::net::IpAddr;

use aya::Ebpf;
use aya::maps::lpm_trie::Key;
use aya::maps::{
    Array, HashMap, LpmTrie, Map, MapData, MapError, PerCpuArray, PerCpuHashMap, PerCpuValues,
};
use ipnet::IpNet;
use pmz_xdp_types as types;
use pmz_xdp_types::{Address, Config};

use super::error::os_error;
use super::slots::{Slot, Slots};
use super::{
    Diversion, LinkKind, PrefixKind, SteerError, SteeredPrefix, Target, TargetChange, address,
};

/// What the programs go by and what they count.
pub struct SteerMaps {
    config: Array<MapData, Config>,
    flags: u32,
    prefixes: LpmTrie<MapData, Address, types::Prefix>,
    pub(super) prefix_volumes: PerCpuArray<MapData, types::Volume>,
    targets: HashMap<MapData, Address, types::Target>,
    origins: HashMap<MapData, Address, Address>,
    diverts: HashMap<MapData, u32, types::Divert>,
    carriers: HashMap<MapData, u64, u32>,
    pub(super) traffic: PerCpuHashMap<MapData, Address, types::Traffic>,
    pub(super) counts: PerCpuArray<MapData, u64>,
    pub(super) slots: Slots,
}

impl SteerMaps {
    /// Takes the maps out of the loaded object.
    pub(super) fn take(programs: &mut Ebpf) -> Result<Self, SteerError> {
        let mut maps = Self {
            config: typed(programs, types::CONFIG)?,
            flags: 0,
            prefixes: typed(programs, types::PREFIXES)?,
            prefix_volumes: typed(programs, types::PREFIX_VOLUMES)?,
            targets: typed(programs, types::TARGETS)?,
            origins: typed(programs, types::ORIGINS)?,
            diverts: typed(programs, types::DIVERTS)?,
            carriers: typed(programs, types::CARRIERS)?,
            traffic: typed(programs, types::TRAFFIC)?,
            counts: typed(programs, types::COUNTS)?,
            slots: Slots::default(),
        };
        maps.guard_ipv4()?;
        Ok(maps)
    }

    /// Replaces the prefixes. At no moment is one missing that was there and stays, and nothing passes that
    /// neither the old nor the new ones let through. Counters of those that stay go on.
    ///
    /// # Errors
    /// If there are more than [`super::MAX_PREFIXES`], one twice, or one of IPv4-mapped addresses: then nothing
    /// has changed. If a map can't be written: then some of it has, and the same call can be made again.
    pub fn set_prefixes(&mut self, prefixes: &[SteeredPrefix]) -> Result<(), SteerError> {
        for entry in prefixes {
            address::prefix_key(entry.prefix)?;
        }
        let plan = self.slots.plan(prefixes)?;
        let cpus = cpus()?;
        for index in plan.cleared {
            let zero = PerCpuValues::try_from(vec![types::Volume::default(); cpus])
                .map_err(|error| SteerError::Load(error.to_string()))?;
            self.prefix_volumes
                .set(index, zero, 0)
                .map_err(|error| SteerError::writing(types::PREFIX_VOLUMES, &error))?;
        }
        for (prefix, slot) in plan.put {
            let (bits, key) = address::prefix_key(prefix)?;
            self.put_prefix(bits, key, slot)?;
            self.slots.put(prefix, slot);
        }
        for prefix in plan.removed {
            self.remove_prefix(prefix)?;
            self.slots.remove(&prefix);
        }
        self.slots.set_order(prefixes);
        Ok(())
    }

    fn remove_prefix(&mut self, prefix: IpNet) -> Result<(), SteerError> {
        let (bits, key) = address::prefix_key(prefix)?;
        if bits == Address::MAPPED_BITS && key == Address::v4(0) {
            return self.guard_ipv4();
        }
        missing_is_fine(types::PREFIXES, self.prefixes.remove(&Key::new(bits, key)))
    }

    fn put_prefix(&mut self, bits: u32, key: Address, slot: Slot) -> Result<(), SteerError> {
        let kind = match slot.kind {
            PrefixKind::Services => types::Prefix::SERVICES,
            PrefixKind::Other => types::Prefix::OTHER,
            PrefixKind::Excluded => types::Prefix::EXCLUDED,
        };
        self.prefixes
            .insert(
                &Key::new(bits, key),
                types::Prefix {
                    kind,
                    index: slot.index,
                },
                0,
            )
            .map_err(|error| SteerError::writing(types::PREFIXES, &error))
    }

    /// IPv4 addresses are ::ffff:0:0/96 in the map, so a shorter IPv6 prefix, ::/0 at least, would hold all of
    /// them. Where 0.0.0.0/0 is not steered by, an entry in its place says that none does.
    fn guard_ipv4(&mut self) -> Result<(), SteerError> {
        let none = types::Prefix {
            kind: types::Prefix::NONE,
            index: 0,
        };
        self.prefixes
            .insert(&Key::new(Address::MAPPED_BITS, Address::v4(0)), none, 0)
            .map_err(|error| SteerError::writing(types::PREFIXES, &error))
    }

    /// Makes changes, one after the other.
    ///
    /// # Errors
    /// At the first that can't be made; those before it are made, those behind it are not. [`SteerError::Full`],
    /// [`SteerError::Taken`], [`SteerError::Families`] and [`SteerError::Mapped`] name its address.
    pub fn apply(&mut self, changes: &[TargetChange]) -> Result<(), SteerError> {
        for change in changes {
            match change {
                TargetChange::Put(target) => self.put(target)?,
                TargetChange::Remove(address) => self.remove(*address)?,
            }
        }
        Ok(())
    }

    /// Replies find the way back before the first packet goes out, so the origin is written first.
    fn put(&mut self, target: &Target) -> Result<(), SteerError> {
        let key = address::key(target.address)?;
        let mut value = types::Target::default();
        if target.reject {
            value.flags |= types::Target::REJECT;
        }
        if target.service {
            value.flags |= types::Target::SERVICE;
        }
        if let Some(real) = target.real.filter(|real| *real != target.address) {
            if real.is_ipv4() != target.address.is_ipv4() {
                return Err(SteerError::Families {
                    address: target.address,
                    real,
                });
            }
            value.real = address::key(real)?;
            value.flags |= types::Target::REMAPPED;
            match self.origin(&value.real)? {
                Some(by) if by != key => {
                    return Err(SteerError::Taken {
                        address: target.address,
                        real,
                        by: address::address(&by),
                    });
                }
                Some(_) => {}
                None => self
                    .origins
                    .insert(value.real, key, 0)
                    .map_err(|error| full(target.address, types::ORIGINS, &error))?,
            }
        }
        let before = self.target(&key)?;
        if let Err(error) = self.targets.insert(key, value, 0) {
            // An origin without its target would hold the real address for nothing.
            if value.flags & types::Target::REMAPPED != 0
                && before.is_none_or(|before| before.real != value.real)
            {
                self.forget_origin(&value.real)?;
            }
            return Err(full(target.address, types::TARGETS, &error));
        }
        if let Some(before) = before
            && before.flags & types::Target::REMAPPED != 0
            && before.real != value.real
        {
            self.forget_origin(&before.real)?;
        }
        Ok(())
    }

    fn remove(&mut self, gone: IpAddr) -> Result<(), SteerError> {
        let key = address::key(gone)?;
        let Some(before) = self.target(&key)? else {
            return Ok(());
        };
        missing_is_fine(types::TARGETS, self.targets.remove(&key))?;
        if before.flags & types::Target::REMAPPED != 0 {
            self.forget_origin(&before.real)?;
        }
        missing_is_fine(types::TRAFFIC, self.traffic.remove(&key))
    }

    fn target(&self, key: &Address) -> Result<Option<types::Target>, SteerError> {
        found(types::TARGETS, self.targets.get(key, 0))
    }

    fn origin(&self, real: &Address) -> Result<Option<Address>, SteerError> {
        found(types::ORIGINS, self.origins.get(real, 0))
    }

    fn forget_origin(&mut self, real: &Address) -> Result<(), SteerError> {
        missing_is_fine(types::ORIGINS, self.origins.remove(real))
    }

    /// Says whether every service has a target, so that another address in a prefix of services can be refused.
    ///
    /// # Errors
    /// If the map can't be written.
    pub fn set_complete(&mut self, complete: bool) -> Result<(), SteerError> {
        let complete = if complete { Config::COMPLETE } else { 0 };
        self.set_flags(self.flags & !Config::COMPLETE | complete)
    }

    fn set_flags(&mut self, flags: u32) -> Result<(), SteerError> {
        self.config
            .set(0, Config { flags }, 0)
            .map_err(|error| SteerError::writing(types::CONFIG, &error))?;
        self.flags = flags;
        Ok(())
    }

    /// Diverts from the device of this index, whose packets lie like that, until the clock of `bpf_ktime_get_ns`
    /// shows that many nanoseconds; or ends it.
    ///
    /// # Errors
    /// If a map can't be written, or there are more than [`super::MAX_DEVICES`].
    pub fn set_diversion(
        &mut self,
        device: u32,
        diversion: Option<(&Diversion, LinkKind, u64)>,
    ) -> Result<(), SteerError> {
        let Some((diversion, link, until)) = diversion else {
            return missing_is_fine(types::DIVERTS, self.diverts.remove(&device));
        };
        let of = |v4: bool| {
            let own = diversion.addresses.iter().find(|own| own.is_ipv4() == v4);
            own.map_or(Ok(Address::default()), |own| address::key(*own))
        };
        let value = types::Divert {
            v4: of(true)?,
            v6: of(false)?,
            until,
            tun: diversion.tun,
            mtu: diversion.mtu,
            link: match link {
                LinkKind::Bare => types::Divert::BARE,
                LinkKind::Ethernet => types::Divert::ETHERNET,
                LinkKind::OneWay => types::Divert::ONE_WAY,
            },
            header: match link {
                LinkKind::Ethernet => 14,
                LinkKind::Bare | LinkKind::OneWay => 0,
            },
        };
        // Who comes back is looked for before the first one leaves.
        if self.flags & Config::DIVERTING == 0 {
            self.set_flags(self.flags | Config::DIVERTING)?;
        }
        self.diverts
            .insert(device, value, 0)
            .map_err(|error| SteerError::writing(types::DIVERTS, &error))
    }

    /// Sockets (`SO_COOKIE`) whose datagrams are never diverted, instead of those before: they carry the tunnel.
    ///
    /// # Errors
    /// If the map can't be written, or there are too many.
    pub fn set_carriers(&mut self, cookies: &[u64]) -> Result<(), SteerError> {
        for cookie in cookies {
            self.carriers
                .insert(cookie, 1, 0)
                .map_err(|error| SteerError::writing(types::CARRIERS, &error))?;
        }
        let known: Vec<u64> = self.carriers.keys().filter_map(Result::ok).collect();
        for cookie in known.iter().filter(|known| !cookies.contains(known)) {
            missing_is_fine(types::CARRIERS, self.carriers.remove(cookie))?;
        }
        Ok(())
    }
}

pub(crate) fn typed<T>(programs: &mut Ebpf, name: &'static str) -> Result<T, SteerError>
where
    T: TryFrom<Map, Error = MapError>,
{
    let map = programs
        .take_map(name)
        .ok_or_else(|| SteerError::Load(format!("the object has no map {name}")))?;
    T::try_from(map).map_err(|error| SteerError::Load(format!("the object's map {name}: {error}")))
}

fn cpus() -> Result<usize, SteerError> {
    aya::util::nr_cpus().map_err(|(path, error)| SteerError::Load(format!("{path}: {error}")))
}

fn found<T>(map: &'static str, result: Result<T, MapError>) -> Result<Option<T>, SteerError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(MapError::KeyNotFound) => Ok(None),
        Err(error) => Err(SteerError::reading(map, &error)),
    }
}

pub(crate) fn missing_is_fine(
    map: &'static str,
    result: Result<(), MapError>,
) -> Result<(), SteerError> {
    match result {
        Err(error)
            if !matches!(error, MapError::KeyNotFound)
                && os_error(&error) != Some(libc::ENOENT) =>
        {
            Err(SteerError::writing(map, &error))
        }
        _ => Ok(()),
    }
}

/// A hash that is full says E2BIG.
fn full(address: IpAddr, map: &'static str, error: &MapError) -> SteerError {
    match os_error(error) {
        Some(libc::E2BIG | libc::ENOSPC) => SteerError::Full { address },
        _ => SteerError::writing(map, error),
    }
}

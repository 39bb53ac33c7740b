//! The prefixes that virtual addresses are handed out of, where real ones collide.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use super::clash::{Clash, Obstacle};
use super::prefix::overlap;
use super::survey::Survey;
use super::walk::clashes;

/// Where the tunnel's own addresses come from (see the agent's pools).
const TUNNEL_V4: Ipv4Net = Ipv4Net::new_assert(std::net::Ipv4Addr::new(240, 64, 0, 0), 10);
const TUNNEL_V6: Ipv6Net = Ipv6Net::new_assert(
    std::net::Ipv6Addr::new(0xfd70, 0x6d7a, 0, 0, 0, 0, 0, 0),
    32,
);
/// Reserved for ever (RFC 1112, section 4), and Linux carries it: nobody's network is there but by mistake.
const RANGE_V4: Ipv4Net = Ipv4Net::new_assert(std::net::Ipv4Addr::new(240, 0, 0, 0), 4);
/// The tunnel's neighbour in the unique local addresses (RFC 4193).
const RANGE_V6: Ipv6Net = Ipv6Net::new_assert(
    std::net::Ipv6Addr::new(0xfd70, 0x6d7b, 0, 0, 0, 0, 0, 0),
    32,
);
/// 65,536 addresses: more services than a cluster has.
const LEN_V4: u8 = 16;
/// As wide as the service CIDR of a cluster.
const LEN_V6: u8 = 108;
/// ULA pools that are tried.
const TRIES_V6: u32 = 256;

/// Prefixes of virtual addresses, of the families in which anything is remapped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// For services and pods with IPv4 addresses.
    pub v4: Option<Ipv4Net>,
    /// For those with IPv6 addresses.
    pub v6: Option<Ipv6Net>,
}

impl Pool {
    /// Both, so far as they are there.
    pub fn nets(&self) -> Vec<IpNet> {
        let both = [self.v4.map(IpNet::V4), self.v6.map(IpNet::V6)];
        both.into_iter().flatten().collect()
    }
}

/// What the user wants of the pool; what is `None` is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PoolWish {
    /// From /8 to /24.
    pub v4: Option<Ipv4Net>,
    /// From /16 to /120.
    pub v6: Option<Ipv6Net>,
}

/// Why a prefix can't be a pool.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPool {
    /// It has too few addresses, or too many.
    #[error("{given} is no size for a pool of virtual addresses: from {least} to {most} it can be")]
    Size {
        /// What was given.
        given: IpNet,
        /// The widest.
        least: &'static str,
        /// The narrowest.
        most: &'static str,
    },
    /// The tunnel's own addresses come from there.
    #[error("{given} overlaps with {of}, where the tunnel's own addresses come from")]
    Tunnel {
        /// What was given.
        given: IpNet,
        /// Whose it is.
        of: IpNet,
    },
    /// There is one already.
    #[error("{given} is the second pool of its family: one for IPv4 and one for IPv6 can be given")]
    Second {
        /// What was given.
        given: IpNet,
    },
}

impl PoolWish {
    /// Out of prefixes, at most one of each family.
    ///
    /// # Errors
    /// See [`BadPool`].
    pub fn new(given: &[IpNet]) -> Result<Self, BadPool> {
        let mut wish = Self::default();
        for net in given {
            let second = match net {
                IpNet::V4(v4) => wish.v4.replace(*v4).is_some(),
                IpNet::V6(v6) => wish.v6.replace(*v6).is_some(),
            };
            if second {
                return Err(BadPool::Second { given: *net });
            }
        }
        wish.check()?;
        Ok(wish)
    }

    /// Whether these can be pools.
    ///
    /// # Errors
    /// See [`BadPool`].
    pub fn check(&self) -> Result<(), BadPool> {
        let given = [self.v4.map(IpNet::V4), self.v6.map(IpNet::V6)];
        for given in given.into_iter().flatten() {
            let (lengths, least, most, of) = match given {
                IpNet::V4(_) => (8..=24, "/8", "/24", IpNet::V4(TUNNEL_V4)),
                IpNet::V6(_) => (16..=120, "/16", "/120", IpNet::V6(TUNNEL_V6)),
            };
            if !lengths.contains(&given.prefix_len()) {
                return Err(BadPool::Size { given, least, most });
            }
            if overlap(&given, &of) {
                return Err(BadPool::Tunnel { given, of });
            }
        }
        Ok(())
    }

    /// Where a pool may come from: what a survey has to look at.
    pub(super) fn ranges(&self) -> [IpNet; 2] {
        [
            IpNet::V4(self.v4.unwrap_or(RANGE_V4)),
            IpNet::V6(self.v6.unwrap_or(RANGE_V6)),
        ]
    }

    /// Pools of the families of what is remapped, which collide neither with what the survey holds nor with
    /// `avoid`. Where something wide holds the whole range that they are chosen from (a VPN's fd00::/8), a
    /// part of that must do: nobody can have been told an address in it.
    ///
    /// # Errors
    /// What is in the way.
    pub(super) fn choose(
        &self,
        remapped: &[IpNet],
        avoid: &[IpNet],
        survey: &Survey,
    ) -> Result<Pool, Vec<Clash>> {
        let mut pool = Pool::default();
        if remapped.iter().any(|net| net.addr().is_ipv4()) {
            pool.v4 = Some(match self.v4 {
                Some(given) => only_if_free(given, avoid, survey)?,
                None => first_free(pools_v4(), RANGE_V4.into(), avoid, survey)?,
            });
        }
        if remapped.iter().any(|net| net.addr().is_ipv6()) {
            pool.v6 = Some(match self.v6 {
                Some(given) => only_if_free(given, avoid, survey)?,
                None => first_free(pools_v6(), RANGE_V6.into(), avoid, survey)?,
            });
        }
        Ok(pool)
    }
}

fn pools_v4() -> impl Iterator<Item = Ipv4Net> {
    // 240.0.0.0/8 last: it is the part of the range that is not quite unheard of inside of clouds.
    let (first, others) = (240_u32, 241..=255_u32);
    others.chain([first]).flat_map(|a| {
        (0..=255_u32).filter_map(move |b| {
            let net = Ipv4Net::new((a << 24 | b << 16).into(), LEN_V4).ok()?;
            let is_last = net.broadcast().is_broadcast();
            (!is_last && !TUNNEL_V4.contains(&net)).then_some(net)
        })
    })
}

fn pools_v6() -> impl Iterator<Item = Ipv6Net> {
    let base = u128::from(RANGE_V6.network());
    (1..=TRIES_V6).filter_map(move |n| {
        // A /64 for each, as a link would have.
        Ipv6Net::new((base | u128::from(n) << 64).into(), LEN_V6).ok()
    })
}

fn only_if_free<N: Copy + Into<IpNet>>(
    given: N,
    avoid: &[IpNet],
    survey: &Survey,
) -> Result<N, Vec<Clash>> {
    let found = taken(&given.into(), avoid, survey);
    if found.is_empty() {
        Ok(given)
    } else {
        Err(found)
    }
}

fn first_free<N: Copy + Into<IpNet>>(
    pools: impl Iterator<Item = N>,
    range: IpNet,
    avoid: &[IpNet],
    survey: &Survey,
) -> Result<N, Vec<Clash>> {
    let survey = &survey.near(&range);
    let mut first_found = None;
    let mut within = None;
    for pool in pools {
        let found = taken(&pool.into(), avoid, survey);
        if found.is_empty() {
            return Ok(pool);
        }
        let holds_range = |clash: &Clash| {
            let is_route = matches!(clash.obstacle, Obstacle::Route { .. });
            is_route && clash.with.contains(&range)
        };
        if found.iter().all(holds_range) {
            within.get_or_insert(pool);
        }
        // Then it is the same for all others.
        let is_hopeless = |clash: &Clash| clash.is_insuperable() && clash.with.contains(&range);
        let is_all = found.iter().any(is_hopeless);
        first_found.get_or_insert(found);
        if is_all {
            break;
        }
    }
    within.ok_or(first_found.unwrap_or_default())
}

fn taken(net: &IpNet, avoid: &[IpNet], survey: &Survey) -> Vec<Clash> {
    let mut found = clashes(net, survey);
    found.retain(Clash::is_general);
    let wanted = avoid.iter().filter(|other| overlap(net, other));
    found.extend(wanted.map(|other| Clash {
        net: *net,
        with: *other,
        obstacle: Obstacle::Wanted,
        only: None,
    }));
    found
}

#[cfg(test)]
mod tests {
    use super::super::survey::tests::{device_route, survey};
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    /// Pools for services of both families.
    fn choose(wish: PoolWish, avoid: &[&str], survey: &Survey) -> Result<Vec<String>, Vec<Clash>> {
        let avoid: Vec<IpNet> = avoid.iter().map(|text| net(text)).collect();
        let both = [net("10.96.0.0/16"), net("fd00:10:96::/108")];
        let pool = wish.choose(&both, &avoid, survey)?;
        Ok(pool.nets().iter().map(ToString::to_string).collect())
    }

    #[test]
    fn the_default_pools_are_reserved_addresses_and_ula_and_not_the_tunnels() {
        let pools = choose(PoolWish::default(), &[], &survey(&[])).unwrap();
        assert_eq!(pools, ["241.0.0.0/16", "fd70:6d7b:0:1::/108"]);
        for pool in pools_v4() {
            assert!(RANGE_V4.contains(&pool) && !overlap(&pool.into(), &TUNNEL_V4.into()));
            assert!(!pool.broadcast().is_broadcast());
        }
        assert_eq!(pools_v4().count(), 4096 - 64 - 1);
        for pool in pools_v6() {
            assert!(RANGE_V6.contains(&pool));
        }
        assert_eq!(pools_v6().count(), TRIES_V6 as usize);
    }

    #[test]
    fn there_is_a_pool_only_for_families_in_which_something_is_remapped() {
        let wish = PoolWish::default();
        let pool = wish.choose(&[net("10.96.0.0/16")], &[], &survey(&[]));
        let pool = pool.unwrap();
        assert!(pool.v4.is_some() && pool.v6.is_none());
    }

    #[test]
    fn a_pool_that_is_taken_is_passed_over() {
        let survey = survey(&[
            device_route("241.0.0.0/16", "pmz1"),
            device_route("241.1.7.0/24", "br0"),
            device_route("fd70:6d7b:0:1::/64", "br0"),
        ]);
        let pools = choose(PoolWish::default(), &["241.2.0.0/15"], &survey).unwrap();
        assert_eq!(pools, ["241.4.0.0/16", "fd70:6d7b:0:2::/108"]);
    }

    #[test]
    fn where_a_vpn_has_the_whole_range_a_part_of_it_that_is_not_taken_must_do() {
        let survey = survey(&[
            device_route("240.0.0.0/4", "lab0"),
            device_route("fd00::/8", "vpn0"),
            device_route("fd70:6d7b:0:1::/64", "br0"),
        ]);
        let pools = choose(PoolWish::default(), &[], &survey).unwrap();
        assert_eq!(pools, ["241.0.0.0/16", "fd70:6d7b:0:2::/108"]);
    }

    #[test]
    fn where_nothing_is_free_what_is_in_the_way_is_named() {
        let all: Vec<_> = (240..=255)
            .flat_map(|a| (0..16).map(move |b| format!("{a}.{}.0.0/12", b << 4)))
            .map(|net| device_route(&net, "lab0"))
            .collect();
        let found = choose(PoolWish::default(), &[], &survey(&all)).unwrap_err();
        assert!(found[0].to_string().contains("lab"), "{}", found[0]);
    }

    #[test]
    fn a_pool_that_was_given_is_taken_or_refused() {
        let given = PoolWish::new(&[net("198.18.0.0/16"), net("fd01::/64")]).unwrap();
        let pools = choose(given, &[], &survey(&[])).unwrap();
        assert_eq!(pools, ["198.18.0.0/16", "fd01::/64"]);
        let taken = survey(&[device_route("198.18.5.0/24", "br0")]);
        assert!(choose(given, &[], &taken).is_err());
        let found = choose(given, &["fd01::/48"], &survey(&[])).unwrap_err();
        assert!(found[0].to_string().contains("fd01::/48"), "{}", found[0]);
    }

    #[test]
    fn pools_of_no_use_are_refused_with_reasons() {
        for (given, reason) in [
            (&["10.0.0.0/7"][..], "/8 to /24"),
            (&["10.0.0.0/25"], "/8 to /24"),
            (&["fd00::/121"], "/16 to /120"),
            (&["240.64.0.0/16"], "240.64.0.0/10"),
            (&["fd70:6d7a:1::/64"], "fd70:6d7a::/32"),
            (&["198.18.0.0/16", "198.19.0.0/16"], "second pool"),
        ] {
            let nets: Vec<IpNet> = given.iter().map(|text| net(text)).collect();
            let said = PoolWish::new(&nets).unwrap_err().to_string();
            assert!(said.contains(reason), "{given:?}: {said}");
        }
    }
}

//! What is routed into the tunnel, what gets virtual addresses, and what is refused.

use std::fmt;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::clash::Clash;
use super::diversion::{self, Diverted, SteerPolicy};
use super::pool::{Pool, PoolWish};
use super::prefix::{cut, is_vast, never_meant, outermost};
use super::survey::Survey;
use super::walk::clashes;
use super::wanted::{Kind, Wanted};

/// Routes that a plan may have: what is cut out of prefixes multiplies them.
pub const MAX_ROUTES: usize = 512;
/// Clashes that are told; the others are counted.
const MAX_TOLD: usize = 16;

/// What to do where prefixes overlap with what is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OverlapPolicy {
    /// Those that collide get virtual addresses, the others are routed as they are.
    #[default]
    Auto,
    /// All of the cluster's get virtual addresses.
    Remap,
    /// They are routed all the same: the narrower prefix wins.
    PreferCluster,
    /// Nothing is done, and the clashes are told.
    Refuse,
}

/// All that a plan is made from, but for what the machine holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wishes {
    /// What is to be reached.
    pub wanted: Vec<Wanted>,
    /// What is cut out of it.
    #[serde(default)]
    pub excluded: Vec<IpNet>,
    /// Where it overlaps.
    #[serde(default)]
    pub policy: OverlapPolicy,
    /// Where virtual addresses are from.
    #[serde(default)]
    pub pool: PoolWish,
    /// Whether packets that something else leads elsewhere may be taken over there.
    #[serde(default)]
    pub steer: SteerPolicy,
}

/// What is to be done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Led into the tunnel as they are.
    pub direct: Vec<Wanted>,
    /// Get virtual addresses instead.
    pub remapped: Vec<Wanted>,
    /// Where those are from: one for each family in which anything is remapped. They have to be routed, too, and
    /// may lie within what something wide holds.
    pub pool: Pool,
    /// Go to other devices, and are taken over there.
    #[serde(default)]
    pub diverted: Vec<Diverted>,
    /// Which devices those are.
    #[serde(default)]
    pub devices: Vec<String>,
    /// What was found on the way: what is remapped, overlapped or only for some packets.
    pub clashes: Found,
}

impl Plan {
    /// Routes for what is led into the tunnel as it is; sorted, none within another.
    pub fn routes(&self) -> Vec<IpNet> {
        outermost(self.direct.iter().map(|wanted| wanted.net))
    }

    /// Routes of what is diverted, so that it is in the tunnel still when nothing leads it elsewhere any more.
    pub fn diverted_routes(&self) -> Vec<IpNet> {
        let routed = self.diverted.iter().filter(|it| it.routed);
        outermost(routed.map(|it| it.wanted.net))
    }

    /// All that is led into the tunnel under its own addresses, in whichever way.
    pub fn unchanged(&self) -> impl Iterator<Item = Wanted> + '_ {
        let diverted = self.diverted.iter().map(|it| it.wanted);
        self.direct.iter().copied().chain(diverted)
    }
}

/// Clashes, so many as anybody reads.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// The first ones.
    pub told: Vec<Clash>,
    /// How many there are beside them.
    pub others: usize,
}

impl From<Vec<Clash>> for Found {
    fn from(mut told: Vec<Clash>) -> Self {
        // What can't be helped first.
        told.sort_by_key(|clash| !clash.is_insuperable());
        let others = told.len().saturating_sub(MAX_TOLD);
        told.truncate(MAX_TOLD);
        Self { told, others }
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, clash) in self.told.iter().enumerate() {
            write!(f, "{}{clash}", if i == 0 { "" } else { "; " })?;
        }
        match self.others {
            0 => Ok(()),
            n => write!(f, "; and {n} more"),
        }
    }
}

/// Why there is no plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "reason", rename_all = "kebab-case")]
pub enum PlanError {
    /// Prefixes collide, and the policy does not let them.
    #[error("{clashes}")]
    Clashes {
        /// Which.
        clashes: Found,
    },
    /// Nothing is left of what is wanted.
    #[error("nothing is left to reach: all of {} is excluded", List(.wanted))]
    NothingLeft {
        /// What was wanted.
        wanted: Vec<IpNet>,
    },
    /// What is cut out leaves too many pieces.
    #[error("{count} routes would be needed, and {MAX_ROUTES} are the most")]
    TooMany {
        /// How many it would be.
        count: usize,
    },
    /// Prefixes would have to be remapped, and the pool of virtual addresses collides itself.
    #[error("{}there is no room for virtual addresses: {clashes}", Therefore(.because))]
    NoPool {
        /// What the pool collides with.
        clashes: Found,
        /// What the prefixes collide with, where they do.
        because: Found,
    },
}

struct Therefore<'a>(&'a Found);

impl fmt::Display for Therefore<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.told.is_empty() {
            return Ok(());
        }
        write!(f, "{}; and ", self.0)
    }
}

struct List<'a>(&'a [IpNet]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, net) in self.0.iter().enumerate() {
            write!(f, "{}{net}", if i == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

/// A wanted prefix, and what is left of it.
struct Part {
    wanted: Wanted,
    pieces: Vec<IpNet>,
}

impl Wishes {
    /// Which prefixes a [`Survey`] has to look at for these.
    ///
    /// # Errors
    /// As [`plan`] has them, where that needs no survey.
    pub fn subject(&self) -> Result<Subject, PlanError> {
        let parts = self.parts()?;
        Ok(Subject {
            nets: parts.into_iter().flat_map(|part| part.pieces).collect(),
            ranges: self.pool.ranges(),
        })
    }

    fn parts(&self) -> Result<Vec<Part>, PlanError> {
        let mut parts: Vec<Part> = Vec::new();
        let mut count = 0;
        for kind in [Kind::Services, Kind::Pods, Kind::Included] {
            let of_kind = self.wanted.iter().filter(|wanted| wanted.kind == kind);
            for net in outermost(of_kind.map(|wanted| wanted.net)) {
                let mut holes = self.excluded.clone();
                if is_vast(&net) {
                    holes.extend(never_meant());
                }
                let pieces = cut(net, &holes);
                count += pieces.len();
                let wanted = Wanted { net, kind };
                parts.push(Part { wanted, pieces });
            }
        }
        if count == 0 && !parts.is_empty() {
            let wanted = parts.iter().map(|part| part.wanted.net).take(MAX_TOLD);
            return Err(PlanError::NothingLeft {
                wanted: wanted.collect(),
            });
        }
        if count > MAX_ROUTES {
            return Err(PlanError::TooMany { count });
        }
        Ok(parts)
    }
}

/// What a survey is about: nothing else is of interest on machines with a million routes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// The kernel is asked where these go.
    pub nets: Vec<IpNet>,
    /// Routes there are of interest, too.
    pub ranges: [IpNet; 2],
}

enum Verdict {
    Direct,
    /// At these devices.
    Diverted(Vec<String>),
    Remapped,
    Refused,
}

/// Decides.
///
/// A prefix without a clash is routed as it is. One that collides, with whatever is no "everything", is what
/// the policy says; what the user has included is never remapped, and what is vast ([`is_vast`]) takes only
/// what nothing narrower takes, whatever the policy. Nothing is routed that would not be reached.
///
/// # Errors
/// See [`PlanError`].
///
/// With [`SteerPolicy::Auto`], packets are taken over at other devices only where there would be no connection
/// otherwise: that takes addresses from whoever has them, where virtual ones leave both reachable.
pub fn plan(wishes: &Wishes, survey: &Survey) -> Result<Plan, PlanError> {
    let made = decide(wishes, survey);
    match made {
        Err(PlanError::NoPool { .. }) if wishes.steer == SteerPolicy::Auto => {
            let diverting = Wishes {
                steer: SteerPolicy::Tc,
                ..wishes.clone()
            };
            decide(&diverting, survey).or(made)
        }
        made => made,
    }
}

fn decide(wishes: &Wishes, survey: &Survey) -> Result<Plan, PlanError> {
    let mut made = Plan::default();
    let (mut found, mut refused) = (Vec::new(), Vec::new());
    let parts = wishes.parts()?;
    for Part { wanted, pieces } in &parts {
        let mut of_part: Vec<Clash> = pieces
            .iter()
            .flat_map(|piece| clashes(piece, survey))
            .collect();
        if is_vast(&wanted.net) {
            of_part.retain(|clash| clash.is_insuperable() || !clash.is_general());
        }
        let kind = wanted.kind;
        let wanted_pieces = pieces.iter().map(|net| Wanted { net: *net, kind });
        match verdict(wishes, kind, &of_part, survey) {
            Verdict::Direct => made.direct.extend(wanted_pieces),
            Verdict::Diverted(devices) => {
                made.devices.extend(devices);
                made.diverted.extend(wanted_pieces.map(|wanted| {
                    let of_piece: Vec<Clash> = of_part
                        .iter()
                        .filter(|clash| clash.net == wanted.net)
                        .cloned()
                        .collect();
                    let routed = diversion::is_routed(&of_piece);
                    Diverted { wanted, routed }
                }));
            }
            Verdict::Remapped => made.remapped.extend(wanted_pieces),
            Verdict::Refused => {
                refused.extend(of_part.into_iter().filter(Clash::is_general));
                continue;
            }
        }
        found.extend(of_part);
    }
    if !refused.is_empty() {
        return Err(PlanError::Clashes {
            clashes: refused.into(),
        });
    }
    made.devices.sort();
    made.devices.dedup();
    made.clashes = found.into();
    if !made.remapped.is_empty() {
        let of_cluster = parts.iter().map(|part| part.wanted.net);
        let avoid: Vec<IpNet> = of_cluster.filter(|net| !is_vast(net)).collect();
        let remapped: Vec<IpNet> = made.remapped.iter().map(|wanted| wanted.net).collect();
        let pool = wishes.pool.choose(&remapped, &avoid, survey);
        made.pool = pool.map_err(|clashes| PlanError::NoPool {
            clashes: clashes.into(),
            because: made.clashes.clone(),
        })?;
    }
    Ok(made)
}

fn verdict(wishes: &Wishes, kind: Kind, found: &[Clash], survey: &Survey) -> Verdict {
    let policy = wishes.policy;
    let without = by_policy(policy, kind, found);
    let diverts = match wishes.steer {
        SteerPolicy::Route => false,
        SteerPolicy::Auto => matches!(without, Verdict::Refused),
        SteerPolicy::Tc => policy != OverlapPolicy::Remap && !found.is_empty(),
    };
    if !diverts || policy == OverlapPolicy::Refuse {
        return without;
    }
    match diversion::devices(found, survey) {
        Some(devices) if !devices.is_empty() => Verdict::Diverted(devices),
        // The tunnel's own route wins, which only who asks for it wants.
        Some(_) if wishes.steer == SteerPolicy::Tc => Verdict::Direct,
        _ => without,
    }
}

fn by_policy(policy: OverlapPolicy, kind: Kind, found: &[Clash]) -> Verdict {
    let collides = found.iter().any(Clash::is_general);
    let is_hopeless = found.iter().any(Clash::is_insuperable);
    let is_named = kind != Kind::Included;
    match policy {
        OverlapPolicy::Remap if is_named => Verdict::Remapped,
        OverlapPolicy::PreferCluster if !is_hopeless => Verdict::Direct,
        OverlapPolicy::PreferCluster => Verdict::Refused,
        OverlapPolicy::Auto | OverlapPolicy::Remap | OverlapPolicy::Refuse if !collides => {
            Verdict::Direct
        }
        OverlapPolicy::Auto if is_named => Verdict::Remapped,
        OverlapPolicy::Auto | OverlapPolicy::Remap | OverlapPolicy::Refuse => Verdict::Refused,
    }
}

#[cfg(test)]
mod tests;

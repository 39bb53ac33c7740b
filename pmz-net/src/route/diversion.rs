//! Where packets could be taken over that something else leads past the tunnel.

use serde::{Deserialize, Serialize};

use super::clash::{Clash, Fate, Obstacle, Overlap};
use super::prefix::overlap;
use super::survey::{RouteKind, Survey};
use super::tables::MAIN;
use super::wanted::Wanted;

/// Devices that are diverted from in one plan; more are a sign that something is wrong.
const MAX_DEVICES: usize = 16;

/// Whether packets may be taken over at other devices than the tunnel's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SteerPolicy {
    /// Where neither routes nor virtual addresses would lead into the tunnel.
    #[default]
    Auto,
    /// Nowhere.
    Route,
    /// Wherever a prefix collides, instead of virtual addresses.
    Tc,
}

/// A prefix whose packets something else leads to another device, where they are taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diverted {
    /// Which.
    #[serde(flatten)]
    pub wanted: Wanted,
    /// Whether it gets a route as well, for when what leads it elsewhere is gone: the main table has no other for
    /// the same prefix.
    pub routed: bool,
}

/// The devices at which all packets for `net` can be taken over that those clashes lead there; `None` where some get
/// to no device. None at all where the tunnel's own route wins.
pub(super) fn devices(clashes: &[Clash], survey: &Survey) -> Option<Vec<String>> {
    let mut all: Vec<String> = Vec::new();
    for clash in clashes {
        match of_clash(clash, survey) {
            Some(names) => all.extend(names),
            None if clash.is_general() => return None,
            // Of those few packets it is told that they go elsewhere.
            None => {}
        }
    }
    all.sort();
    all.dedup();
    (all.len() <= MAX_DEVICES).then_some(all)
}

/// Whether the main table has another route for the very prefix.
pub(super) fn is_routed(clashes: &[Clash]) -> bool {
    !clashes.iter().any(|clash| {
        matches!(clash.obstacle, Obstacle::Route { table, .. } if table == MAIN)
            && clash.overlap() == Overlap::Same
    })
}

fn of_clash(clash: &Clash, survey: &Survey) -> Option<Vec<String>> {
    let (table, fate) = match &clash.obstacle {
        // Asked after the main table, or wider than the tunnel's own route.
        Obstacle::Route { table, .. } if *table != MAIN || clash.overlap() == Overlap::Wider => {
            return Some(Vec::new());
        }
        Obstacle::Route { table, fate } | Obstacle::Kernel { table, fate } => (*table, fate),
        Obstacle::Rule {
            table: Some(table),
            fate,
            ..
        } => (*table, fate),
        // This machine keeps its own address. A device that is down has no packets yet.
        Obstacle::Address { .. } => return Some(Vec::new()),
        Obstacle::Rule { table: None, .. } | Obstacle::Wanted => return None,
    };
    let Fate::Devices(names) = fate else {
        return None;
    };
    let reach = |name: &String| {
        !name.starts_with("pmz")
            && (survey.quiet.contains(name) || !is_on_link(clash, table, name, survey))
    };
    (!names.is_empty() && names.iter().all(reach)).then(|| names.clone())
}

/// Whether packets would go to neighbours on that device: the kernel asks for the neighbour first, nobody answers for
/// an address of the cluster's, and no packet gets as far as the device.
fn is_on_link(clash: &Clash, table: u32, device: &str, survey: &Survey) -> bool {
    let part = if clash.with.contains(&clash.net) {
        clash.net
    } else {
        clash.with
    };
    survey.routes.iter().any(|route| {
        let by_itself = route.device.as_deref() == Some(device) && route.gateway.is_none();
        let by_a_hop = route
            .hops
            .iter()
            .any(|hop| hop.device.as_deref() == Some(device) && hop.gateway.is_none());
        route.table == table
            && route.kind == RouteKind::Unicast
            && overlap(&route.prefix, &part)
            && (by_itself || by_a_hop)
    })
}

#[cfg(test)]
mod tests {
    use super::super::plan::{OverlapPolicy, PlanError, Wishes, plan};
    use super::super::rule::{Rule, RuleAction};
    use super::super::survey::ExistingRoute;
    use super::super::survey::tests::{device_route, survey};
    use super::super::wanted::Kind;
    use super::*;

    const SERVICES: &str = "10.96.0.0/16";

    fn wishes(steer: SteerPolicy, policy: OverlapPolicy) -> Wishes {
        let net = SERVICES.parse().unwrap();
        let kind = Kind::Services;
        Wishes {
            wanted: vec![Wanted { net, kind }],
            policy,
            steer,
            ..Wishes::default()
        }
    }

    /// A rule before the main table leads that prefix to a VPN's device.
    fn ruled(prefix: &str) -> Survey {
        let route = ExistingRoute {
            table: 7,
            ..device_route(prefix, "vpn0")
        };
        let rule = |preference, table| Rule {
            preference,
            action: RuleAction::Table(table),
            ..Rule::default()
        };
        Survey {
            rules: vec![rule(0, 255), rule(100, 7), rule(32_766, 254)],
            quiet: vec!["vpn0".to_owned()],
            ..survey(&[route])
        }
    }

    fn nets(diverted: &[Diverted]) -> Vec<(String, bool)> {
        let shown = diverted.iter();
        shown
            .map(|it| (it.wanted.net.to_string(), it.routed))
            .collect()
    }

    #[test]
    fn tc_diverts_what_a_rule_takes_instead_of_virtual_addresses_and_route_does_not() {
        let survey = ruled("10.0.0.0/8");
        let by = |steer| plan(&wishes(steer, OverlapPolicy::Auto), &survey).unwrap();
        let made = by(SteerPolicy::Tc);
        assert_eq!(nets(&made.diverted), [(SERVICES.to_owned(), true)]);
        assert_eq!(made.devices, ["vpn0"]);
        assert!(made.remapped.is_empty() && made.direct.is_empty());
        assert_eq!(made.diverted_routes().len(), 1);
        assert!(made.clashes.to_string().contains("rule 100"));
        for steer in [SteerPolicy::Auto, SteerPolicy::Route] {
            let made = by(steer);
            assert_eq!((made.remapped.len(), made.diverted.len()), (1, 0));
        }
    }

    #[test]
    fn auto_diverts_where_a_rule_takes_virtual_addresses_too() {
        let survey = ruled("0.0.0.0/0");
        let made = plan(&wishes(SteerPolicy::Auto, OverlapPolicy::Auto), &survey).unwrap();
        assert_eq!(made.devices, ["vpn0"]);
        let preferring = wishes(SteerPolicy::Auto, OverlapPolicy::PreferCluster);
        assert_eq!(plan(&preferring, &survey).unwrap().devices, ["vpn0"]);
        let without = wishes(SteerPolicy::Route, OverlapPolicy::Auto);
        let error = plan(&without, &survey).unwrap_err();
        assert!(matches!(error, PlanError::NoPool { .. }), "{error}");
        for steer in [SteerPolicy::Auto, SteerPolicy::Tc] {
            let refusing = wishes(steer, OverlapPolicy::Refuse);
            let error = plan(&refusing, &survey).unwrap_err();
            assert!(matches!(error, PlanError::Clashes { .. }), "{error}");
        }
    }

    #[test]
    fn the_same_prefix_on_another_device_is_diverted_without_a_route_and_a_wider_one_needs_nothing()
    {
        let mut same = survey(&[device_route(SERVICES, "vpn0")]);
        same.quiet.push("vpn0".to_owned());
        let tc = wishes(SteerPolicy::Tc, OverlapPolicy::Auto);
        let made = plan(&tc, &same).unwrap();
        assert_eq!(nets(&made.diverted), [(SERVICES.to_owned(), false)]);
        assert!(made.diverted_routes().is_empty());
        let wider = survey(&[device_route("10.0.0.0/8", "vpn0")]);
        let made = plan(&tc, &wider).unwrap();
        assert_eq!(made.routes().len(), 1);
        assert!(made.diverted.is_empty() && made.devices.is_empty());
    }

    #[test]
    fn neighbours_on_a_link_can_not_be_taken_over_and_a_gateway_can() {
        let tc = wishes(SteerPolicy::Tc, OverlapPolicy::Auto);
        let mut narrower = device_route("10.96.5.0/24", "eth1");
        let made = plan(&tc, &survey(std::slice::from_ref(&narrower))).unwrap();
        assert_eq!((made.remapped.len(), made.diverted.len()), (1, 0));
        narrower.gateway = Some("192.0.2.1".parse().unwrap());
        let made = plan(&tc, &survey(&[narrower])).unwrap();
        assert_eq!(made.devices, ["eth1"]);
    }

    #[test]
    fn what_gets_to_no_device_is_remapped_all_the_same() {
        let tc = wishes(SteerPolicy::Tc, OverlapPolicy::Auto);
        let blackhole = ExistingRoute {
            kind: RouteKind::Blackhole,
            ..device_route("10.96.5.0/24", "vpn0")
        };
        let made = plan(&tc, &survey(&[blackhole])).unwrap();
        assert_eq!((made.remapped.len(), made.diverted.len()), (1, 0));
    }
}

//! Finds what a prefix collides with, by going the way through rules and tables that the kernel goes.

use ipnet::IpNet;

use super::clash::{Clash, Fate, Obstacle};
use super::prefix::{is_everything, overlap};
use super::rule::{Match, Rule, RuleAction};
use super::survey::{ExistingRoute, RouteKind, Survey};
use super::tables::{LOCAL, MAIN};

/// More clashes of one prefix than anybody reads.
const MAX_CLASHES: usize = 64;

/// What keeps packets to `net` from a route for it in the main table, or would be kept from its own packets
/// by that route.
///
/// Wider routes that stand for "everything" are none ([`is_everything`]), nor are wider ones that drop
/// packets: whatever is narrower is meant to override them. What is only for some packets is told, too, and
/// marked so ([`Clash::is_general`]).
pub fn clashes(net: &IpNet, survey: &Survey) -> Vec<Clash> {
    let mut walk = Walk {
        net: net.trunc(),
        survey,
        ours: false,
        found: Vec::new(),
    };
    walk.rules();
    walk.addresses();
    walk.kernel();
    walk.found
}

struct Walk<'a> {
    net: IpNet,
    survey: &'a Survey,
    /// The main table, where a route for `net` would be found, has been asked.
    ours: bool,
    found: Vec<Clash>,
}

impl<'a> Walk<'a> {
    fn rules(&mut self) {
        let ipv6 = self.net.addr().is_ipv6();
        let mut rules: Vec<&Rule> = self
            .survey
            .rules
            .iter()
            .filter(|rule| rule.ipv6 == ipv6)
            .collect();
        // A kernel without policy routing asks these two.
        let fixed = [(0, LOCAL), (32_766, MAIN)].map(|(preference, table)| Rule {
            ipv6,
            preference,
            action: RuleAction::Table(table),
            ..Rule::default()
        });
        if rules.is_empty() {
            rules.extend(&fixed);
        }
        rules.sort_by_key(|rule| rule.preference);
        // Rules can only lead on, never back: the kernel takes no other.
        let mut next = 0;
        for rule in rules {
            if rule.preference < next {
                continue;
            }
            let Some(matched) = rule.matches(&self.net, self.survey.user) else {
                continue;
            };
            let whole = matched.only.is_none() && matched.part == self.net;
            let ends = match rule.action {
                RuleAction::Nop => false,
                RuleAction::Goto(target) => {
                    if whole {
                        next = target;
                    }
                    false
                }
                RuleAction::Table(table) => self.look_up(rule, table, &matched) && whole,
                RuleAction::Blackhole => self.drops(rule, matched, Fate::Blackholed) && whole,
                RuleAction::Unreachable => self.drops(rule, matched, Fate::Unreachable) && whole,
                RuleAction::Prohibit => self.drops(rule, matched, Fate::Prohibited) && whole,
            };
            if ends {
                return;
            }
        }
    }

    fn drops(&mut self, rule: &Rule, matched: Match, fate: Fate) -> bool {
        if !self.ours {
            let obstacle = Obstacle::Rule {
                preference: rule.preference,
                table: None,
                fate,
            };
            self.push(matched.part, obstacle, matched.only);
        }
        true
    }

    /// What a table holds for the part of `net` that the rule is for. Says whether packets to all of that
    /// part find a route now.
    fn look_up(&mut self, rule: &Rule, table: u32, matched: &Match) -> bool {
        let holds_ours = table == MAIN && rule.takes(self.net.prefix_len());
        if matched.only.is_some() && (self.ours || holds_ours) {
            return false;
        }
        let (cover, inner) = self.routes(rule, table, &matched.part);
        let is_before = !self.ours && !holds_ours;
        for route in inner.into_iter().filter(|r| r.kind != RouteKind::Throw) {
            if is_before {
                self.before(rule, route, route.prefix, matched.only.clone());
            } else {
                self.beside(route);
            }
        }
        if holds_ours && matched.part == self.net {
            self.ours = true;
        }
        let Some(cover) = cover.filter(|route| route.kind != RouteKind::Throw) else {
            return false;
        };
        if is_before {
            let whole = matched.part == self.net;
            let with = if whole { cover.prefix } else { matched.part };
            self.before(rule, cover, with, matched.only.clone());
        } else if cover.prefix == self.net
            || (cover.kind == RouteKind::Unicast && !is_everything(&cover.prefix))
        {
            self.beside(cover);
        }
        true
    }

    /// The route that packets to all of `part` take, and the narrower ones within it.
    fn routes(
        &self,
        rule: &Rule,
        table: u32,
        part: &IpNet,
    ) -> (Option<&'a ExistingRoute>, Vec<&'a ExistingRoute>) {
        let in_table = self
            .survey
            .routes
            .iter()
            .filter(|route| route.table == table && rule.takes(route.prefix.prefix_len()));
        let mut cover: Option<&ExistingRoute> = None;
        let mut inner = Vec::new();
        for route in in_table {
            if route.prefix.contains(part) {
                let rank = |r: &ExistingRoute| (r.prefix.prefix_len(), u32::MAX - r.metric);
                if cover.is_none_or(|best| rank(route) > rank(best)) {
                    cover = Some(route);
                }
            } else if part.contains(&route.prefix) {
                inner.push(route);
            }
        }
        (cover, inner)
    }

    /// A route that is found before the main table is asked.
    fn before(&mut self, rule: &Rule, route: &ExistingRoute, with: IpNet, only: Option<String>) {
        if route.table == LOCAL && route.kind == RouteKind::Local {
            let is_known = self
                .survey
                .addresses
                .iter()
                .any(|own| IpNet::from(own.address.addr()) == route.prefix);
            if !is_known {
                self.push(with, route_obstacle(route), only);
            }
            return;
        }
        let obstacle = Obstacle::Rule {
            preference: rule.preference,
            table: Some(route.table),
            fate: route.into(),
        };
        self.push(with, obstacle, only);
    }

    fn beside(&mut self, route: &ExistingRoute) {
        self.push(route.prefix, route_obstacle(route), None);
    }

    fn addresses(&mut self) {
        let survey = self.survey;
        for own in &survey.addresses {
            let address = IpNet::from(own.address.addr());
            let network = own.address.trunc();
            let with = if self.net.contains(&address) {
                address
            } else if own.sleeping && overlap(&self.net, &network) && !is_everything(&network) {
                network
            } else {
                continue;
            };
            let obstacle = Obstacle::Address {
                device: own.device.clone(),
                sleeping: own.sleeping,
            };
            self.push(with, obstacle, None);
        }
    }

    /// The kernel knows what is not modelled here; it is believed where nothing else was found.
    fn kernel(&mut self) {
        if self.found.iter().any(Clash::is_general) {
            return;
        }
        let (survey, net) = (self.survey, self.net);
        let of_net = survey.lookups.iter().filter(|l| net.contains(&l.address));
        for lookup in of_net.filter(|l| !is_everything(&l.route.prefix)) {
            let obstacle = Obstacle::Kernel {
                table: lookup.route.table,
                fate: (&lookup.route).into(),
            };
            self.push(lookup.route.prefix, obstacle, None);
        }
    }

    fn push(&mut self, with: IpNet, obstacle: Obstacle, only: Option<String>) {
        let clash = Clash {
            net: self.net,
            with,
            obstacle,
            only,
        };
        // What nothing can be done about is told in any case.
        let fits = self.found.len() < MAX_CLASHES || clash.is_insuperable();
        if fits && !self.found.contains(&clash) {
            self.found.push(clash);
        }
    }
}

fn route_obstacle(route: &ExistingRoute) -> Obstacle {
    Obstacle::Route {
        table: route.table,
        fate: route.into(),
    }
}

#[cfg(test)]
mod tests;

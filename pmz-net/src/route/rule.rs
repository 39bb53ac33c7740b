//! Policy rules (`ip rule`): which packets they are for.

use ipnet::IpNet;

/// What a rule does with packets that it matches (fib_rules.h, FR_ACT_*).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuleAction {
    /// Looks for a route in this table; where there is none, the next rule is asked.
    Table(u32),
    /// Goes on with the first rule of this preference or a later one.
    Goto(u32),
    /// Nothing.
    Nop,
    /// Drops them.
    Blackhole,
    /// Drops them, and says that nobody is there.
    Unreachable,
    /// Drops them, and says that it is forbidden.
    Prohibit,
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Whether it is for IPv6; else for IPv4.
    pub ipv6: bool,
    /// Rules are asked in the order of this number, the lowest first.
    pub preference: u32,
    /// What it does.
    pub action: RuleAction,
    /// It is for all packets but those that its selectors choose.
    pub invert: bool,
    /// Source addresses.
    pub from: Option<IpNet>,
    /// Destinations.
    pub to: Option<IpNet>,
    /// Firewall mark, and the bits of it that count.
    pub mark: Option<(u32, u32)>,
    /// The device that packets came in by; `lo` for the machine's own.
    pub input: Option<String>,
    /// The device that a socket is bound to.
    pub output: Option<String>,
    /// Users whose sockets it is for, first and last.
    pub users: Option<(u32, u32)>,
    /// It is for packets of a VRF, and looks into that VRF's table.
    pub vrf: bool,
    /// It is for packets out of a tunnel with an id.
    pub decapsulated: bool,
    /// Selectors that some packets to any address meet, in words: "of protocol tcp".
    pub others: Vec<String>,
    /// A route that is found and has this prefix length or a shorter one is passed over.
    pub suppress: Option<u32>,
}

impl Default for Rule {
    /// A rule of the main table, for all packets of IPv4.
    fn default() -> Self {
        Self {
            ipv6: false,
            preference: 32_766,
            action: RuleAction::Table(super::tables::MAIN),
            invert: false,
            from: None,
            to: None,
            mark: None,
            input: None,
            output: None,
            users: None,
            vrf: false,
            decapsulated: false,
            others: Vec::new(),
            suppress: None,
        }
    }
}

/// Which packets to a prefix a rule is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Match {
    /// The part of the prefix.
    pub(super) part: IpNet,
    /// Which packets, where it is not every ordinary one: "with mark 0x1".
    pub(super) only: Option<String>,
}

impl Rule {
    /// Which packets to `net` the rule is for; `None` if for no packet.
    ///
    /// An ordinary packet is one of a socket of `user` on this machine that is bound to nothing, and
    /// nobody has marked it.
    pub(super) fn matches(&self, net: &IpNet, user: u32) -> Option<Match> {
        if self.vrf {
            return None;
        }
        let part = match &self.to {
            None => Some(*net),
            Some(to) if to.contains(net) => Some(*net),
            Some(to) if net.contains(to) => Some(*to),
            Some(_) => None,
        };
        let unusual = self.unusual(user);
        let all = |only| Some(Match { part: *net, only });
        match (part, self.invert) {
            (None, false) => None,
            (None, true) => all(None),
            // No ordinary packet is chosen, so all are meant.
            (Some(_), true) if !unusual.is_empty() => all(None),
            (Some(_), true) if !self.others.is_empty() => {
                all(Some(format!("other than those {}", self.others.join(" "))))
            }
            (Some(part), true) => (part != *net).then_some(Match {
                part: *net,
                only: None,
            }),
            (Some(part), false) => {
                let words = [unusual, self.others.clone()].concat();
                let only = (!words.is_empty()).then(|| words.join(" "));
                Some(Match { part, only })
            }
        }
    }

    /// The selectors that no ordinary packet meets, in words.
    fn unusual(&self, user: u32) -> Vec<String> {
        let mut words = Vec::new();
        if let Some(from) = self.from {
            words.push(format!("from {from}"));
        }
        if let Some((mark, mask)) = self.mark
            && mark & mask != 0
        {
            words.push(format!("with mark {mark:#x}"));
        }
        if let Some(device) = self.input.as_ref().filter(|name| *name != "lo") {
            words.push(format!("that come in by {device}"));
        }
        if let Some(device) = &self.output {
            words.push(format!("of sockets that are bound to {device}"));
        }
        if let Some((first, last)) = self.users
            && !(first..=last).contains(&user)
        {
            words.push(format!("of users {first} to {last}"));
        }
        if self.decapsulated {
            words.push("out of a tunnel with an id".to_owned());
        }
        words
    }

    /// Whether a route of this prefix length is taken where it is found.
    pub(super) fn takes(&self, prefix_len: u8) -> bool {
        self.suppress
            .is_none_or(|longest| u32::from(prefix_len) > longest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USER: u32 = 1000;

    fn rule() -> Rule {
        Rule::default()
    }

    /// For which packets to 10.96.0.0/16.
    fn matched(rule: &Rule) -> Option<(String, Option<String>)> {
        let found = rule.matches(&"10.96.0.0/16".parse().unwrap(), USER)?;
        Some((found.part.to_string(), found.only))
    }

    fn all() -> Option<(String, Option<String>)> {
        Some(("10.96.0.0/16".to_owned(), None))
    }

    fn some(only: &str) -> Option<(String, Option<String>)> {
        Some(("10.96.0.0/16".to_owned(), Some(only.to_owned())))
    }

    #[test]
    fn a_rule_without_selectors_is_for_all_packets() {
        assert_eq!(matched(&rule()), all());
    }

    #[test]
    fn a_rule_for_destinations_is_for_the_part_that_it_covers() {
        let to = |to: &str| Rule {
            to: Some(to.parse().unwrap()),
            ..rule()
        };
        assert_eq!(matched(&to("10.0.0.0/8")), all());
        assert_eq!(
            matched(&to("10.96.7.0/24")),
            Some(("10.96.7.0/24".to_owned(), None))
        );
        assert_eq!(matched(&to("10.97.0.0/16")), None);
        assert_eq!(matched(&to("fd00::/8")), None);
    }

    #[test]
    fn a_mark_chooses_marked_packets_and_its_inversion_the_others() {
        let mut marked = Rule {
            mark: Some((0xca6c, u32::MAX)),
            ..rule()
        };
        assert_eq!(matched(&marked), some("with mark 0xca6c"));
        marked.invert = true;
        assert_eq!(matched(&marked), all());
        // Mark 0 under a mask is what ordinary packets have.
        marked.mark = Some((0, 0xff));
        assert_eq!(matched(&marked), None);
        marked.invert = false;
        assert_eq!(matched(&marked), all());
    }

    #[test]
    fn devices_and_sources_choose_packets_that_are_not_ordinary() {
        let from = Rule {
            from: Some("192.168.1.0/24".parse().unwrap()),
            ..rule()
        };
        assert_eq!(matched(&from), some("from 192.168.1.0/24"));
        let mut input = Rule {
            input: Some("docker0".to_owned()),
            ..rule()
        };
        assert_eq!(matched(&input), some("that come in by docker0"));
        input.input = Some("lo".to_owned());
        assert_eq!(matched(&input), all());
        let output = Rule {
            output: Some("eth1".to_owned()),
            ..rule()
        };
        assert!(matched(&output).unwrap().1.is_some());
    }

    #[test]
    fn users_are_told_apart() {
        let mut rule = Rule {
            users: Some((1000, 1999)),
            ..rule()
        };
        assert_eq!(matched(&rule), all());
        rule.users = Some((0, 99));
        assert_eq!(matched(&rule), some("of users 0 to 99"));
        rule.invert = true;
        assert_eq!(matched(&rule), all());
    }

    #[test]
    fn selectors_that_some_packets_meet_are_told_both_ways() {
        let mut rule = Rule {
            others: vec!["of protocol tcp".to_owned(), "to port 443".to_owned()],
            ..rule()
        };
        assert_eq!(matched(&rule), some("of protocol tcp to port 443"));
        rule.invert = true;
        let words = "other than those of protocol tcp to port 443";
        assert_eq!(matched(&rule), some(words));
    }

    #[test]
    fn inverted_destinations_are_all_others() {
        let not = |to: &str| Rule {
            to: Some(to.parse().unwrap()),
            invert: true,
            ..rule()
        };
        assert_eq!(matched(&not("10.0.0.0/8")), None);
        assert_eq!(matched(&not("172.16.0.0/12")), all());
        assert_eq!(matched(&not("10.96.7.0/24")), all());
    }

    #[test]
    fn a_vrfs_rule_is_for_its_own_packets() {
        let vrf = Rule {
            vrf: true,
            ..rule()
        };
        assert_eq!(matched(&vrf), None);
    }

    #[test]
    fn short_prefixes_are_suppressed() {
        let rule = Rule {
            suppress: Some(0),
            ..rule()
        };
        assert!(!rule.takes(0) && rule.takes(1) && rule.takes(16));
        assert!(Rule::default().takes(0));
    }
}

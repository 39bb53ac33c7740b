//! Which prefix counts where: places in the array of volumes, kept as long as the prefix is.

use std::collections::{HashMap, HashSet};

use ipnet::IpNet;
use pmz_xdp_types::PREFIX_SLOTS;

use super::{MAX_PREFIXES, PrefixKind, SteerError, SteeredPrefix};

/// A prefix's entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) kind: PrefixKind,
    pub(super) index: u32,
}

/// The prefixes in the map, and their places.
#[derive(Debug, Default)]
pub(super) struct Slots {
    held: HashMap<IpNet, Slot>,
    order: Vec<IpNet>,
}

/// What has to be done to get from one set of prefixes to another, in this order.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// Written: new ones, and those whose kind is another. What is excluded comes first, so that at no moment
    /// more passes than by the old or the new set.
    pub(super) put: Vec<(IpNet, Slot)>,
    /// Of these, the places whose counters begin at zero.
    pub(super) cleared: Vec<u32>,
    /// Taken out.
    pub(super) removed: Vec<IpNet>,
}

impl Slots {
    /// Plans the change to `wanted`.
    ///
    /// # Errors
    /// If there are too many, or one is there twice.
    pub(super) fn plan(&self, wanted: &[SteeredPrefix]) -> Result<Plan, SteerError> {
        if wanted.len() > MAX_PREFIXES {
            return Err(SteerError::TooManyPrefixes(wanted.len()));
        }
        let mut seen = HashSet::with_capacity(wanted.len());
        for entry in wanted {
            if !seen.insert(entry.prefix.trunc()) {
                return Err(SteerError::TwicePrefix(entry.prefix.trunc()));
            }
        }
        // A removed prefix keeps its place until it is out of the map, so it can't be given away yet.
        let taken: HashSet<u32> = self.held.values().map(|slot| slot.index).collect();
        let mut free = (0..PREFIX_SLOTS).filter(|index| !taken.contains(index));
        let mut plan = Plan::default();
        for entry in wanted {
            let prefix = entry.prefix.trunc();
            match self.held.get(&prefix) {
                Some(slot) if slot.kind == entry.kind => {}
                Some(slot) => plan.put.push((
                    prefix,
                    Slot {
                        kind: entry.kind,
                        ..*slot
                    },
                )),
                None => {
                    let Some(index) = free.next() else {
                        return Err(SteerError::TooManyPrefixes(wanted.len()));
                    };
                    plan.cleared.push(index);
                    plan.put.push((
                        prefix,
                        Slot {
                            kind: entry.kind,
                            index,
                        },
                    ));
                }
            }
        }
        plan.put
            .sort_by_key(|(_, slot)| slot.kind != PrefixKind::Excluded);
        plan.removed = self
            .held
            .keys()
            .filter(|prefix| !seen.contains(*prefix))
            .copied()
            .collect();
        // What goes because it was excluded goes last.
        plan.removed.sort_by_key(|prefix| {
            self.held
                .get(prefix)
                .is_some_and(|slot| slot.kind == PrefixKind::Excluded)
        });
        Ok(plan)
    }

    /// A prefix is in the map.
    pub(super) fn put(&mut self, prefix: IpNet, slot: Slot) {
        self.held.insert(prefix, slot);
    }

    /// A prefix is out of the map.
    pub(super) fn remove(&mut self, prefix: &IpNet) {
        self.held.remove(prefix);
    }

    /// In which order they are shown.
    pub(super) fn set_order(&mut self, wanted: &[SteeredPrefix]) {
        self.order = wanted.iter().map(|entry| entry.prefix.trunc()).collect();
    }

    /// All prefixes with their places.
    pub(super) fn iter(&self) -> impl Iterator<Item = (SteeredPrefix, u32)> + '_ {
        self.order.iter().filter_map(|prefix| {
            let slot = self.held.get(prefix)?;
            Some((
                SteeredPrefix {
                    prefix: *prefix,
                    kind: slot.kind,
                },
                slot.index,
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str, kind: PrefixKind) -> SteeredPrefix {
        SteeredPrefix {
            prefix: text.parse().unwrap(),
            kind,
        }
    }

    fn follow(slots: &mut Slots, wanted: &[SteeredPrefix]) -> Plan {
        let plan = slots.plan(wanted).unwrap();
        for (net, slot) in &plan.put {
            slots.put(*net, *slot);
        }
        for net in &plan.removed {
            slots.remove(net);
        }
        slots.set_order(wanted);
        plan
    }

    #[test]
    fn a_prefix_that_stays_is_not_touched_and_keeps_its_place() {
        let mut slots = Slots::default();
        let services = prefix("10.96.0.0/12", PrefixKind::Services);
        follow(
            &mut slots,
            &[prefix("10.244.0.0/16", PrefixKind::Other), services],
        );
        let before: Vec<_> = slots.iter().collect();
        let plan = follow(
            &mut slots,
            &[services, prefix("10.0.0.0/8", PrefixKind::Other)],
        );
        assert_eq!(plan.put.len(), 1);
        assert_eq!(plan.removed, ["10.244.0.0/16".parse::<IpNet>().unwrap()]);
        let after: Vec<_> = slots.iter().collect();
        assert_eq!(after[0], before[1]);
        assert!(
            !before.iter().any(|(_, index)| *index == after[1].1),
            "a place was given away too early"
        );
    }

    #[test]
    fn another_kind_changes_the_entry_and_keeps_the_counters() {
        let mut slots = Slots::default();
        follow(&mut slots, &[prefix("10.96.0.0/12", PrefixKind::Other)]);
        let plan = follow(&mut slots, &[prefix("10.96.0.0/12", PrefixKind::Services)]);
        assert_eq!(
            plan.put[0].1,
            Slot {
                kind: PrefixKind::Services,
                index: 0
            }
        );
        assert!(plan.cleared.is_empty() && plan.removed.is_empty());
    }

    #[test]
    fn what_is_excluded_is_written_first_and_removed_last() {
        let mut slots = Slots::default();
        let wanted = [
            prefix("10.0.0.0/8", PrefixKind::Other),
            prefix("10.1.0.0/16", PrefixKind::Excluded),
        ];
        let plan = follow(&mut slots, &wanted);
        assert_eq!(plan.put[0].0, wanted[1].prefix);
        let plan = follow(&mut slots, &[]);
        assert_eq!(plan.removed, [wanted[0].prefix, wanted[1].prefix]);
    }

    #[test]
    fn as_many_prefixes_as_are_allowed_can_be_replaced_by_as_many_others_again_and_again() {
        let set = |first: u8| -> Vec<SteeredPrefix> {
            (0..MAX_PREFIXES)
                .map(|n| {
                    prefix(
                        &format!("{first}.{}.{}.0/24", n / 256, n % 256),
                        PrefixKind::Other,
                    )
                })
                .collect()
        };
        let mut slots = Slots::default();
        for first in 1..6 {
            follow(&mut slots, &set(first));
            assert_eq!(slots.iter().count(), MAX_PREFIXES);
        }
    }

    #[test]
    fn too_many_prefixes_and_one_given_twice_are_refused() {
        let slots = Slots::default();
        let many: Vec<_> = (0..=MAX_PREFIXES)
            .map(|n| {
                prefix(
                    &format!("10.{}.{}.0/24", n / 256, n % 256),
                    PrefixKind::Other,
                )
            })
            .collect();
        assert!(matches!(
            slots.plan(&many),
            Err(SteerError::TooManyPrefixes(1025))
        ));
        let twice = [
            prefix("10.0.0.0/8", PrefixKind::Other),
            prefix("10.9.9.9/8", PrefixKind::Excluded),
        ];
        assert!(matches!(
            slots.plan(&twice),
            Err(SteerError::TwicePrefix(_))
        ));
    }
}

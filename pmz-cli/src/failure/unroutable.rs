//! What the user is told where the cluster's addresses and the machine's collide.

use pmz_net::route::{Clash, Found, Obstacle, Overlap, PlanError, is_everything};

use super::{ExitCode, Failure, capital};

/// Why prefixes can't be led into the tunnel, and what to do.
pub(crate) fn failure(why: &PlanError) -> Failure {
    match why {
        PlanError::Clashes { clashes } => in_use(clashes),
        PlanError::NoPool { clashes, .. } => {
            let mut next = advice(clashes);
            let takes_all = |clash: &Clash| clash.is_insuperable() && is_everything(&clash.with);
            if !clashes.told.iter().any(takes_all) {
                next.push("give a prefix that is free with `--overlap-pool`".to_owned());
            }
            Failure::new(
                ExitCode::General,
                capital(&why.to_string()),
                capital(&next.join(", or ")),
            )
        }
        PlanError::NothingLeft { .. } => Failure::new(
            ExitCode::Usage,
            capital(&why.to_string()),
            "Exclude less: `--exclude` cuts out of the cluster's prefixes and of those that are included",
        ),
        PlanError::TooMany { .. } => Failure::new(
            ExitCode::Usage,
            capital(&why.to_string()),
            "Exclude fewer and wider prefixes: each cuts what it is in into pieces",
        ),
    }
}

/// Addresses that are in use, with what frees them.
pub(crate) fn in_use(clashes: &Found) -> Failure {
    Failure::new(
        ExitCode::General,
        format!("The cluster's addresses are in use on this machine: {clashes}"),
        capital(&advice(clashes).join(", or ")),
    )
}

/// As [`in_use`], where virtual addresses would help.
pub(crate) fn without_programs(clashes: &Found) -> Failure {
    let mut failure = in_use(clashes);
    failure.cause.push_str(
        "; virtual addresses would help, and need pmz's eBPF programs, which are not loaded",
    );
    failure
}

/// What can be done, so that each is told once.
fn advice(clashes: &Found) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for clash in &clashes.told {
        let how = remedy(clash);
        if !all.contains(&how) {
            all.push(how);
        }
    }
    let is_lost = clashes.told.iter().any(Clash::is_insuperable);
    let is_cluster = |clash: &Clash| clash.obstacle == Obstacle::Wanted;
    if !is_lost && !clashes.told.iter().any(is_cluster) {
        all.push("run `pmz up --overlap prefer-cluster` to let the narrower prefix win".to_owned());
    }
    // A part that can be done without.
    let part = clashes.told.iter().find(|clash| {
        clash.overlap() == Overlap::Narrower && !is_cluster(clash) && clash.is_general()
    });
    if let Some(clash) = part {
        all.push(format!("leave it out with `--exclude {}`", clash.with));
    }
    all
}

fn remedy(clash: &Clash) -> String {
    match &clash.obstacle {
        Obstacle::Route { .. } => "disconnect that network (`ip route` shows it)".to_owned(),
        Obstacle::Rule { table, .. } => {
            let look = match table {
                Some(table) => format!("`ip rule` and `ip route show table {table}` show it"),
                None => "`ip rule` shows it".to_owned(),
            };
            format!("end whatever made that rule ({look})")
        }
        Obstacle::Address { .. } => "take that address away (`ip address` shows it)".to_owned(),
        Obstacle::Kernel { .. } => {
            format!("look at `ip route get {}`", clash.net.network())
        }
        Obstacle::Wanted => "choose another prefix".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pmz_net::route::Fate;

    fn clash(with: &str, obstacle: Obstacle) -> Clash {
        Clash {
            net: "10.96.0.0/16".parse().unwrap(),
            with: with.parse().unwrap(),
            obstacle,
            only: None,
        }
    }

    fn route(with: &str, device: &str) -> Clash {
        let fate = Fate::Devices(vec![device.to_owned()]);
        clash(with, Obstacle::Route { table: 254, fate })
    }

    fn said(clashes: Vec<Clash>) -> String {
        let clashes = Found::from(clashes);
        failure(&PlanError::Clashes { clashes }).to_string()
    }

    #[test]
    fn a_clash_names_both_networks_and_the_ways_out() {
        let text = said(vec![route("10.0.0.0/8", "vpn0")]);
        assert!(
            text.contains("10.96.0.0/16 lies in 10.0.0.0/8, which goes to vpn0."),
            "{text}"
        );
        assert!(text.contains("Disconnect that network"), "{text}");
        assert!(text.contains("--overlap prefer-cluster"), "{text}");
        assert!(!text.contains("--exclude"), "{text}");
    }

    #[test]
    fn a_part_that_is_taken_can_be_left_out() {
        let text = said(vec![route("10.96.7.0/24", "br0")]);
        assert!(text.contains("--exclude 10.96.7.0/24"), "{text}");
    }

    #[test]
    fn what_can_not_be_won_is_not_promised() {
        let text = said(vec![route("10.96.0.0/16", "pmz1")]);
        assert!(text.contains("another pmz"), "{text}");
        assert!(!text.contains("prefer-cluster"), "{text}");
        let rule = Obstacle::Rule {
            preference: 100,
            table: Some(7),
            fate: Fate::Devices(vec!["wg0".to_owned()]),
        };
        let text = said(vec![clash("0.0.0.0/0", rule)]);
        assert!(text.contains("goes to wg0 by rule 100 (table 7)"), "{text}");
        assert!(text.contains("`ip route show table 7`"), "{text}");
        assert!(!text.contains("prefer-cluster"), "{text}");
    }

    #[test]
    fn a_way_out_that_helps_twice_is_told_once() {
        let text = said(vec![
            route("10.0.0.0/8", "vpn0"),
            route("10.0.0.0/9", "vpn1"),
        ]);
        assert_eq!(text.matches("isconnect that network").count(), 1, "{text}");
    }

    #[test]
    fn a_full_range_is_answered_with_the_option_for_another() {
        let no_pool = |clash| {
            let clashes = Found::from(vec![clash]);
            let because = Found::default();
            failure(&PlanError::NoPool { clashes, because }).to_string()
        };
        let text = no_pool(route("10.96.9.0/24", "lab0"));
        assert!(text.contains("--overlap-pool"), "{text}");
        let fate = Fate::Prohibited;
        let rule = Obstacle::Rule {
            preference: 100,
            table: None,
            fate,
        };
        // What takes all packets takes those to any other prefix.
        let text = no_pool(clash("0.0.0.0/0", rule));
        assert!(!text.contains("--overlap-pool"), "{text}");
    }

    #[test]
    fn an_exclusion_of_all_is_the_command_lines_fault() {
        let wanted = vec!["10.96.0.0/16".parse().unwrap()];
        let failure = failure(&PlanError::NothingLeft { wanted });
        assert_eq!(failure.code, ExitCode::Usage);
        let text = failure.to_string();
        assert!(text.contains("10.96.0.0/16 is excluded"), "{text}");
    }
}

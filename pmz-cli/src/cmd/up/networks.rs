//! Options of `pmz up` that say which addresses lead into the cluster.

use clap::Args;
use ipnet::IpNet;
use pmz_net::route::{OverlapPolicy, PoolWish, SteerPolicy, cut, is_vast, outermost, parse_prefix};

use crate::daemon::{OverlapChoice, SteerChoice};
use crate::failure::{ExitCode, Failure};

/// Which addresses, and what to do where they are in use.
#[derive(Clone, Debug, Args)]
pub(super) struct NetworkArgs {
    /// Lead only services into the cluster, not the pods' own addresses
    #[arg(long)]
    pub(super) no_pods: bool,
    /// What to do where the cluster's addresses are in use on this machine
    #[arg(long, value_enum, default_value_t, value_name = "POLICY")]
    overlap: OverlapChoice,
    /// Prefix of the virtual addresses that stand for addresses in use; one for each family
    #[arg(long, value_name = "PREFIX", value_parser = parse_prefix)]
    overlap_pool: Vec<IpNet>,
    /// How packets to the cluster get into the tunnel
    #[arg(long, value_enum, default_value_t, value_name = "HOW")]
    steer: SteerChoice,
    /// Lead this prefix into the cluster, too; can be repeated
    #[arg(long, value_name = "PREFIX", value_parser = parse_prefix)]
    include: Vec<IpNet>,
    /// Keep this prefix out of the cluster; can be repeated
    #[arg(long, value_name = "PREFIX", value_parser = parse_prefix)]
    exclude: Vec<IpNet>,
    /// Do not ask whether all traffic is to go into the cluster
    #[arg(short, long)]
    yes: bool,
}

/// What they come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Networks {
    pub(super) overlap: OverlapPolicy,
    pub(super) pool: PoolWish,
    pub(super) steer: SteerPolicy,
    pub(super) include: Vec<IpNet>,
    pub(super) exclude: Vec<IpNet>,
}

impl NetworkArgs {
    /// Checks them against each other. `agrees` asks the user, if there is one.
    ///
    /// # Errors
    /// What makes no sense, and what is too much to be meant without a word more.
    pub(super) fn resolve(&self, agrees: impl Fn(&str) -> bool) -> Result<Networks, Failure> {
        let pool = PoolWish::new(&self.overlap_pool).map_err(|error| {
            Failure::new(
                ExitCode::Usage,
                format!("`--overlap-pool`: {error}"),
                "Give a prefix that nothing else uses, as in `--overlap-pool 198.18.0.0/16`",
            )
        })?;
        let include = outermost(self.include.iter().copied());
        let exclude = outermost(self.exclude.iter().copied());
        if let Some(lost) = include.iter().find(|net| cut(**net, &exclude).is_empty()) {
            return Err(Failure::new(
                ExitCode::Usage,
                format!("Nothing is left of `--include {lost}`: all of it is excluded"),
                "Give one of the two, or exclude less",
            ));
        }
        let vast = include.iter().find(|net| is_vast(net));
        if let Some(vast) = vast.filter(|_| !self.yes) {
            let what = format!(
                "`--include {vast}` leads all traffic of this machine that has no narrower route into the cluster"
            );
            if !agrees(&what) {
                return Err(Failure::new(
                    ExitCode::Usage,
                    what,
                    "Add `--yes` if that is meant",
                ));
            }
        }
        Ok(Networks {
            overlap: self.overlap.into(),
            pool,
            steer: self.steer.into(),
            include,
            exclude,
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: NetworkArgs,
    }

    fn parse(line: &str) -> Result<NetworkArgs, String> {
        let words = std::iter::once("up").chain(line.split_whitespace());
        let line = Line::try_parse_from(words).map_err(|error| {
            assert_eq!(error.exit_code(), 2);
            error.to_string()
        })?;
        Ok(line.args)
    }

    fn resolve(line: &str) -> Result<Networks, Failure> {
        parse(line).unwrap().resolve(|what| panic!("asked: {what}"))
    }

    fn nets(text: &str) -> Vec<IpNet> {
        text.split_whitespace()
            .map(|s| s.parse().unwrap())
            .collect()
    }

    #[test]
    fn nothing_said_means_auto() {
        let networks = resolve("").unwrap();
        assert_eq!(networks.overlap, OverlapPolicy::Auto);
        assert_eq!(networks.pool, PoolWish::default());
        assert!(networks.include.is_empty() && networks.exclude.is_empty());
    }

    #[test]
    fn policies_go_by_their_names() {
        for (name, policy) in [
            ("auto", OverlapPolicy::Auto),
            ("remap", OverlapPolicy::Remap),
            ("prefer-cluster", OverlapPolicy::PreferCluster),
            ("refuse", OverlapPolicy::Refuse),
        ] {
            let networks = resolve(&format!("--overlap {name}")).unwrap();
            assert_eq!(networks.overlap, policy);
        }
        assert!(parse("--overlap yes").is_err());
    }

    #[test]
    fn ways_of_steering_go_by_their_names() {
        for (name, policy) in [
            ("auto", SteerPolicy::Auto),
            ("route", SteerPolicy::Route),
            ("tc", SteerPolicy::Tc),
        ] {
            let networks = resolve(&format!("--steer {name}")).unwrap();
            assert_eq!(networks.steer, policy);
        }
        assert!(parse("--steer xdp").is_err());
    }

    #[test]
    fn prefixes_are_repeated_and_merged() {
        let networks = resolve(
            "--include 10.1.0.0/16 --include 10.1.2.0/24 --include 10.1.0.0/16 --include 192.0.2.7 \
             --exclude 10.1.3.0/24 --exclude 10.1.3.4 --overlap-pool 198.18.0.0/16 --overlap-pool fd01::/64",
        )
        .unwrap();
        assert_eq!(networks.include, nets("10.1.0.0/16 192.0.2.7/32"));
        assert_eq!(networks.exclude, nets("10.1.3.0/24"));
        assert_eq!(networks.pool.v4, Some("198.18.0.0/16".parse().unwrap()));
        assert_eq!(networks.pool.v6, Some("fd01::/64".parse().unwrap()));
    }

    #[test]
    fn bad_prefixes_are_refused_by_the_command_line_with_their_reason() {
        for (line, reason) in [
            ("--include 10.1.2.3/16", "10.1.0.0/16 for the network"),
            ("--exclude 10.1.2.3/16", "10.1.0.0/16 for the network"),
            ("--include ::ffff:10.1.0.0/112", "write 10.1.0.0/16"),
            ("--include 127.0.0.0/8", "loopback"),
            ("--include ff02::/16", "multicast"),
            ("--include 169.254.1.0/24", "link-local"),
            ("--include cluster", "no prefix"),
            ("--overlap-pool 198.18.0.1/16", "198.18.0.0/16"),
        ] {
            let said = parse(line).unwrap_err();
            assert!(said.contains(reason), "{line}: {said}");
        }
    }

    #[test]
    fn what_is_excluded_as_a_whole_can_not_be_included() {
        let line = "--include 10.1.0.0/16 --exclude 10.1.0.0/17 --exclude 10.1.128.0/17";
        let failure = resolve(line).unwrap_err();
        assert_eq!(failure.code, ExitCode::Usage);
        assert!(failure.cause.contains("10.1.0.0/16"), "{failure}");
    }

    #[test]
    fn a_pool_of_no_use_is_refused() {
        let failure = resolve("--overlap-pool 240.64.0.0/16").unwrap_err();
        assert_eq!(failure.code, ExitCode::Usage);
        assert!(failure.cause.contains("--overlap-pool"), "{failure}");
    }

    #[test]
    fn all_traffic_is_asked_back_or_confirmed() {
        for line in [
            "--include 0.0.0.0/0",
            "--include ::/0",
            "--include 64.0.0.0/3",
        ] {
            let args = parse(line).unwrap();
            let failure = args.resolve(|_| false).unwrap_err();
            assert_eq!(failure.code, ExitCode::Usage);
            assert!(failure.to_string().contains("--yes"), "{failure}");
            args.resolve(|what| what.contains(line)).unwrap();
            resolve(&format!("{line} --yes")).unwrap();
        }
        // To keep all of IPv6 out is nobody's mistake.
        resolve("--exclude ::/0").unwrap();
    }
}

//! A name of the outside, asked before names are led to pmz and after that: what is not the cluster's must stay as it is.

use std::fs;
use std::net::IpAddr;
use std::time::Duration;

use pmz_net::dns::{DomainTable, Name};
use tokio_util::task::AbortOnDropHandle;

use super::lookup::{NoAddress, Why, look_up};

/// What is asked where the API server has no name. It says nothing of the user, and every resolver of the Internet has it:
/// the root's servers have it themselves, and resolvers begin with its address (RFC 9609). Names that are reserved
/// (RFC 6761) would be none: the C library, systemd-resolved and others answer these without asking anybody. Where there
/// is no Internet it has no address, before and after.
const OF_THE_ROOT: &str = "a.root-servers.net.";
/// Who answers without DNS, beside /etc/hosts.
const LOCAL: [&str; 2] = ["local", "localhost"];
/// Names that files lead somewhere (hosts(5)).
const HOSTS: &str = "/etc/hosts";
/// How long the first answer may take, from the beginning of `pmz up` on, which it does not hold up before names are led
/// anywhere.
const FIRST_WITHIN: Duration = Duration::from_secs(2);
/// How long the second one may take: a lost query is asked again after 5 s (resolv.conf(5)).
const SECOND_WITHIN: Duration = Duration::from_secs(8);

type Outcome = Result<Vec<IpAddr>, NoAddress>;

/// A name, and what it led to at first.
pub(super) struct OutsideName {
    name: String,
    before: Before,
}

enum Before {
    Asked(AbortOnDropHandle<Outcome>),
    Known(Outcome),
}

impl OutsideName {
    /// Asks for the API server's name, if it is one that DNS answers: it is asked for anyway, and is known on networks
    /// without Internet. Needs a tokio runtime.
    pub(super) fn ask(api_host: Option<&str>) -> Self {
        let hosts = fs::read(HOSTS).unwrap_or_default();
        let name = choose(api_host, &String::from_utf8_lossy(&hosts));
        let asked = name.clone();
        let asking = tokio::spawn(async move { look_up(&asked, FIRST_WITHIN).await });
        Self {
            name,
            before: Before::Asked(AbortOnDropHandle::new(asking)),
        }
    }

    /// Waits for what it leads to. Names must be led nowhere before that.
    pub(super) async fn settle(&mut self) {
        if let Before::Asked(asking) = &mut self.before {
            let outcome = asking
                .await
                .unwrap_or_else(|_| Err(NoAddress::late(FIRST_WITHIN)));
            tracing::debug!(name = self.name, ?outcome, "an outside name");
            self.before = Before::Known(outcome);
        }
    }

    /// Compares with what it leads to now, where the user has not led it elsewhere.
    ///
    /// # Errors
    /// Where that is something else.
    pub(super) async fn check(&self, led: &DomainTable) -> Result<(), String> {
        let Before::Known(before) = &self.before else {
            return Ok(());
        };
        let is_late = matches!(before, Err(error) if error.why == Why::Late);
        if is_late || is_led(&self.name, led) {
            return Ok(());
        }
        let asked = async || change(before, &look_up(&self.name, SECOND_WITHIN).await);
        let Some(change) = asked().await else {
            return Ok(());
        };
        tracing::warn!(
            name = self.name,
            change,
            "an outside name is asked once more"
        );
        match asked().await {
            None => Ok(()),
            Some(change) => Err(format!("the outside name {} {change}", self.name)),
        }
    }
}

fn choose(api_host: Option<&str>, hosts: &str) -> String {
    let is_in_files = |name: &str| {
        let lines = hosts
            .lines()
            .map(|line| line.split('#').next().unwrap_or_default());
        let mut names = lines.flat_map(|line| line.split_whitespace().skip(1));
        names.any(|known| known.eq_ignore_ascii_case(name))
    };
    let is_asked = |name: &&str| {
        let bare = name.trim_end_matches('.');
        let top = bare.rsplit_once('.').map(|(_, top)| top);
        let is_local = |top: &str| LOCAL.iter().any(|it| it.eq_ignore_ascii_case(top));
        // A single label is completed by search domains, or is this machine's own.
        bare.parse::<IpAddr>().is_err()
            && top.is_some_and(|top| !is_local(top))
            && !is_in_files(bare)
    };
    api_host.filter(is_asked).unwrap_or(OF_THE_ROOT).to_owned()
}

fn is_led(name: &str, led: &DomainTable) -> bool {
    let Ok(name) = Name::from_ascii(name) else {
        return false;
    };
    led.domains().iter().any(|it| it.domain.covers(&name))
}

/// In words, what is other than before. Addresses may be others at any time.
fn change(before: &Outcome, now: &Outcome) -> Option<String> {
    match (before, now) {
        (Ok(_), Ok(_)) => None,
        (Err(before), Err(now)) if before.why == now.why => None,
        // Whoever could not say then may know now.
        (Err(before), Ok(_)) if before.why == Why::NobodyKnows => None,
        (Ok(_), Err(now)) => Some(format!("has no address any more: {now}")),
        (Err(before), Ok(_)) => Some(format!("has addresses now, and had none: {before}")),
        (Err(before), Err(now)) => {
            Some(format!("fails otherwise than before: {now}, not {before}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_api_servers_name_is_asked_where_dns_answers_it() {
        let hosts = "127.0.0.1 localhost\n# 192.0.2.1 api.free.example\n\
                     192.0.2.2 other\tapi.kept.example # api.noted.example\n";
        for (host, asked) in [
            (Some("api.prod.example"), "api.prod.example"),
            (Some("API.Free.example"), "API.Free.example"),
            (Some("api.noted.example"), "api.noted.example"),
            (Some("Api.Kept.Example"), OF_THE_ROOT),
            (Some("192.0.2.1"), OF_THE_ROOT),
            (Some("2001:db8::1"), OF_THE_ROOT),
            (Some("localhost"), OF_THE_ROOT),
            (Some("api.localhost"), OF_THE_ROOT),
            (Some("printer.local."), OF_THE_ROOT),
            (Some("minikube"), OF_THE_ROOT),
            (None, OF_THE_ROOT),
        ] {
            assert_eq!(choose(host, hosts), asked, "{host:?}");
        }
    }

    #[test]
    fn what_was_there_must_be_there_and_what_failed_may_fail_in_the_same_way() {
        let found = |last: u8| -> Outcome { Ok(vec![IpAddr::from([192, 0, 2, last])]) };
        let failed = |why| -> Outcome { Err(NoAddress::for_tests(why)) };
        let nothing = || failed(Why::Nothing);
        let nobody = || failed(Why::NobodyKnows);
        for (before, now) in [
            (found(1), found(2)),
            (nothing(), nothing()),
            (nobody(), nobody()),
            (nobody(), found(1)),
        ] {
            assert_eq!(change(&before, &now), None, "{before:?} {now:?}");
        }
        for (before, now) in [
            (found(1), nothing()),
            (found(1), nobody()),
            (found(1), failed(Why::Late)),
            (nothing(), found(1)),
            (nothing(), nobody()),
            (nobody(), nothing()),
            (failed(Why::Other), nothing()),
        ] {
            assert!(change(&before, &now).is_some(), "{before:?} {now:?}");
        }
    }

    #[test]
    fn a_name_that_the_user_leads_is_none_of_the_outsides() {
        let custom = pmz_net::dns::CustomDomain {
            domain: "*.net".parse().unwrap(),
            service: pmz_net::catalog::ServiceKey {
                namespace: "default".to_owned(),
                name: "echo".to_owned(),
            },
            port: None,
        };
        let led = DomainTable::new(vec![custom], vec![]);
        assert!(is_led(OF_THE_ROOT, &led));
        assert!(!is_led("api.example", &led));
    }
}

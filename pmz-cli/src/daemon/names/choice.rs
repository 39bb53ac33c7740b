//! Which mechanism the user wants: the option, else the environment's, else the config file's.

use std::io::ErrorKind;

use serde::{Deserialize, Serialize};

use crate::config::{Config, ConfigError};
use crate::failure::{ExitCode, Failure};

/// The option's variable in the environment.
const VARIABLE: &str = "PMZ_DNS";

/// How queries of this machine's programs reach pmz.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum DnsChoice {
    /// The best of the others that this machine can do
    #[default]
    Auto,
    /// systemd-resolved sends them, by domain
    Resolved,
    /// eBPF programs on the root cgroup catch them; /etc/resolv.conf stays as it is
    Ebpf,
    /// /etc/resolv.conf names pmz, until it ends
    Resolvconf,
    /// Nothing does: pmz answers whoever asks it, at its address in the tunnel
    Off,
}

impl DnsChoice {
    /// The user's choice, of which the command line has given this.
    ///
    /// # Errors
    /// Where the environment or the config file holds no such choice.
    pub(crate) fn find(given: Option<Self>) -> Result<Self, Failure> {
        if let Some(given) = given {
            return Ok(given);
        }
        choose(std::env::var(VARIABLE).ok().as_deref(), &config()?)
    }
}

/// The user's config file.
pub(super) fn config() -> Result<Config, Failure> {
    match Config::load() {
        // HOME is somebody else's, as `su` leaves it: what is there is not this user's wish.
        Err(ConfigError::Unreadable { path, source })
            if source.kind() == ErrorKind::PermissionDenied =>
        {
            tracing::warn!(path = %path.display(), "the config file may not be read; it is left out");
            Ok(Config::default())
        }
        loaded => Ok(loaded?),
    }
}

fn choose(variable: Option<&str>, config: &Config) -> Result<DnsChoice, Failure> {
    match variable.filter(|value| !value.is_empty()) {
        Some(value) => clap::ValueEnum::from_str(value, false).map_err(|_| {
            Failure::new(
                ExitCode::Usage,
                format!("{VARIABLE} is {value:?}, which is no way for DNS queries"),
                "Set it to auto, resolved, ebpf, resolvconf or off",
            )
        }),
        None => Ok(config.dns.mechanism.unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::DnsConfig;

    fn config(mechanism: Option<DnsChoice>) -> Config {
        Config {
            dns: DnsConfig {
                mechanism,
                ..DnsConfig::default()
            },
            ..Config::default()
        }
    }

    #[test]
    fn the_environment_goes_before_the_file_and_the_option_before_both() {
        let file = config(Some(DnsChoice::Resolvconf));
        assert_eq!(choose(Some("ebpf"), &file).unwrap(), DnsChoice::Ebpf);
        assert_eq!(choose(Some(""), &file).unwrap(), DnsChoice::Resolvconf);
        assert_eq!(choose(None, &file).unwrap(), DnsChoice::Resolvconf);
        assert_eq!(choose(None, &config(None)).unwrap(), DnsChoice::Auto);
        let given = DnsChoice::find(Some(DnsChoice::Off)).unwrap();
        assert_eq!(given, DnsChoice::Off);
    }

    #[test]
    fn an_unknown_choice_in_the_environment_is_refused_with_those_that_there_are() {
        let failure = choose(Some("dnsmasq"), &config(None)).unwrap_err();
        assert_eq!(failure.code, ExitCode::Usage);
        let text = failure.to_string();
        assert!(
            text.contains("PMZ_DNS") && text.contains("dnsmasq"),
            "{text}"
        );
        assert!(text.contains("resolvconf"), "{text}");
    }
}

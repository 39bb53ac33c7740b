//! What can be chosen of an agent, as `pmz agent deploy` and `pmz agent manifest` take it.

use std::fmt;
use std::str::FromStr;

use clap::{Args, ValueEnum};
use pmz_net::tcp::Congestion;

use super::error::BadOption;
use super::quantity::Quantity;

/// How the tunnel's UDP port is reached from outside the cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Expose {
    /// By a port of the agent's node
    #[default]
    Nodeport,
    /// By an address that the cluster's provider gives
    Loadbalancer,
    /// Not at all: everything goes through the API server
    None,
}

/// How packets leave the agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum NatMode {
    /// The agent dials for its clients; needs no privilege
    #[default]
    Userspace,
    /// The node's kernel forwards; not in this version
    Kernel,
}

/// When the kubelet pulls the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "PascalCase")]
pub enum PullPolicy {
    /// Where the node doesn't have it
    IfNotPresent,
    /// Each time that a pod starts
    Always,
    /// Never: somebody loads it into the nodes
    Never,
}

impl PullPolicy {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::IfNotPresent => "IfNotPresent",
            Self::Always => "Always",
            Self::Never => "Never",
        }
    }
}

/// The agent's options. What isn't chosen has its default, also where an agent is deployed already.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct AgentOptions {
    /// Image of the agent, with tag or @sha256 digest; default: agent.image of the config file, else the image
    /// of this version of pmz
    #[arg(long, env = super::image::VARIABLE, value_name = "NAME")]
    pub image: Option<String>,
    /// Number of agents; of two and more, one stays when a node is drained [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=100))]
    pub replicas: Option<u16>,
    /// How the tunnel's UDP port is reached from outside the cluster
    #[arg(long, value_enum, default_value_t, value_name = "HOW")]
    pub expose: Expose,
    /// How packets leave the agent
    #[arg(long, value_enum, default_value_t, value_name = "HOW")]
    pub nat: NatMode,
    /// Congestion control of downloads by UDP: bbr, or cubic, which gives way to other traffic sooner [default: bbr]
    #[arg(long, value_name = "NAME")]
    pub congestion: Option<Congestion>,
    /// What is set aside for each agent, such as cpu=100m,memory=64Mi
    #[arg(
        long = "request",
        value_name = "RESOURCE=AMOUNT",
        value_delimiter = ','
    )]
    pub requests: Vec<Amount>,
    /// The most that an agent may take, such as cpu=2,memory=1Gi
    #[arg(long = "limit", value_name = "RESOURCE=AMOUNT", value_delimiter = ',')]
    pub limits: Vec<Amount>,
    /// Run only on nodes with this label; may be given several times
    #[arg(long = "node-selector", value_name = "KEY=VALUE")]
    pub node_selector: Vec<Label>,
    /// Run on nodes with this taint, too: key=value:effect, key:effect or key; may be given several times
    #[arg(long = "toleration", value_name = "TAINT")]
    pub tolerations: Vec<Toleration>,
    /// Secret in the agent's namespace with the image registry's credentials; may be given several times
    #[arg(long = "pull-secret", value_name = "NAME", value_parser = object_name)]
    pub pull_secrets: Vec<String>,
    /// When the image is pulled
    #[arg(long, value_enum, value_name = "WHEN")]
    pub pull_policy: Option<PullPolicy>,
}

/// One resource and how much of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Amount {
    /// `cpu` or `memory`.
    pub resource: &'static str,
    /// As Kubernetes writes it: `100m`, `64Mi`.
    pub amount: Quantity,
}

impl FromStr for Amount {
    type Err = BadOption;

    fn from_str(text: &str) -> Result<Self, BadOption> {
        let (resource, amount) = text
            .split_once('=')
            .ok_or_else(|| BadOption("it is written like cpu=100m or memory=64Mi".to_owned()))?;
        let resource = ["cpu", "memory"]
            .into_iter()
            .find(|known| *known == resource)
            .ok_or_else(|| BadOption(format!("{resource:?} is neither cpu nor memory")))?;
        Ok(Self {
            resource,
            amount: amount.parse()?,
        })
    }
}

/// A label that a node must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// Its name, with prefix where it has one.
    pub key: String,
    /// Its value, which may be empty.
    pub value: String,
}

impl FromStr for Label {
    type Err = BadOption;

    fn from_str(text: &str) -> Result<Self, BadOption> {
        let (key, value) = text
            .split_once('=')
            .ok_or_else(|| BadOption("it is written like disktype=ssd".to_owned()))?;
        label_key(key)?;
        label_value(value)?;
        Ok(Self {
            key: key.to_owned(),
            value: value.to_owned(),
        })
    }
}

/// A taint that is no obstacle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Toleration {
    /// The taint's key.
    pub key: String,
    /// Its value; `None` for any.
    pub value: Option<String>,
    /// Its effect; `None` for all.
    pub effect: Option<&'static str>,
}

impl FromStr for Toleration {
    type Err = BadOption;

    fn from_str(text: &str) -> Result<Self, BadOption> {
        let (taint, effect) = match text.split_once(':') {
            Some((taint, effect)) => {
                let known = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
                let effect = known
                    .into_iter()
                    .find(|known| *known == effect)
                    .ok_or_else(|| {
                        BadOption(format!(
                            "the effect {effect:?} is none of {}",
                            known.join(", ")
                        ))
                    })?;
                (taint, Some(effect))
            }
            None => (text, None),
        };
        let (key, value) = match taint.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (taint, None),
        };
        label_key(key)?;
        if let Some(value) = value {
            label_value(value)?;
        }
        Ok(Self {
            key: key.to_owned(),
            value: value.map(str::to_owned),
            effect,
        })
    }
}

impl fmt::Display for Expose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nodeport => "nodeport",
            Self::Loadbalancer => "loadbalancer",
            Self::None => "none",
        })
    }
}

/// The name of a label: 63 letters at most, behind a DNS name where it has a prefix.
fn label_key(key: &str) -> Result<(), BadOption> {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    if let Some(prefix) = prefix {
        object_name(prefix)?;
    }
    if name.is_empty() {
        return Err(BadOption("the key is missing".to_owned()));
    }
    label_value(name)
}

fn label_value(value: &str) -> Result<(), BadOption> {
    let ends = |c: char| c.is_ascii_alphanumeric();
    let within = |c: char| ends(c) || matches!(c, '-' | '_' | '.');
    let fine = value.len() <= 63
        && value.chars().all(within)
        && (value.is_empty() || (value.starts_with(ends) && value.ends_with(ends)));
    if fine {
        Ok(())
    } else {
        Err(BadOption(format!(
            "{value:?} is no label: at most 63 letters, digits, '-', '_' and '.', with a letter or digit at \
             both ends"
        )))
    }
}

/// The name of an object: a DNS name (RFC 1123).
pub(super) fn object_name(name: &str) -> Result<String, BadOption> {
    let part = |part: &str| {
        let ends = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        !part.is_empty()
            && part.chars().all(|c| ends(c) || c == '-')
            && part.starts_with(ends)
            && part.ends_with(ends)
    };
    if name.len() <= 253 && name.split('.').all(part) {
        Ok(name.to_owned())
    } else {
        Err(BadOption(format!(
            "{name:?} is no name of an object: lower-case letters, digits, '-' and '.'"
        )))
    }
}

/// The name of a namespace: a DNS label.
pub(super) fn namespace_name(name: &str) -> Result<(), BadOption> {
    if name.len() <= 63 && !name.contains('.') && object_name(name).is_ok() {
        Ok(())
    } else {
        Err(BadOption(format!(
            "{name:?} is no name of a namespace: at most 63 lower-case letters, digits and '-'"
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tolerations_are_written_as_taints_are() {
        let read = |text: &str| text.parse::<Toleration>().unwrap();
        assert_eq!(
            read("dedicated=dev:NoSchedule"),
            Toleration {
                key: "dedicated".to_owned(),
                value: Some("dev".to_owned()),
                effect: Some("NoSchedule"),
            }
        );
        let control_plane = read("node-role.kubernetes.io/control-plane:NoSchedule");
        assert_eq!(
            (control_plane.value, control_plane.effect),
            (None, Some("NoSchedule"))
        );
        assert_eq!(read("spot").effect, None);
        for wrong in [
            "",
            ":NoSchedule",
            "a=b:Sometimes",
            "a b",
            "UPPER/x",
            "=v",
            "a=-",
        ] {
            assert!(wrong.parse::<Toleration>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn labels_and_amounts_that_kubernetes_would_refuse_are_refused() {
        assert!("disktype=ssd".parse::<Label>().is_ok());
        assert!("example.com/pool=".parse::<Label>().is_ok());
        for wrong in ["disktype", "=ssd", "a=b c", "a=b/c"] {
            assert!(wrong.parse::<Label>().is_err(), "{wrong:?}");
        }
        assert_eq!("cpu=100m".parse::<Amount>().unwrap().resource, "cpu");
        for wrong in ["cpu", "gpu=1", "memory=", "memory=lots", "cpu=-1"] {
            assert!(wrong.parse::<Amount>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn namespaces_are_dns_labels() {
        assert!(namespace_name("pmz").is_ok());
        for wrong in ["", "Pmz", "a.b", "a_b", "-a", "a/b", &"a".repeat(64)] {
            assert!(namespace_name(wrong).is_err(), "{wrong:?}");
        }
    }
}

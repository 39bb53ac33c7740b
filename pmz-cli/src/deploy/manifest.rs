//! The agent's objects: the files of `deploy/`, changed by the options.
//!
//! The files are the one source. They are embedded as they are, so that `kubectl apply -k deploy` and
//! `pmz agent deploy` without options make the same.

use kube::ResourceExt;
use kube::api::DynamicObject;
use serde_json::{Map, Value, json};

use super::error::BadOption;
use super::object::Object;
use super::options::{AgentOptions, Amount, Expose, NatMode, Toleration, namespace_name};
use super::quantity::Quantity;
use crate::cluster::DEFAULT_NAMESPACE;

/// Whose objects are the agent's to delete, and the field manager's name.
pub(super) const MANAGER: &str = "pmz";
/// Bears [`MANAGER`] on every object.
pub(super) const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// The name of nearly all objects.
pub(super) const NAME: &str = "pmz-agent";

/// In the order in which they are made.
const FILES: [&str; 8] = [
    include_str!("../../../deploy/namespace.yaml"),
    include_str!("../../../deploy/serviceaccount.yaml"),
    include_str!("../../../deploy/clusterrole.yaml"),
    include_str!("../../../deploy/clusterrolebinding.yaml"),
    include_str!("../../../deploy/role-user.yaml"),
    include_str!("../../../deploy/service.yaml"),
    include_str!("../../../deploy/poddisruptionbudget.yaml"),
    include_str!("../../../deploy/deployment.yaml"),
];

/// The objects of one agent.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// What it consists of, in the order in which it is made.
    pub(super) wanted: Vec<Object>,
    /// What it doesn't have with these options, but may have had with others.
    pub(super) unwanted: Vec<Object>,
    pub(super) namespace: String,
    pub(super) image: String,
}

impl Manifest {
    /// The objects for these options; [`super::image::choose`] chooses the image.
    ///
    /// # Errors
    /// Where an option's value makes no sense, or can't be had.
    pub fn new(options: &AgentOptions, namespace: &str, image: &str) -> Result<Self, BadOption> {
        if options.nat == NatMode::Kernel {
            return Err(BadOption(
                "--nat kernel can't be had: this version's agent dials for its clients in user space and \
                 has no way through the node's kernel; leave the option out, and the agent needs no \
                 privilege either"
                    .to_owned(),
            ));
        }
        namespace_name(namespace)?;
        let replicas = options.replicas.unwrap_or(1);
        let (mut wanted, mut unwanted) = (Vec::new(), Vec::new());
        for text in FILES {
            let mut object = parse(text)?;
            place(&mut object, namespace)?;
            let is_wanted = match object.kind.kind {
                "Service" => expose(&mut object, options.expose),
                "PodDisruptionBudget" => replicas > 1,
                "Deployment" => deployment(&mut object, options, image).map(|()| true)?,
                _ => true,
            };
            if is_wanted {
                wanted.push(object);
            } else {
                unwanted.push(object);
            }
        }
        Ok(Self {
            wanted,
            unwanted,
            namespace: namespace.to_owned(),
            image: image.to_owned(),
        })
    }

    /// All objects that an agent in this namespace can have, whatever its options.
    pub(super) fn all(namespace: &str) -> Result<Vec<Object>, BadOption> {
        let Self {
            mut wanted,
            unwanted,
            ..
        } = Self::new(&AgentOptions::default(), namespace, super::DEFAULT_IMAGE)?;
        wanted.extend(unwanted);
        Ok(wanted)
    }

    /// As YAML for `kubectl apply -f`.
    ///
    /// # Errors
    /// Where it can't be written: never with objects that were read.
    pub fn to_yaml(&self) -> Result<String, BadOption> {
        let mut text = format!(
            "# The pmz agent, by `pmz agent manifest` of version {}\n",
            env!("CARGO_PKG_VERSION")
        );
        for object in &self.wanted {
            let yaml = serde_saphyr::to_string(&object.value).map_err(broken)?;
            text.push_str("---\n");
            text.push_str(yaml.trim_end());
            text.push('\n');
        }
        Ok(text)
    }
}

fn broken(error: impl std::fmt::Display) -> BadOption {
    BadOption(format!("the embedded manifests are broken: {error}"))
}

fn parse(text: &str) -> Result<Object, BadOption> {
    let value: Value = serde_saphyr::from_str(text).map_err(broken)?;
    Object::new(value).ok_or_else(|| broken("an unknown kind"))
}

/// Names the namespace wherever the files have the default one. Objects of the whole cluster bear its name,
/// so that agents in two namespaces have nothing in common.
fn place(object: &mut Object, namespace: &str) -> Result<(), BadOption> {
    if namespace == DEFAULT_NAMESPACE {
        return Ok(());
    }
    let cluster_wide = Value::from(cluster_name(namespace));
    let name = Value::from(namespace);
    let places: &[(&str, &Value)] = match object.kind.kind {
        "Namespace" => &[("/metadata/name", &name)],
        "ClusterRole" => &[("/metadata/name", &cluster_wide)],
        "ClusterRoleBinding" => &[
            ("/metadata/name", &cluster_wide),
            ("/roleRef/name", &cluster_wide),
            ("/subjects/0/namespace", &name),
        ],
        _ => &[("/metadata/namespace", &name)],
    };
    for (pointer, value) in places {
        *at(&mut object.value, pointer)? = (*value).clone();
    }
    Ok(())
}

/// The name of the agent's cluster role and its binding.
fn cluster_name(namespace: &str) -> String {
    if namespace == DEFAULT_NAMESPACE {
        NAME.to_owned()
    } else {
        // A namespace has no dot in its name: no two of them give the same.
        format!("{NAME}.{namespace}")
    }
}

fn at<'a>(value: &'a mut Value, pointer: &str) -> Result<&'a mut Value, BadOption> {
    value
        .pointer_mut(pointer)
        .ok_or_else(|| broken(format!("{pointer} is missing")))
}

/// Whether there is a Service, and of which type.
fn expose(service: &mut Object, how: Expose) -> bool {
    let kind = match how {
        Expose::Nodeport => "NodePort",
        Expose::Loadbalancer => "LoadBalancer",
        Expose::None => return false,
    };
    service.value["spec"]["type"] = kind.into();
    true
}

fn deployment(object: &mut Object, options: &AgentOptions, image: &str) -> Result<(), BadOption> {
    let spec = at(&mut object.value, "/spec")?;
    if let Some(replicas) = options.replicas {
        spec["replicas"] = replicas.into();
    }
    let pod = at(spec, "/template/spec")?;
    for label in &options.node_selector {
        pod["nodeSelector"][&label.key] = label.value.as_str().into();
    }
    if !options.tolerations.is_empty() {
        pod["tolerations"] = options.tolerations.iter().map(toleration).collect();
    }
    if !options.pull_secrets.is_empty() {
        let secrets = options.pull_secrets.iter();
        pod["imagePullSecrets"] = secrets.map(|name| json!({ "name": name })).collect();
    }
    let container = at(pod, "/containers/0")?;
    container["image"] = image.into();
    if let Some(policy) = options.pull_policy {
        container["imagePullPolicy"] = policy.name().into();
    }
    if let Some(congestion) = options.congestion
        && let Some(variables) = at(container, "/env")?.as_array_mut()
    {
        variables.push(json!({ "name": "PMZ_CONGESTION", "value": congestion.to_string() }));
    }
    resources(
        at(container, "/resources")?,
        &options.requests,
        &options.limits,
    )
}

fn toleration(taint: &Toleration) -> Value {
    let mut toleration = Map::new();
    toleration.insert("key".to_owned(), taint.key.as_str().into());
    match &taint.value {
        Some(value) => {
            toleration.insert("operator".to_owned(), "Equal".into());
            toleration.insert("value".to_owned(), value.as_str().into());
        }
        None => {
            toleration.insert("operator".to_owned(), "Exists".into());
        }
    }
    if let Some(effect) = taint.effect {
        toleration.insert("effect".to_owned(), effect.into());
    }
    toleration.into()
}

/// Sets what was chosen. Of a pair of which one was chosen, the other's default moves along where Kubernetes
/// would refuse a request above its limit.
fn resources(
    resources: &mut Value,
    requests: &[Amount],
    limits: &[Amount],
) -> Result<(), BadOption> {
    for name in ["cpu", "memory"] {
        let chosen = |amounts: &[Amount]| {
            let amounts = amounts.iter().rev();
            amounts
                .clone()
                .find(|amount| amount.resource == name)
                .map(|amount| amount.amount.clone())
        };
        let default = |pair: &str| -> Result<Quantity, BadOption> {
            let text = resources[pair][name].as_str();
            text.ok_or_else(|| broken(format!("no {pair} for {name}")))?
                .parse()
        };
        let (request, limit) = match (chosen(requests), chosen(limits)) {
            (Some(request), Some(limit)) if request > limit => {
                return Err(BadOption(format!(
                    "the request of {name}={request} is above the limit of {name}={limit}"
                )));
            }
            (Some(request), Some(limit)) => (request, limit),
            (Some(request), None) => (request.clone(), default("limits")?.max(request)),
            (None, Some(limit)) => (default("requests")?.min(limit.clone()), limit),
            (None, None) => continue,
        };
        resources["requests"][name] = request.to_string().into();
        resources["limits"][name] = limit.to_string().into();
    }
    Ok(())
}

/// Whether pmz made it.
pub(super) fn is_managed(object: &DynamicObject) -> bool {
    object.labels().get(MANAGED_BY).map(String::as_str) == Some(MANAGER)
}

#[cfg(test)]
mod tests;

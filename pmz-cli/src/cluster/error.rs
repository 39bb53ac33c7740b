//! What can be wrong between this machine and the agent, and what to do about it.

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::failure::{ExitCode, Failure, Offer};

/// How RBAC refuses to let somebody give rights that they don't have.
const ESCALATION: &str = "attempting to grant RBAC permissions";

/// What was asked of the API server: names the right that is missing when it says no.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Action {
    /// The verbs that it takes, most telling first.
    pub verbs: Vec<&'static str>,
    /// The resource, with its API group where it has one, as kubectl takes it: `deployments.apps`.
    pub resource: Cow<'static, str>,
    /// The subresource, where it is one.
    pub subresource: Option<&'static str>,
    /// Its namespace; `None` where the whole cluster is meant.
    pub namespace: Option<String>,
}

impl Action {
    /// Verbs on a resource of the whole cluster, such as `namespaces`, or `deployments.apps` in any namespace.
    pub fn new(verbs: &[&'static str], resource: impl Into<Cow<'static, str>>) -> Self {
        Self {
            verbs: verbs.to_vec(),
            resource: resource.into(),
            subresource: None,
            namespace: None,
        }
    }

    /// The same in one namespace only.
    #[must_use]
    pub fn within(mut self, namespace: &str) -> Self {
        self.namespace = Some(namespace.to_owned());
        self
    }

    /// The same on a subresource.
    #[must_use]
    pub fn on(mut self, subresource: &'static str) -> Self {
        self.subresource = Some(subresource);
        self
    }

    pub(crate) fn list_pods(namespace: &str) -> Self {
        Self::new(&["list"], "pods").within(namespace)
    }

    pub(crate) fn port_forward(namespace: &str) -> Self {
        // A WebSocket port-forward is a GET, and newer API servers want `create` beside.
        Self::new(&["get", "create"], "pods")
            .on("portforward")
            .within(namespace)
    }

    /// The commands that tell whether the right is there.
    pub(crate) fn can_i(&self) -> String {
        let sub = self
            .subresource
            .map(|s| format!(" --subresource={s}"))
            .unwrap_or_default();
        let scope = match &self.namespace {
            Some(namespace) => format!(" -n {namespace}"),
            None => String::new(),
        };
        let lines = self
            .verbs
            .iter()
            .map(|verb| format!("`kubectl auth can-i {verb} {}{sub}{scope}`", self.resource));
        lines.collect::<Vec<_>>().join(" and ")
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.verbs.join(" and "), self.resource)?;
        if let Some(sub) = self.subresource {
            write!(f, "/{sub}")?;
        }
        match &self.namespace {
            Some(namespace) => write!(f, " in namespace {namespace:?}"),
            None => write!(f, " in the cluster"),
        }
    }
}

/// Why the cluster or its agent can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// No file says where a cluster is.
    #[error("there is no kubeconfig: {} not found", list(.looked))]
    NoKubeconfig {
        /// Where it was looked for.
        looked: Vec<PathBuf>,
    },
    /// A file that is none, or lacks something.
    #[error("the kubeconfig can't be used: {reason}")]
    BadKubeconfig {
        /// What is wrong with it.
        reason: String,
    },
    /// No context was named, and the file has no current one.
    #[error("the kubeconfig has no current context")]
    NoCurrentContext {
        /// Those that it has.
        contexts: Vec<String>,
    },
    /// The named context is not there.
    #[error("the kubeconfig has no context {context:?}")]
    UnknownContext {
        /// What was named.
        context: String,
        /// Those that it has.
        contexts: Vec<String>,
    },
    /// A credential plugin, or a token file, failed.
    #[error("no credentials for context {context:?}: {reason}")]
    Credentials {
        /// The context.
        context: String,
        /// What failed.
        reason: String,
    },
    /// No connection.
    #[error("the API server {server} can't be reached: {reason}")]
    Unreachable {
        /// Its address.
        server: String,
        /// The innermost cause.
        reason: String,
    },
    /// The other end is not who it should be, or speaks no TLS.
    #[error("no secure connection to the API server {server}: {reason}")]
    Tls {
        /// Its address.
        server: String,
        /// What TLS says.
        reason: String,
    },
    /// A connection, but no answer.
    #[error("the API server {server} did not answer within {} s ({what})", .within.as_secs())]
    Timeout {
        /// Its address.
        server: String,
        /// What it was asked.
        what: Cow<'static, str>,
        /// How long was waited.
        within: Duration,
    },
    /// 401.
    #[error("the API server {server} does not accept the credentials of context {context:?}")]
    Unauthorized {
        /// Its address.
        server: String,
        /// The context.
        context: String,
    },
    /// 403.
    #[error("no permission to {action} ({reason})")]
    Forbidden {
        /// What was not allowed.
        action: Action,
        /// The server's words.
        reason: String,
    },
    /// No agent's pod.
    #[error("there is no pmz agent in namespace {namespace:?} of the cluster")]
    NoAgent {
        /// Where it was looked for.
        namespace: String,
    },
    /// Pods, but none that serves.
    #[error("the pmz agent is not ready: pod {pod:?} in namespace {namespace:?} is {state}")]
    AgentNotReady {
        /// Where it is.
        namespace: String,
        /// The most promising of them.
        pod: String,
        /// What it is doing instead.
        state: String,
    },
    /// The pod that was there a moment ago.
    #[error("the agent's pod {pod:?} is gone")]
    PodGone {
        /// Its name.
        pod: String,
    },
    /// Not a right that is missing, but a rule: a quota, Pod Security, a webhook, a value that is none.
    #[error("the API server refuses to {what}: {reason}")]
    Refused {
        /// What it was asked.
        what: Cow<'static, str>,
        /// The rule's words.
        reason: String,
    },
    /// The API server is there, but could not do it.
    #[error("the API server {server} could not {what}: {reason}")]
    Api {
        /// Its address.
        server: String,
        /// What it was asked.
        what: Cow<'static, str>,
        /// The server's words.
        reason: String,
    },
}

fn list(paths: &[PathBuf]) -> String {
    paths
        .iter()
        .map(|p| p.display().to_string())
        .collect::<Vec<_>>()
        .join(", ")
}

fn names(contexts: &[String]) -> String {
    if contexts.is_empty() {
        return "it has none at all".to_owned();
    }
    format!("it has {}", contexts.join(", "))
}

impl ClusterError {
    /// Whether another try, later and with nothing changed, may work.
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. }
                | Self::Timeout { .. }
                | Self::NoAgent { .. }
                | Self::AgentNotReady { .. }
                | Self::PodGone { .. }
                | Self::Api { .. }
                | Self::Credentials { .. }
        )
    }

    fn code(&self) -> ExitCode {
        match self {
            Self::NoKubeconfig { .. } | Self::BadKubeconfig { .. } => ExitCode::Usage,
            Self::NoCurrentContext { .. } | Self::UnknownContext { .. } => ExitCode::Usage,
            Self::Unauthorized { .. } | Self::Forbidden { .. } => ExitCode::Permission,
            Self::Refused { .. } => ExitCode::General,
            Self::Credentials { .. } => ExitCode::Permission,
            Self::Unreachable { .. } | Self::Tls { .. } => ExitCode::Unreachable,
            Self::Timeout { .. } | Self::Api { .. } => ExitCode::Unreachable,
            Self::NoAgent { .. } | Self::AgentNotReady { .. } | Self::PodGone { .. } => {
                ExitCode::NoAgent
            }
        }
    }

    fn next(&self) -> String {
        match self {
            Self::NoKubeconfig { .. } => {
                "Name one with --kubeconfig or KUBECONFIG; whoever runs the cluster can give you one (if \
                 `kubectl get pods` works, pmz finds the same file)"
                    .to_owned()
            }
            Self::BadKubeconfig { .. } => {
                "`kubectl config view` reads the same file and shows what it holds".to_owned()
            }
            Self::NoCurrentContext { contexts } => {
                format!("Name one with --context, or `kubectl config use-context NAME`; {}", names(contexts))
            }
            Self::UnknownContext { contexts, .. } => {
                format!("Name another with --context; {}", names(contexts))
            }
            Self::Credentials { .. } | Self::Unauthorized { .. } => {
                "Log in again as you do for kubectl; `kubectl auth whoami` should work then".to_owned()
            }
            Self::Unreachable { server, .. } => format!(
                "Check the network and the VPN that leads to the cluster; `kubectl version` should reach \
                 {server}, and --context chooses another cluster"
            ),
            Self::Tls { .. } => {
                "The kubeconfig's certificate-authority may be another cluster's or an old one, or something \
                 between breaks TLS open; `kubectl version` should say the same"
                    .to_owned()
            }
            Self::Timeout { .. } => {
                "Try again, and see whether `kubectl get pods` is slow, too".to_owned()
            }
            // The words of RBAC's guard against privilege escalation.
            Self::Forbidden { action, reason } if reason.contains(ESCALATION) => format!(
                "Only who holds these rights may give them to the agent: have a cluster administrator do it; \
                 {} tells more",
                Action { verbs: vec!["escalate"], ..action.clone() }.can_i()
            ),
            Self::Refused { .. } => {
                "Its words name the rule; who set it up in the cluster can change it".to_owned()
            }
            Self::Forbidden { action, .. } => {
                let role = if action.namespace.is_some() {
                    "Role"
                } else {
                    "ClusterRole"
                };
                let tell = if action.verbs.len() == 1 { "tells" } else { "tell" };
                format!(
                    "Ask the cluster's administrator for a {role} that allows it; {} {tell} when it does",
                    action.can_i()
                )
            }
            Self::NoAgent { namespace } => format!(
                "`pmz agent deploy` or `pmz up --deploy` installs it, where you may; -n names another \
                 namespace; `kubectl get pods -n {namespace} -l {}` shows what pmz looks for",
                super::AGENT_SELECTOR
            ),
            Self::AgentNotReady { namespace, pod, .. } => {
                format!("`kubectl describe pod {pod} -n {namespace}` says why")
            }
            Self::PodGone { .. } => "Run `pmz up` again to find the pod that took its place".to_owned(),
            Self::Api { .. } => {
                "Try again; if it stays so, `kubectl get --raw /readyz?verbose` tells about the server"
                    .to_owned()
            }
        }
    }
}

impl From<ClusterError> for Failure {
    fn from(error: ClusterError) -> Self {
        let cause = crate::failure::capital(&error.to_string());
        let mut failure = Self::new(error.code(), cause, error.next());
        if let ClusterError::NoAgent { .. } = error {
            failure.offer = Some(Offer::Deploy);
        }
        failure
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(error: ClusterError) -> (ExitCode, String) {
        let failure = Failure::from(error);
        let text = failure.to_string();
        assert!(!text.contains('\n'), "more than a paragraph: {text}");
        (failure.code, text)
    }

    #[test]
    fn no_kubeconfig_names_the_files_that_were_looked_for() {
        let looked = vec![PathBuf::from("/home/jane/.kube/config")];
        let (code, text) = failure(ClusterError::NoKubeconfig { looked });
        assert_eq!(code, ExitCode::Usage);
        assert!(
            text.starts_with("There is no kubeconfig: /home/jane/.kube/config not found."),
            "{text}"
        );
        assert!(text.contains("--kubeconfig"), "{text}");
    }

    #[test]
    fn a_wrong_context_names_those_that_exist() {
        let (code, text) = failure(ClusterError::UnknownContext {
            context: "prod".to_owned(),
            contexts: vec!["dev".to_owned(), "staging".to_owned()],
        });
        assert_eq!(code, ExitCode::Usage);
        assert!(
            text.contains("no context \"prod\"") && text.contains("it has dev, staging"),
            "{text}"
        );
    }

    #[test]
    fn an_unreachable_server_is_named_with_the_cause() {
        let (code, text) = failure(ClusterError::Unreachable {
            server: "https://10.0.0.1:6443".to_owned(),
            reason: "Connection refused (os error 111)".to_owned(),
        });
        assert_eq!(code, ExitCode::Unreachable);
        assert!(
            text.contains("https://10.0.0.1:6443 can't be reached: Connection refused"),
            "{text}"
        );
        assert!(text.contains("kubectl version"), "{text}");
    }

    #[test]
    fn a_missing_right_names_verbs_resource_and_how_to_check() {
        let (code, text) = failure(ClusterError::Forbidden {
            action: Action::port_forward("pmz"),
            reason: "pods \"agent-0\" is forbidden: User \"jane\" cannot create".to_owned(),
        });
        assert_eq!(code, ExitCode::Permission);
        assert!(
            text.contains("get and create pods/portforward in namespace \"pmz\""),
            "{text}"
        );
        assert!(
            text.contains("`kubectl auth can-i get pods --subresource=portforward -n pmz`"),
            "{text}"
        );
        assert!(
            text.contains("`kubectl auth can-i create pods --subresource=portforward -n pmz`"),
            "{text}"
        );
        assert!(text.contains("jane"), "{text}");
    }

    #[test]
    fn rights_in_the_whole_cluster_are_named_without_a_namespace() {
        let (code, text) = failure(ClusterError::Forbidden {
            action: Action::new(
                &["create", "patch"],
                "clusterroles.rbac.authorization.k8s.io",
            ),
            reason: "User \"jane\" cannot patch resource \"clusterroles\"".to_owned(),
        });
        assert_eq!(code, ExitCode::Permission);
        assert!(
            text.starts_with(
                "No permission to create and patch clusterroles.rbac.authorization.k8s.io in the cluster"
            ),
            "{text}"
        );
        assert!(
            text.contains("`kubectl auth can-i patch clusterroles.rbac.authorization.k8s.io`"),
            "{text}"
        );
    }

    #[test]
    fn who_may_not_give_rights_away_is_told_so() {
        let reason = "user \"jane\" (groups=[\"system:authenticated\"]) is attempting to grant RBAC \
                      permissions not currently held: {APIGroups:[\"\"], Resources:[\"nodes\"], Verbs:[\"list\"]}";
        let (code, text) = failure(ClusterError::Forbidden {
            action: Action::new(&["create", "patch"], "clusterroles"),
            reason: reason.to_owned(),
        });
        assert_eq!(code, ExitCode::Permission);
        assert!(text.contains("Resources:[\"nodes\"]"), "{text}");
        assert!(
            text.contains("`kubectl auth can-i escalate clusterroles`"),
            "{text}"
        );
    }

    #[test]
    fn no_agent_says_where_and_what_was_looked_for() {
        let (code, text) = failure(ClusterError::NoAgent {
            namespace: "tools".to_owned(),
        });
        assert_eq!(code, ExitCode::NoAgent);
        assert!(
            text.contains("-n tools -l app.kubernetes.io/name=pmz-agent"),
            "{text}"
        );
    }

    #[test]
    fn what_a_user_must_change_is_not_tried_again() {
        let unknown = ClusterError::UnknownContext {
            context: String::new(),
            contexts: vec![],
        };
        assert!(!unknown.is_transient());
        let gone = ClusterError::PodGone {
            pod: "agent-0".to_owned(),
        };
        assert!(gone.is_transient());
    }
}

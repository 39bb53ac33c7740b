//! Who may do what: role-based access control with Kubernetes' rules and words.

use std::collections::HashMap;

use serde_json::Value;

use super::status::{Status, details, qualified};

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Name, as in `system:serviceaccount:NAMESPACE:NAME`.
    pub name: String,
    /// Groups, without those that everybody is in.
    pub groups: Vec<String>,
}

/// What one role allows. `*` stands for all.
#[derive(Clone, Debug, Default)]
pub struct Rule {
    /// `get`, `list`, `watch`, `create`, ...
    pub verbs: Vec<String>,
    /// API groups; the core group is empty.
    pub api_groups: Vec<String>,
    /// Resources, with a subresource after a slash.
    pub resources: Vec<String>,
    /// Paths outside the APIs, `*` at the end stands for any end.
    pub paths: Vec<String>,
}

impl Rule {
    /// For resources of one API group.
    pub fn on(verbs: &[&str], api_group: &str, resources: &[&str]) -> Self {
        Self {
            verbs: owned(verbs),
            api_groups: vec![api_group.to_owned()],
            resources: owned(resources),
            paths: Vec::new(),
        }
    }

    fn on_paths(paths: &[&str]) -> Self {
        Self {
            verbs: owned(&["get"]),
            paths: owned(paths),
            ..Self::default()
        }
    }
}

/// A role given to somebody: a RoleBinding with its Role, or a ClusterRoleBinding with its ClusterRole.
#[derive(Clone, Debug)]
pub struct Binding {
    /// Name of both.
    pub name: String,
    /// Where it holds; everywhere when none.
    pub namespace: Option<String>,
    /// Users who have it, by name.
    pub users: Vec<String>,
    /// Groups who have it.
    pub groups: Vec<String>,
    /// What it allows.
    pub rules: Vec<Rule>,
}

/// Something that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action<'a> {
    Resource {
        verb: &'a str,
        group: &'a str,
        resource: &'a str,
        subresource: &'a str,
        namespace: &'a str,
        name: &'a str,
    },
    Path {
        verb: &'a str,
        path: &'a str,
    },
}

/// Members may do all.
const MASTERS: &str = "system:masters";
const AUTHENTICATED: &str = "system:authenticated";
const UNAUTHENTICATED: &str = "system:unauthenticated";

/// All that is allowed, and the tokens that say who is who.
pub(super) struct Access {
    tokens: HashMap<String, Identity>,
    bindings: Vec<Binding>,
}

impl Access {
    /// With the bindings that every cluster has, and `bindings`.
    pub(super) fn new(tokens: HashMap<String, Identity>, bindings: Vec<Binding>) -> Self {
        let mut all = builtin();
        all.extend(bindings);
        Self {
            tokens,
            bindings: all,
        }
    }

    /// Who sends this `Authorization` header. None: somebody with wrong credentials.
    pub(super) fn authenticate(&self, header: Option<&[u8]>) -> Option<Identity> {
        let with = |identity: &Identity, groups: &[&str]| {
            let mut identity = identity.clone();
            identity.groups.extend(owned(groups));
            identity
        };
        let token = header.and_then(|h| {
            let (scheme, token) = std::str::from_utf8(h).ok()?.trim().split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
        });
        match token.filter(|t| !t.is_empty()) {
            None => Some(Identity {
                name: "system:anonymous".into(),
                groups: owned(&[UNAUTHENTICATED]),
            }),
            Some(token) => self
                .tokens
                .get(token)
                .map(|identity| with(identity, &[AUTHENTICATED])),
        }
    }

    /// Why `who` may do this, in the words of an access review; empty where the real server has none.
    /// None: they may not.
    pub(super) fn allows(&self, who: &Identity, action: &Action<'_>) -> Option<String> {
        if who.groups.iter().any(|g| g == MASTERS) {
            return Some(String::new());
        }
        self.bindings.iter().find_map(|binding| {
            let subject = binding.subject(who)?;
            let here = match (&binding.namespace, action) {
                (None, _) => true,
                (Some(own), Action::Resource { namespace, .. }) => own == namespace,
                (Some(_), Action::Path { .. }) => false,
            };
            (here && binding.rules.iter().any(|r| r.allows(action)))
                .then(|| binding.reason(&subject))
        })
    }

    /// As [`Self::allows`], with the refusal as the server words it.
    pub(super) fn check(&self, who: &Identity, action: &Action<'_>) -> Result<(), Status> {
        if self.allows(who, action).is_some() {
            return Ok(());
        }
        let mut status = refusal(who, action);
        status.from_authorization = true;
        Err(status)
    }
}

impl Binding {
    fn subject(&self, who: &Identity) -> Option<String> {
        if self.users.contains(&who.name) {
            return Some(match who.name.strip_prefix("system:serviceaccount:") {
                Some(account) => {
                    let (namespace, name) = account.split_once(':')?;
                    format!("ServiceAccount \"{name}/{namespace}\"")
                }
                None => format!("User \"{}\"", who.name),
            });
        }
        let group = self.groups.iter().find(|g| who.groups.contains(g))?;
        Some(format!("Group \"{group}\""))
    }

    fn reason(&self, subject: &str) -> String {
        let name = &self.name;
        match &self.namespace {
            Some(namespace) => format!(
                "RBAC: allowed by RoleBinding \"{name}/{namespace}\" of Role \"{name}\" to {subject}"
            ),
            None => format!(
                "RBAC: allowed by ClusterRoleBinding \"{name}\" of ClusterRole \"{name}\" to {subject}"
            ),
        }
    }
}

impl Rule {
    fn allows(&self, action: &Action<'_>) -> bool {
        let any = |all: &[String], one: &str| all.iter().any(|a| a == "*" || a == one);
        match action {
            Action::Resource {
                verb,
                group,
                resource,
                subresource,
                ..
            } => {
                any(&self.verbs, verb)
                    && any(&self.api_groups, group)
                    && any(&self.resources, &with_subresource(resource, subresource))
            }
            Action::Path { verb, path } => {
                any(&self.verbs, verb)
                    && self.paths.iter().any(|p| match p.strip_suffix('*') {
                        Some(start) => path.starts_with(start),
                        None => p == path,
                    })
            }
        }
    }
}

fn refusal(who: &Identity, action: &Action<'_>) -> Status {
    let user = &who.name;
    match action {
        Action::Path { verb, path } => Status::forbidden(
            format!("forbidden: User \"{user}\" cannot {verb} path \"{path}\""),
            Value::Object(serde_json::Map::new()),
        ),
        Action::Resource {
            verb,
            group,
            resource,
            subresource,
            namespace,
            name,
        } => {
            let qualified = qualified(group, resource);
            let object = if name.is_empty() {
                qualified
            } else {
                format!("{qualified} \"{name}\"")
            };
            let scope = if namespace.is_empty() {
                "at the cluster scope".to_owned()
            } else {
                format!("in the namespace \"{namespace}\"")
            };
            let full = with_subresource(resource, subresource);
            Status::forbidden(
                format!(
                    "{object} is forbidden: User \"{user}\" cannot {verb} resource \"{full}\" \
                     in API group \"{group}\" {scope}"
                ),
                details(group, resource, Some(*name).filter(|n| !n.is_empty())),
            )
        }
    }
}

fn with_subresource(resource: &str, subresource: &str) -> String {
    if subresource.is_empty() {
        resource.to_owned()
    } else {
        format!("{resource}/{subresource}")
    }
}

/// What every cluster allows to everybody.
fn builtin() -> Vec<Binding> {
    let binding = |name: &str, groups: &[&str], rule: Rule| Binding {
        name: name.to_owned(),
        namespace: None,
        users: Vec::new(),
        groups: owned(groups),
        rules: vec![rule],
    };
    vec![
        binding(
            "system:public-info-viewer",
            &[AUTHENTICATED, UNAUTHENTICATED],
            Rule::on_paths(&["/healthz", "/livez", "/readyz", "/version", "/version/"]),
        ),
        binding(
            "system:basic-user",
            &[AUTHENTICATED],
            Rule::on(
                &["create"],
                "authorization.k8s.io",
                &["selfsubjectaccessreviews", "selfsubjectrulesreviews"],
            ),
        ),
        binding(
            "system:discovery",
            &[AUTHENTICATED],
            Rule::on_paths(&[
                "/api",
                "/api/*",
                "/apis",
                "/apis/*",
                "/openapi",
                "/openapi/*",
            ]),
        ),
    ]
}

fn owned(all: &[&str]) -> Vec<String> {
    all.iter().map(|s| (*s).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access() -> Access {
        let identity = |name: &str| Identity {
            name: name.into(),
            groups: vec![],
        };
        let tokens = HashMap::from([("t".to_owned(), identity("dev"))]);
        let binding = Binding {
            name: "pmz-user".into(),
            namespace: Some("pmz".into()),
            users: vec!["dev".into()],
            groups: vec![],
            rules: vec![
                Rule::on(&["get", "list"], "", &["pods"]),
                Rule::on(&["get", "create"], "", &["pods/portforward"]),
            ],
        };
        Access::new(tokens, vec![binding])
    }

    fn action<'a>(
        verb: &'a str,
        resource: &'a str,
        sub: &'a str,
        namespace: &'a str,
    ) -> Action<'a> {
        Action::Resource {
            verb,
            group: "",
            resource,
            subresource: sub,
            namespace,
            name: "",
        }
    }

    #[test]
    fn a_role_holds_in_its_namespace_for_its_verbs_and_subresources() {
        let access = access();
        let dev = access.authenticate(Some(b"Bearer t")).unwrap();
        let allowed = |verb, resource, sub, namespace| {
            access
                .allows(&dev, &action(verb, resource, sub, namespace))
                .is_some()
        };
        assert!(allowed("list", "pods", "", "pmz"));
        assert!(allowed("create", "pods", "portforward", "pmz"));
        assert!(!allowed("watch", "pods", "", "pmz"));
        assert!(!allowed("create", "pods", "", "pmz"));
        assert!(!allowed("list", "pods", "", ""));
        assert!(!allowed("list", "pods", "", "default"));
        assert_eq!(
            access
                .allows(&dev, &action("list", "pods", "", "pmz"))
                .unwrap(),
            "RBAC: allowed by RoleBinding \"pmz-user/pmz\" of Role \"pmz-user\" to User \"dev\""
        );
    }

    #[test]
    fn nobody_may_ask_for_the_version_but_not_for_the_apis() {
        let access = access();
        let nobody = access.authenticate(None).unwrap();
        let get = |path| access.check(&nobody, &Action::Path { verb: "get", path });
        assert!(get("/version").is_ok());
        assert_eq!(
            get("/api").unwrap_err().message,
            "forbidden: User \"system:anonymous\" cannot get path \"/api\""
        );
        assert!(access.authenticate(Some(b"Bearer wrong")).is_none());
    }

    #[test]
    fn a_refusal_names_user_verb_resource_and_place() {
        let access = access();
        let dev = access.authenticate(Some(b"Bearer t")).unwrap();
        let status = access
            .check(&dev, &action("list", "services", "", ""))
            .unwrap_err();
        assert_eq!(
            status.message,
            "services is forbidden: User \"dev\" cannot list resource \"services\" in API group \"\" \
             at the cluster scope"
        );
        assert_eq!(
            status.details.unwrap(),
            serde_json::json!({"kind": "services"})
        );
    }
}

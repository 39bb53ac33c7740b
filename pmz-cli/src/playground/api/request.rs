//! What a request means: the API server's RequestInfo, and the options in the query.

use http::{HeaderMap, Method, Uri, header::USER_AGENT};

use super::rbac::Action;
use super::status::Status;

/// What a request is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// Objects.
    Resource(ResourceTarget),
    /// A path outside the APIs, or an API's own page.
    Path { verb: String, path: String },
}

/// Objects, or one, or a subresource of one. What is not given is empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ResourceTarget {
    pub(super) verb: &'static str,
    pub(super) group: String,
    pub(super) version: String,
    pub(super) resource: String,
    pub(super) subresource: String,
    pub(super) namespace: String,
    pub(super) name: String,
}

/// The query of a request, decoded.
#[derive(Clone, Debug, Default)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    pub(super) fn of(uri: &Uri) -> Self {
        let text = uri.query().unwrap_or_default().as_bytes();
        Self(form_urlencoded::parse(text).into_owned().collect())
    }

    /// The first value of that name; empty if there is none.
    pub(super) fn get(&self, name: &str) -> &str {
        self.0
            .iter()
            .find(|(key, _)| key == name)
            .map_or("", |(_, value)| value)
    }

    /// All values of that name.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// True if it is there and neither `false` nor `0` (that is how the API server reads booleans).
    pub(super) fn flag(&self, name: &str) -> bool {
        self.all(name)
            .next()
            .is_some_and(|value| value != "false" && value != "0")
    }

    /// A decimal number; none if it is not there or empty.
    pub(super) fn number(&self, name: &str) -> Result<Option<i64>, Status> {
        let text = self.get(name);
        if text.is_empty() {
            return Ok(None);
        }
        text.parse().map(Some).map_err(|_| {
            let what = if is_digits(text.strip_prefix(['-', '+']).unwrap_or(text)) {
                "value out of range"
            } else {
                "invalid syntax"
            };
            Status::bad_request(format!("strconv.ParseInt: parsing \"{text}\": {what}"))
        })
    }
}

/// Whether there are only digits in `text`, and at least one.
pub(super) fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// Whether the answer is for a person: asked for, or to a program that people look at.
pub(super) fn is_pretty(query: &Query, headers: &HeaderMap) -> bool {
    if query.all("pretty").next().is_some() {
        return query.flag("pretty");
    }
    let agent = headers.get(USER_AGENT).map_or(&[][..], |a| a.as_bytes());
    ["curl", "Wget", "Mozilla/5.0"]
        .iter()
        .any(|person| agent.starts_with(person.as_bytes()))
}

impl Target {
    /// From method, path and query.
    pub(super) fn of(method: &Method, uri: &Uri, query: &Query) -> Self {
        let path = uri.path();
        match ResourceTarget::of(method, path, query) {
            Some(target) => Self::Resource(target),
            None => Self::Path {
                verb: method.as_str().to_ascii_lowercase(),
                path: path.to_owned(),
            },
        }
    }

    /// What has to be allowed for it.
    pub(super) fn action(&self) -> Action<'_> {
        match self {
            Self::Path { verb, path } => Action::Path { verb, path },
            Self::Resource(target) => target.action(target.verb),
        }
    }
}

impl ResourceTarget {
    fn of(method: &Method, path: &str, query: &Query) -> Option<Self> {
        let mut parts: Vec<&str> = path.split('/').collect();
        if parts.first() == Some(&"") {
            parts.remove(0);
        }
        if parts.last() == Some(&"") {
            parts.pop();
        }
        if parts.contains(&"") {
            return None;
        }
        let (group, version, mut rest) = match parts.as_slice() {
            ["api", version, rest @ ..] => ("", *version, rest),
            ["apis", group, version, rest @ ..] => (*group, *version, rest),
            _ => return None,
        };
        // The old way to ask for a watch.
        let watched = rest.first() == Some(&"watch");
        if watched {
            rest = &rest[1..];
        }
        let namespace = match rest {
            ["namespaces", namespace, ..] => *namespace,
            _ => "",
        };
        if let ["namespaces", _, subresource, ..] = rest
            && !matches!(*subresource, "status" | "finalize")
        {
            rest = &rest[2..];
        }
        let (&resource, rest) = rest.split_first()?;
        let name = rest.first().copied().unwrap_or_default();
        let subresource = rest.get(1).copied().unwrap_or_default();
        let mut target = Self {
            verb: "",
            group: group.to_owned(),
            version: version.to_owned(),
            resource: resource.to_owned(),
            subresource: subresource.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        target.verb = match *method {
            Method::POST => "create",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE if name.is_empty() => "deletecollection",
            Method::DELETE => "delete",
            _ if watched => "watch",
            _ if !name.is_empty() => "get",
            _ if query.flag("watch") => "watch",
            _ => "list",
        };
        if name.is_empty() && matches!(target.verb, "list" | "watch") {
            // A list of the one object with a name is about that object.
            let wanted = query.get("fieldSelector").split(',').find_map(|term| {
                let value = term.strip_prefix("metadata.name=")?;
                Some(value.strip_prefix('=').unwrap_or(value))
            });
            target.name = wanted.unwrap_or_default().to_owned();
        }
        Some(target)
    }

    /// What has to be allowed to do `verb` here.
    pub(super) fn action<'a>(&'a self, verb: &'a str) -> Action<'a> {
        Action::Resource {
            verb,
            group: &self.group,
            resource: &self.resource,
            subresource: &self.subresource,
            namespace: &self.namespace,
            name: &self.name,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(method: Method, uri: &str) -> Target {
        let uri: Uri = uri.parse().unwrap();
        Target::of(&method, &uri, &Query::of(&uri))
    }

    fn resource(method: Method, uri: &str) -> (String, String, String, String) {
        match target(method, uri) {
            Target::Resource(t) => (
                format!("{} {}", t.verb, t.group),
                format!("{}/{}", t.resource, t.subresource),
                t.namespace,
                t.name,
            ),
            Target::Path { path, .. } => panic!("{path} is no resource"),
        }
    }

    fn expected(
        verb: &str,
        resource: &str,
        namespace: &str,
        name: &str,
    ) -> (String, String, String, String) {
        (verb.into(), resource.into(), namespace.into(), name.into())
    }

    #[test]
    fn paths_lead_to_resources_verbs_and_namespaces() {
        let get = |uri| resource(Method::GET, uri);
        assert_eq!(
            get("/api/v1/services"),
            expected("list ", "services/", "", "")
        );
        assert_eq!(
            get("/api/v1/services?watch=1"),
            expected("watch ", "services/", "", "")
        );
        assert_eq!(
            get("/api/v1/services?watch=false"),
            expected("list ", "services/", "", "")
        );
        assert_eq!(
            get("/api/v1/namespaces/pmz/pods/x"),
            expected("get ", "pods/", "pmz", "x")
        );
        assert_eq!(
            get("/api/v1/namespaces/pmz"),
            expected("get ", "namespaces/", "pmz", "pmz")
        );
        assert_eq!(
            get("/api/v1/namespaces"),
            expected("list ", "namespaces/", "", "")
        );
        assert_eq!(
            get("/api/v1/namespaces/pmz/pods/x/portforward?ports=1"),
            expected("get ", "pods/portforward", "pmz", "x")
        );
        assert_eq!(
            get("/api/v1/watch/namespaces/pmz/pods"),
            expected("watch ", "pods/", "pmz", "")
        );
        assert_eq!(
            get("/apis/discovery.k8s.io/v1/namespaces/a/endpointslices"),
            expected("list discovery.k8s.io", "endpointslices/", "a", "")
        );
        assert_eq!(
            get("/api/v1/namespaces/a/pods?fieldSelector=metadata.name%3Dx"),
            expected("list ", "pods/", "a", "x")
        );
        assert_eq!(
            resource(Method::DELETE, "/api/v1/namespaces/a/pods"),
            expected("deletecollection ", "pods/", "a", "")
        );
    }

    #[test]
    fn all_else_is_a_path() {
        for uri in [
            "/",
            "/version",
            "/api",
            "/api/v1",
            "/apis/apps/v1",
            "//api/v1/pods",
            "/api/v1//pods",
        ] {
            assert!(
                matches!(target(Method::GET, uri), Target::Path { .. }),
                "{uri}"
            );
        }
    }
}

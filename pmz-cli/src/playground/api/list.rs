//! Lists: `limit` and `continue`, versions, selectors.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::request::{Query, ResourceTarget};
use super::resources::Resource;
use super::select::Selector;
use super::status::Status;
use super::store::{Key, Store};

/// How long a list waits for a version that has not come yet.
const PATIENCE: Duration = Duration::from_secs(3);

/// The refusal of a token whose version is forgotten.
const EXPIRED: &str = "The provided continue parameter is too old to display a consistent list result. \
    You can start a new list without the continue parameter, or use the continue token in this response \
    to retrieve the remainder of the results. Continuing with the provided token results in an \
    inconsistent list - objects that were created, modified, or deleted between the time the first chunk \
    was returned and now may show up in the list.";

/// Where a list goes on: in version `rv` (-1: the newest), after the key `start`.
#[derive(Serialize, Deserialize)]
struct Token {
    v: String,
    rv: i64,
    start: String,
}

/// Which objects a list or a watch is about.
pub(super) struct Scope {
    pub(super) resource: &'static Resource,
    namespace: String,
    selector: Selector,
}

impl Scope {
    pub(super) fn of(
        resource: &'static Resource,
        target: &ResourceTarget,
        query: &Query,
    ) -> Result<Self, Status> {
        let selector = Selector::parse(
            query.get("labelSelector"),
            query.get("fieldSelector"),
            resource.fields,
        )?;
        Ok(Self {
            resource,
            namespace: target.namespace.clone(),
            selector,
        })
    }

    /// Whether it is about objects at `key`.
    pub(super) fn covers(&self, key: &Key) -> bool {
        !self.resource.namespaced || self.namespace.is_empty() || self.namespace == key.namespace
    }

    /// Whether it is about `object`.
    pub(super) fn matches(&self, object: &Value) -> bool {
        self.selector.matches(object)
    }

    /// The start of what comes after `key`, relative to the collection.
    fn after(&self, key: &Key) -> String {
        if self.resource.namespaced && self.namespace.is_empty() {
            format!("/{}/{}\0", key.namespace, key.name)
        } else {
            format!("/{}\0", key.name)
        }
    }

    fn last_before(&self, start: &str) -> Option<Key> {
        let path = start.strip_prefix('/')?.strip_suffix('\0')?;
        let (namespace, name) = if self.resource.namespaced && self.namespace.is_empty() {
            path.split_once('/')?
        } else if self.resource.namespaced {
            (self.namespace.as_str(), path)
        } else {
            ("", path)
        };
        Some(Key::new(self.resource, namespace, name))
    }
}

/// A list, as an object.
pub(super) async fn list(
    store: &Store,
    target: &ResourceTarget,
    resource: &'static Resource,
    query: &Query,
) -> Result<Value, Status> {
    let scope = Scope::of(resource, target, query)?;
    let limit = usize::try_from(query.number("limit")?.unwrap_or(0)).unwrap_or(0);
    check_options(query)?;
    let token = query.get("continue");
    let asked = version(query)
        .map_err(|e| Status::bad_request(format!("invalid resource version: {}", e.message)))?;
    let (version, objects, after) = if token.is_empty() {
        let (version, objects) = at_version(store, resource, asked, query).await?;
        (version, objects, None)
    } else {
        if asked.is_some() && asked != Some(0) {
            return Err(Status::bad_request(
                "specifying resource version is not allowed when using continue",
            ));
        }
        continued(store, &scope, token)?
    };

    let start = after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
    let mut found = objects
        .range((start, Bound::Unbounded))
        .filter(|(key, object)| scope.covers(key) && scope.matches(object));
    // A list from the watch cache ("any version will do") is never cut.
    let limit = if limit == 0 || asked == Some(0) {
        usize::MAX
    } else {
        limit
    };
    let mut items = Vec::new();
    let mut last = None;
    for (key, object) in found.by_ref().take(limit) {
        items.push(without_type(object));
        last = Some(key);
    }
    let remaining = found.count();
    let mut metadata = json!({"resourceVersion": version.to_string()});
    if let Some(last) = last.filter(|_| remaining > 0) {
        let rv = i64::try_from(version).unwrap_or(i64::MAX);
        metadata["continue"] = encode(rv, scope.after(last)).into();
        if query.get("labelSelector").is_empty() && query.get("fieldSelector").is_empty() {
            metadata["remainingItemCount"] = remaining.into();
        }
    }
    Ok(json!({
        "kind": format!("{}List", resource.kind),
        "apiVersion": resource.api_version(),
        "metadata": metadata,
        "items": items,
    }))
}

type Snapshot = BTreeMap<Key, Arc<Value>>;

async fn at_version(
    store: &Store,
    resource: &'static Resource,
    asked: Option<u64>,
    query: &Query,
) -> Result<(u64, Snapshot), Status> {
    let Some(asked) = asked.filter(|v| *v != 0) else {
        return Ok(store.list(resource));
    };
    let mut versions = store.subscribe();
    if timeout(PATIENCE, versions.wait_for(|v| *v >= asked))
        .await
        .is_err()
    {
        return Err(Status::version_too_large(asked, store.version()));
    }
    if query.get("resourceVersionMatch") != "Exact" {
        return Ok(store.list(resource));
    }
    match store.list_at(resource, asked) {
        Some(objects) => Ok((asked, objects)),
        None => Err(Status::expired(
            "The resourceVersion for the provided list is too old.",
        )),
    }
}

fn continued(
    store: &Store,
    scope: &Scope,
    text: &str,
) -> Result<(u64, Snapshot, Option<Key>), Status> {
    let bad = |what: String| Status::bad_request(format!("invalid continue token: {what}"));
    let json = URL_SAFE_NO_PAD
        .decode(text.trim_end_matches('='))
        .map_err(|e| bad(format!("continue key is not valid: {e}")))?;
    let token: Token = serde_json::from_slice(&json)
        .map_err(|e| bad(format!("continue key is not valid: {e}")))?;
    if token.v != "meta.k8s.io/v1" {
        return Err(bad(
            "continue key is not valid: server does not recognize this encoded \
                        version"
                .to_owned(),
        ));
    }
    let after = scope
        .last_before(&token.start)
        .ok_or_else(|| bad("continue key is not valid".to_owned()))?;
    let Ok(version) = u64::try_from(token.rv) else {
        let (version, objects) = store.list(scope.resource);
        return Ok((version, objects, Some(after)));
    };
    match store.list_at(scope.resource, version) {
        Some(objects) => Ok((version, objects, Some(after))),
        None => {
            let mut status = Status::expired(EXPIRED);
            status.next = Some(encode(-1, token.start));
            Err(status)
        }
    }
}

fn encode(rv: i64, start: String) -> String {
    let token = json!({"v": "meta.k8s.io/v1", "rv": rv, "start": start});
    URL_SAFE_NO_PAD.encode(token.to_string())
}

/// Objects in a list carry no type of their own.
fn without_type(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(map) = object.as_object_mut() {
        map.remove("kind");
        map.remove("apiVersion");
    }
    object
}

/// The query's `resourceVersion`.
pub(super) fn version(query: &Query) -> Result<Option<u64>, Status> {
    let text = query.get("resourceVersion");
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| {
        Status::new(
            http::StatusCode::INTERNAL_SERVER_ERROR,
            format!(
                "resourceVersion: Invalid value: \"{text}\": strconv.ParseUint: parsing \"{text}\": \
                 invalid syntax"
            ),
        )
    })
}

/// Refuses options that don't go together, of lists and watches both.
pub(super) fn check_options(query: &Query) -> Result<(), Status> {
    let watching = query.flag("watch");
    let matching = query.get("resourceVersionMatch");
    let version = query.get("resourceVersion");
    let initial = query.all("sendInitialEvents").next().is_some();
    let forbidden = |field: &str, why: &str| {
        Err(Status::invalid(
            "meta.k8s.io",
            "ListOptions",
            field,
            "FieldValueForbidden",
            &format!("Forbidden: {why}"),
        ))
    };
    if initial && !watching {
        return forbidden(
            "sendInitialEvents",
            "sendInitialEvents is forbidden for list",
        );
    }
    if initial && matching != "NotOlderThan" {
        return forbidden(
            "resourceVersionMatch",
            "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
        );
    }
    if watching && !initial && !matching.is_empty() {
        return forbidden(
            "resourceVersionMatch",
            "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
        );
    }
    if matching.is_empty() || watching {
        return Ok(());
    }
    if version.is_empty() {
        return forbidden(
            "resourceVersionMatch",
            "resourceVersionMatch is forbidden unless resourceVersion is provided",
        );
    }
    match matching {
        "Exact" if version == "0" => forbidden(
            "resourceVersionMatch",
            "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
        ),
        "Exact" | "NotOlderThan" => Ok(()),
        other => Err(Status::invalid(
            "meta.k8s.io",
            "ListOptions",
            "resourceVersionMatch",
            "FieldValueNotSupported",
            &format!(
                "Unsupported value: \"{other}\": supported values: \"Exact\", \"NotOlderThan\", \"\""
            ),
        )),
    }
}

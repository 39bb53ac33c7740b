//! SelfSubjectAccessReview: what may I do?

use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use serde_json::{Map, Value, json};

use super::rbac::{Access, Action, Identity};
use super::status::Status;
use super::store::now;

const GROUP: &str = "authorization.k8s.io";

/// Answers the review in `body`, with its status.
pub(super) fn review(
    access: &Access,
    who: &Identity,
    headers: &HeaderMap,
    body: &[u8],
    manager: &str,
) -> Result<(StatusCode, Value), Status> {
    let media = headers.get(CONTENT_TYPE).map_or(&[][..], |t| t.as_bytes());
    if !media.is_empty() && !media.starts_with(b"application/json") {
        return Err(Status::unsupported_media_type());
    }
    let asked: Value = serde_json::from_slice(body).map_err(|error| {
        Status::bad_request(format!(
            "the object provided is unrecognized (must be of type SelfSubjectAccessReview): couldn't get \
             version/kind; json parse error: {error}"
        ))
    })?;
    let spec = &asked["spec"];
    let resource = &spec["resourceAttributes"];
    let path = &spec["nonResourceAttributes"];
    let text = |from: &'_ Value, name: &str| from[name].as_str().unwrap_or_default().to_owned();
    let reason = match (resource.is_object(), path.is_object()) {
        (true, false) => access.allows(
            who,
            &Action::Resource {
                verb: &text(resource, "verb"),
                group: &text(resource, "group"),
                resource: &text(resource, "resource"),
                subresource: &text(resource, "subresource"),
                namespace: &text(resource, "namespace"),
                name: &text(resource, "name"),
            },
        ),
        (false, true) => access.allows(
            who,
            &Action::Path {
                verb: &text(path, "verb"),
                path: &text(path, "path"),
            },
        ),
        _ => {
            return Err(Status::invalid(
                GROUP,
                "",
                "spec",
                "FieldValueInvalid",
                "Invalid value: null: exactly one of nonResourceAttributes or resourceAttributes must be \
                 specified",
            ));
        }
    };
    let mut status = json!({"allowed": reason.is_some()});
    if let Some(reason) = reason.filter(|r| !r.is_empty()) {
        status["reason"] = reason.into();
    }
    let answer = json!({
        "kind": "SelfSubjectAccessReview",
        "apiVersion": "authorization.k8s.io/v1",
        "metadata": {"managedFields": [{
            "manager": manager,
            "operation": "Update",
            "apiVersion": "authorization.k8s.io/v1",
            "time": now(),
            "fieldsType": "FieldsV1",
            "fieldsV1": {"f:spec": managed(spec)},
        }]},
        "spec": spec,
        "status": status,
    });
    Ok((StatusCode::CREATED, answer))
}

/// The fields of the spec as `managedFields` lists them.
fn managed(spec: &Value) -> Value {
    let mut all = Map::new();
    for (name, attributes) in spec.as_object().into_iter().flatten() {
        let mut fields = Map::from_iter([(".".to_owned(), json!({}))]);
        for field in attributes.as_object().into_iter().flat_map(Map::keys) {
            fields.insert(format!("f:{field}"), json!({}));
        }
        all.insert(format!("f:{name}"), Value::Object(fields));
    }
    Value::Object(all)
}

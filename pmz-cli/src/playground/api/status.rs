//! Answers: bodies and headers as the API server gives them, and its errors, which are `Status` objects
//! (meta/v1).

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use serde_json::{Map, Value, json};

/// Body of an answer.
pub(super) type Body = UnsyncBoxBody<Bytes, std::convert::Infallible>;
/// A whole answer.
pub(super) type Reply = Response<Body>;

/// An error as the API server words it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Status {
    /// The HTTP status.
    pub(super) code: StatusCode,
    /// `reason`; none in the few errors that have none.
    pub(super) reason: Option<&'static str>,
    /// `message`.
    pub(super) message: String,
    /// `details`, left out when none.
    pub(super) details: Option<Value>,
    /// `metadata.continue`.
    pub(super) next: Option<String>,
    /// Whether it comes from authorization, whose answers tell browsers not to guess.
    pub(super) from_authorization: bool,
}

impl Status {
    /// With neither details nor reason.
    pub(super) fn new(code: StatusCode, message: impl Into<String>) -> Self {
        Self {
            code,
            reason: None,
            message: message.into(),
            details: None,
            next: None,
            from_authorization: false,
        }
    }

    fn with(code: StatusCode, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            reason: Some(reason),
            ..Self::new(code, message)
        }
    }

    /// 400.
    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::with(StatusCode::BAD_REQUEST, "BadRequest", message)
    }

    /// 401, of a request with credentials that nobody has.
    pub(super) fn unauthorized() -> Self {
        Self::with(StatusCode::UNAUTHORIZED, "Unauthorized", "Unauthorized")
    }

    /// 403. `details` name the object.
    pub(super) fn forbidden(message: impl Into<String>, details: Value) -> Self {
        Self {
            details: Some(details),
            ..Self::with(StatusCode::FORBIDDEN, "Forbidden", message)
        }
    }

    /// 404 of an object; `resource` qualified by its group as in `endpointslices.discovery.k8s.io`.
    pub(super) fn not_found(group: &str, resource: &str, name: &str) -> Self {
        Self {
            details: Some(details(group, resource, Some(name))),
            ..Self::with(
                StatusCode::NOT_FOUND,
                "NotFound",
                format!("{} \"{name}\" not found", qualified(group, resource)),
            )
        }
    }

    /// 404 of a path below a known API.
    pub(super) fn no_such_resource() -> Self {
        Self {
            details: Some(json!({})),
            ..Self::with(
                StatusCode::NOT_FOUND,
                "NotFound",
                "the server could not find the requested resource",
            )
        }
    }

    /// 405.
    pub(super) fn method_not_allowed() -> Self {
        Self {
            details: Some(json!({})),
            ..Self::with(
                StatusCode::METHOD_NOT_ALLOWED,
                "MethodNotAllowed",
                "the server does not allow this method on the requested resource",
            )
        }
    }

    /// 410 of a watch.
    pub(super) fn expired(message: impl Into<String>) -> Self {
        Self::with(StatusCode::GONE, "Expired", message)
    }

    /// 415.
    pub(super) fn unsupported_media_type() -> Self {
        Self::with(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "UnsupportedMediaType",
            "the body of the request was in an unknown format - accepted media types include: \
             application/json, application/yaml, application/vnd.kubernetes.protobuf",
        )
    }

    /// 422, with one cause at one field. `cause_reason` is the machine's word for it.
    pub(super) fn invalid(
        group: &str,
        kind: &str,
        field: &str,
        cause_reason: &str,
        cause: &str,
    ) -> Self {
        let mut details = json!({
            "group": group,
            "causes": [{"reason": cause_reason, "message": cause, "field": field}],
        });
        if !kind.is_empty() {
            details["kind"] = kind.into();
        }
        Self {
            details: Some(details),
            ..Self::with(
                StatusCode::UNPROCESSABLE_ENTITY,
                "Invalid",
                format!("{kind}.{group} \"\" is invalid: {field}: {cause}"),
            )
        }
    }

    /// 504 of a list at a version that has not come yet.
    pub(super) fn version_too_large(asked: u64, current: u64) -> Self {
        Self {
            details: Some(json!({
                "causes": [{
                    "reason": "ResourceVersionTooLarge",
                    "message": "Too large resource version",
                }],
                "retryAfterSeconds": 1,
            })),
            ..Self::with(
                StatusCode::GATEWAY_TIMEOUT,
                "Timeout",
                format!("Timeout: Too large resource version: {asked}, current: {current}"),
            )
        }
    }

    /// As an object.
    pub(super) fn to_value(&self) -> Value {
        let mut metadata = Map::new();
        if let Some(next) = &self.next {
            metadata.insert("continue".into(), next.as_str().into());
        }
        let mut value = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": metadata,
            "status": "Failure",
            "message": self.message,
            "code": self.code.as_u16(),
        });
        if let Some(reason) = self.reason {
            value["reason"] = reason.into();
        }
        if let Some(details) = &self.details {
            value["details"] = details.clone();
        }
        value
    }

    /// As an answer.
    pub(super) fn reply(&self, pretty: bool) -> Reply {
        let mut reply = json_reply(self.code, &self.to_value(), pretty);
        if self.code == StatusCode::GATEWAY_TIMEOUT {
            reply
                .headers_mut()
                .insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if self.from_authorization {
            nosniff(&mut reply);
        }
        reply
    }
}

/// `resource.group`, or `resource` alone in the core group.
pub(super) fn qualified(group: &str, resource: &str) -> String {
    if group.is_empty() {
        resource.to_owned()
    } else {
        format!("{resource}.{group}")
    }
}

/// `details` that name an object.
pub(super) fn details(group: &str, resource: &str, name: Option<&str>) -> Value {
    let mut details = json!({"kind": resource});
    if !group.is_empty() {
        details["group"] = group.into();
    }
    if let Some(name) = name {
        details["name"] = name.into();
    }
    details
}

/// An answer in JSON, which ends with a line feed.
pub(super) fn json_reply(code: StatusCode, value: &Value, pretty: bool) -> Reply {
    json_text_reply(code, render(value, pretty))
}

/// As [`json_reply`], of JSON that is text already.
pub(super) fn json_text_reply(code: StatusCode, text: String) -> Reply {
    let mut reply = Response::new(full(text));
    *reply.status_mut() = code;
    reply
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    reply
}

/// The text of `value`, with its line feed.
pub(super) fn render(value: &Value, pretty: bool) -> String {
    if pretty {
        format!("{value:#}\n")
    } else {
        format!("{value}\n")
    }
}

/// An answer in plain text.
pub(super) fn text_reply(code: StatusCode, text: impl Into<String>) -> Reply {
    let mut reply = Response::new(full(text.into()));
    *reply.status_mut() = code;
    reply.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    reply
}

/// The 404 of a path that is not below an API.
pub(super) fn page_not_found() -> Reply {
    let mut reply = text_reply(StatusCode::NOT_FOUND, "404 page not found\n");
    nosniff(&mut reply);
    reply
}

/// Tells browsers not to guess what the body is.
pub(super) fn nosniff(reply: &mut Reply) {
    reply.headers_mut().insert(
        HeaderName::from_static("x-content-type-options"),
        HeaderValue::from_static("nosniff"),
    );
}

/// A body that is all there.
pub(super) fn full(text: impl Into<Bytes>) -> Body {
    Full::new(text.into()).boxed_unsync()
}

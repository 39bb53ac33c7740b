//! One request after the other: who asks, may they, what is the answer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use http::header::{AUTHORIZATION, CACHE_CONTROL, USER_AGENT};
use http::{HeaderName, HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::faults::Faults;
use super::list::{Scope, list};
use super::portforward::{self, DynPodDialer};
use super::rbac::{Access, Identity};
use super::request::{Query, ResourceTarget, Target, is_pretty};
use super::resources::Resource;
use super::run::Run;
use super::status::{Reply, Status, json_reply, nosniff, page_not_found, text_reply};
use super::store::{Key, Store};
use super::{discovery, review, watch};
use crate::playground::model::new_uid;

/// Bytes of a request's body, at most (a real server takes 3 MiB).
const LARGEST_BODY: usize = 3 << 20;
/// Where kubelets listen.
const KUBELET_PORT: u16 = 10250;

/// What answers requests.
pub(super) struct Service {
    pub(super) store: Store,
    pub(super) access: Access,
    pub(super) faults: Faults,
    pub(super) dialer: Arc<dyn DynPodDialer>,
    pub(super) advertised: SocketAddr,
    /// Watches that are running.
    pub(super) watches: Arc<AtomicUsize>,
}

impl Service {
    /// Answers; never fails. What goes on after the answer runs in `run`.
    pub(super) async fn answer(&self, request: Request<Incoming>, run: &Run) -> Reply {
        let query = Query::of(request.uri());
        let pretty = is_pretty(&query, request.headers());
        let credentials = request.headers().get(AUTHORIZATION).map(|h| h.as_bytes());
        let mut reply = match self.access.authenticate(credentials) {
            None => Status::unauthorized().reply(pretty),
            Some(who) => self
                .answer_to(&who, &query, pretty, request, run)
                .await
                .unwrap_or_else(|status| status.reply(pretty)),
        };
        if reply.status() != StatusCode::SWITCHING_PROTOCOLS {
            let headers = reply.headers_mut();
            if let Ok(id) = HeaderValue::from_str(&new_uid()) {
                headers.insert(HeaderName::from_static("audit-id"), id);
            }
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
        }
        reply
    }

    async fn answer_to(
        &self,
        who: &Identity,
        query: &Query,
        pretty: bool,
        request: Request<Incoming>,
        run: &Run,
    ) -> Result<Reply, Status> {
        let target = Target::of(request.method(), request.uri(), query);
        self.access.check(who, &target.action())?;
        match target {
            Target::Path { path, .. } => self.page(request.method(), &path, query, pretty),
            Target::Resource(target) => {
                self.resource(who, &target, query, pretty, request, run)
                    .await
            }
        }
    }

    fn page(
        &self,
        method: &Method,
        path: &str,
        query: &Query,
        pretty: bool,
    ) -> Result<Reply, Status> {
        let address = self.advertised.to_string();
        let page = match path {
            "/" => Some(
                json!({"paths": ["/api", "/api/v1", "/apis", "/healthz", "/livez", "/readyz", "/version"]}),
            ),
            "/version" | "/version/" => Some(discovery::version()),
            "/healthz" | "/livez" | "/readyz" => {
                let name = path.trim_start_matches('/');
                let text = if query.all("verbose").next().is_some() {
                    format!("[+]ping ok\n[+]etcd ok\n{name} check passed\n")
                } else {
                    "ok".to_owned()
                };
                let mut reply = text_reply(StatusCode::OK, text);
                nosniff(&mut reply);
                return Ok(reply);
            }
            _ => discovery::page(path, &address),
        };
        match page {
            Some(_) if *method != Method::GET => Err(Status::method_not_allowed()),
            Some(page) => Ok(json_reply(StatusCode::OK, &page, pretty)),
            None if path.starts_with("/api/") => Err(Status::no_such_resource()),
            None => Ok(page_not_found()),
        }
    }

    async fn resource(
        &self,
        who: &Identity,
        target: &ResourceTarget,
        query: &Query,
        pretty: bool,
        request: Request<Incoming>,
        run: &Run,
    ) -> Result<Reply, Status> {
        if target.group == "authorization.k8s.io" && target.resource == "selfsubjectaccessreviews" {
            return self.review(who, target, pretty, request).await;
        }
        if target.version != "v1" {
            return no_such(target);
        }
        let Some(resource) = Resource::find(&target.group, &target.resource) else {
            return no_such(target);
        };
        if resource.kind == "Pod" && target.subresource == "portforward" {
            let context = portforward::Context {
                store: &self.store,
                access: &self.access,
                faults: &self.faults,
                dialer: &self.dialer,
                kubelet: SocketAddr::new(self.advertised.ip(), KUBELET_PORT).to_string(),
                run,
            };
            return portforward::answer(&context, who, target, query, request);
        }
        let named = !target.name.is_empty() && target.verb == "get";
        let misplaced = if resource.namespaced {
            named && target.namespace.is_empty()
        } else {
            !target.namespace.is_empty() && resource.kind != "Namespace"
        };
        if misplaced || !matches!(target.subresource.as_str(), "" | "status") {
            return Err(Status::no_such_resource());
        }
        match target.verb {
            "get" => {
                let namespace = if resource.namespaced {
                    &target.namespace
                } else {
                    ""
                };
                let object = self
                    .store
                    .get(&Key::new(resource, namespace, &target.name))
                    .ok_or_else(|| {
                        Status::not_found(&target.group, &target.resource, &target.name)
                    })?;
                Ok(json_reply(StatusCode::OK, &object, pretty))
            }
            "list" => {
                let list = list(&self.store, target, resource, query).await?;
                Ok(json_reply(StatusCode::OK, &list, pretty))
            }
            "watch" => {
                let scope = Scope::of(resource, target, query)?;
                watch::watch(&self.store, scope, query, &self.watches)
            }
            _ => Err(Status::method_not_allowed()),
        }
    }

    async fn review(
        &self,
        who: &Identity,
        target: &ResourceTarget,
        pretty: bool,
        request: Request<Incoming>,
    ) -> Result<Reply, Status> {
        if target.verb != "create" || !target.name.is_empty() {
            return Err(Status::method_not_allowed());
        }
        let (head, body) = request.into_parts();
        let body = Limited::new(body, LARGEST_BODY)
            .collect()
            .await
            .map_err(|_| {
                Status::new(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    format!("limit is {LARGEST_BODY}"),
                )
            })?
            .to_bytes();
        let manager = head
            .headers
            .get(USER_AGENT)
            .and_then(|agent| agent.to_str().ok()?.split('/').next())
            .unwrap_or("unknown");
        let (code, answer): (StatusCode, Value) =
            review::review(&self.access, who, &head.headers, &body, manager)?;
        Ok(json_reply(code, &answer, pretty))
    }
}

/// The 404 of a resource that is not there: in a group that is, or not even that.
fn no_such(target: &ResourceTarget) -> Result<Reply, Status> {
    let group = format!("/apis/{}/{}", target.group, target.version);
    if target.group.is_empty() || discovery::page(&group, "").is_some() {
        Err(Status::no_such_resource())
    } else {
        Ok(page_not_found())
    }
}

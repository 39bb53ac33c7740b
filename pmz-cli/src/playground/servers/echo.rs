//! HTTP that answers with what was asked.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use tokio::net::TcpStream;

use super::http::{Body, json, query, refuse};

/// The biggest body that is sent back.
const MAX_BODY: usize = 16 << 20;

pub(super) async fn serve(stream: TcpStream, client: SocketAddr, hostname: String) {
    super::http::serve(stream, |request| answer(request, client, hostname.clone())).await;
}

async fn answer(
    request: Request<Incoming>,
    client: SocketAddr,
    hostname: String,
) -> Response<Body> {
    if let Some(body) = query(&request, "echo_body") {
        return json(&body.into());
    }
    let (head, body) = request.into_parts();
    let Ok(body) = Limited::new(body, MAX_BODY).collect().await else {
        return refuse(
            StatusCode::PAYLOAD_TOO_LARGE,
            "the body is broken, or more than 16 MiB",
        );
    };
    let mut headers = BTreeMap::<&str, String>::new();
    for (name, value) in &head.headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        headers
            .entry(name.as_str())
            .and_modify(|values| {
                values.push_str(", ");
                values.push_str(&value);
            })
            .or_insert_with(|| value.clone().into_owned());
    }
    json(&serde_json::json!({
        "method": head.method.as_str(),
        "path": head.uri.path(),
        "query": head.uri.query().unwrap_or_default(),
        "headers": headers,
        "body": String::from_utf8_lossy(&body.to_bytes()),
        "client": client.to_string(),
        "hostname": hostname,
    }))
}

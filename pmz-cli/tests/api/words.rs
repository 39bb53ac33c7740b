//! Answers byte by byte, as they were recorded from Kubernetes 1.37.

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::cluster::Cluster;
use crate::raw::{Raw, UPGRADE};

const V4: &str = "v5.channel.k8s.io, v4.channel.k8s.io";

fn sorted(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_are_status_objects_with_the_headers_of_the_real_server() {
    let cluster = Cluster::start();
    let mut dev = Raw::connect(&cluster, "dev").await;
    let services = "/api/v1/namespaces/pmz/services";
    let answer = dev.ask("GET", services, &[], "").await;
    assert_eq!(answer.status, "HTTP/1.1 403 Forbidden");
    assert_eq!(answer.header("Content-Type"), Some("application/json"));
    assert_eq!(answer.header("Cache-Control"), Some("no-cache, private"));
    assert_eq!(answer.header("X-Content-Type-Options"), Some("nosniff"));
    assert_eq!(answer.header("Audit-Id").unwrap().len(), 36);
    assert!(answer.text().ends_with("}\n"));
    assert_eq!(
        sorted(&answer.text()),
        sorted(
            r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"services is forbidden: User \"dev\" cannot list resource \"services\" in API group \"\" in the namespace \"pmz\"","reason":"Forbidden","details":{"kind":"services"},"code":403}"#
        )
    );
    let pretty = dev.ask("GET", services, &["User-Agent: curl/8"], "").await;
    assert!(
        pretty.text().contains("\n  \"kind\": \"Status\""),
        "{}",
        pretty.text()
    );

    let mut wrong = Raw::connect(&cluster, "nonsense").await;
    let answer = wrong.ask("GET", "/version", &[], "").await;
    assert_eq!(answer.status, "HTTP/1.1 401 Unauthorized");
    assert_eq!(
        sorted(&answer.text()),
        sorted(
            r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"Unauthorized","reason":"Unauthorized","code":401}"#
        )
    );
    let mut nobody = Raw::connect(&cluster, "").await;
    assert_eq!(
        nobody.ask("GET", "/version", &[], "").await.status,
        "HTTP/1.1 200 OK"
    );
    assert_eq!(
        nobody.ask("GET", "/api", &[], "").await.status,
        "HTTP/1.1 403 Forbidden"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_that_can_not_be_are_refused_as_recorded() {
    let cluster = Cluster::start();
    let mut admin = Raw::connect(&cluster, "admin").await;
    for (query, status, message) in [
        (
            "limit=abc",
            "400",
            "strconv.ParseInt: parsing \"abc\": invalid syntax",
        ),
        (
            "resourceVersion=abc",
            "400",
            "invalid resource version: resourceVersion: Invalid value: \"abc\": strconv.ParseUint: parsing \
             \"abc\": invalid syntax",
        ),
        (
            "resourceVersion=abc&watch=true",
            "500",
            "resourceVersion: Invalid value: \"abc\": strconv.ParseUint: parsing \"abc\": invalid syntax",
        ),
        (
            "watch=true&timeoutSeconds=abc",
            "400",
            "strconv.ParseInt: parsing \"abc\": invalid syntax",
        ),
        (
            "sendInitialEvents=true",
            "422",
            "ListOptions.meta.k8s.io \"\" is invalid: sendInitialEvents: Forbidden: sendInitialEvents is \
             forbidden for list",
        ),
        (
            "resourceVersionMatch=Exact",
            "422",
            "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch \
             is forbidden unless resourceVersion is provided",
        ),
        (
            "fieldSelector=foo%3Dbar",
            "400",
            "field label not supported: foo",
        ),
        (
            "continue=e30&resourceVersion=5",
            "400",
            "specifying resource version is not allowed when using continue",
        ),
    ] {
        let path = format!("/api/v1/services?{query}");
        let answer = admin.ask("GET", &path, &[], "").await;
        assert!(
            answer.status.starts_with(&format!("HTTP/1.1 {status} ")),
            "{query}: {}",
            answer.status
        );
        assert_eq!(sorted(&answer.text())["message"], message, "{query}");
    }
    let future = admin
        .ask("GET", "/api/v1/services?resourceVersion=999999", &[], "")
        .await;
    assert_eq!(future.status, "HTTP/1.1 504 Gateway Timeout");
    assert_eq!(future.header("Retry-After"), Some("1"));
    let version = cluster.server.store().version();
    assert_eq!(
        sorted(&future.text())["message"],
        format!("Timeout: Too large resource version: 999999, current: {version}")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn port_forwards_that_can_not_be_are_refused_as_recorded() {
    let cluster = Cluster::start();
    let parsing = |text: &str, what: &str| {
        format!("cannot convert to []int32: strconv.ParseUint: parsing \\\"{text}\\\": {what}")
    };
    for (query, protocol, status, body) in [
        ("?ports=", V4, "400", parsing("", "invalid syntax")),
        ("?ports=abc", V4, "400", parsing("abc", "invalid syntax")),
        (
            "?ports=70000",
            V4,
            "400",
            parsing("70000", "value out of range"),
        ),
        ("?ports=0", V4, "400", "port \"0\" must be > 0".into()),
        ("", V4, "400", "query parameter \"port\" is required".into()),
        ("?ports=80", "v5.channel.k8s.io", "403", String::new()),
        (
            "?ports=80",
            "SPDY/3.1+portforward.k8s.io",
            "403",
            String::new(),
        ),
    ] {
        let mut dev = Raw::connect(&cluster, "dev").await;
        let answer = dev.forward(query, protocol).await;
        assert!(
            answer.status.starts_with(&format!("HTTP/1.1 {status} ")),
            "{query}: {}",
            answer.status
        );
        assert!(answer.text().contains(&body), "{query}: {}", answer.text());
    }
    let mut dev = Raw::connect(&cluster, "dev").await;
    let path = "/api/v1/namespaces/pmz/pods/pmz-agent-0/portforward?ports=80";
    let plain = dev.ask("GET", path, &[], "").await;
    assert_eq!(sorted(&plain.text())["message"], "Upgrade request required");
    let post = dev.ask("POST", path, &UPGRADE, "").await;
    assert_eq!(
        (post.status.as_str(), post.text().as_str()),
        ("HTTP/1.1 405 Method Not Allowed", "bad method")
    );
    let mut dev2 = Raw::connect(&cluster, "dev2").await;
    let refused = dev2.ask("POST", path, &UPGRADE, "").await;
    assert_eq!(
        sorted(&refused.text())["message"],
        "pods \"pmz-agent-0\" is forbidden: User \"dev2\" cannot create resource \"pods/portforward\" in API \
         group \"\" in the namespace \"pmz\""
    );
}

/// A forward of one port to a listener of the test.
async fn forwarded(cluster: &Cluster) -> (Raw, tokio::net::TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    cluster
        .ports
        .insert("pmz-agent-0", 8080, listener.local_addr().unwrap());
    let mut dev = Raw::connect(cluster, "dev").await;
    let answer = dev.forward("?ports=8080", V4).await;
    assert_eq!(answer.status, "HTTP/1.1 101 Switching Protocols");
    assert_eq!(
        answer.header("Sec-Websocket-Accept"),
        Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
    );
    assert_eq!(
        answer.header("Sec-Websocket-Protocol"),
        Some("v4.channel.k8s.io")
    );
    let hello = b"\x82\x03\x00\x90\x1f\x82\x03\x01\x90\x1f";
    assert_eq!(dev.exact(hello.len()).await, hello);
    let (pod, _) = listener.accept().await.unwrap();
    (dev, pod)
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_look_as_recorded() {
    let cluster = Cluster::start();
    let (mut dev, mut pod) = forwarded(&cluster).await;
    dev.frame(2, b"\0abc").await;
    let mut got = [0; 3];
    pod.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"abc");
    pod.write_all(b"hello").await.unwrap();
    assert_eq!(dev.exact(8).await, b"\x82\x06\0hello");

    // Pings are answered; what is for no channel is ignored; a text frame is as good.
    dev.frame(9, b"pp").await;
    assert_eq!(dev.exact(4).await, b"\x8a\x02pp");
    for nothing in [&b""[..], b"\0", b"\x01abc", b"\x07abc", b"\xff\0"] {
        dev.frame(2, nothing).await;
    }
    dev.frame(1, b"\0def").await;
    pod.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"def");

    // The client's close is answered at once.
    dev.frame(8, b"\x03\xe8").await;
    assert_eq!(dev.rest().await, b"\x88\x02\x03\xe8");
    assert_eq!(pod.read(&mut got).await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_closes_closes_the_websocket_a_second_later() {
    let cluster = Cluster::start();
    let (mut dev, mut pod) = forwarded(&cluster).await;
    let start = std::time::Instant::now();
    pod.write_all(b"bye").await.unwrap();
    pod.shutdown().await.unwrap();
    assert_eq!(dev.exact(6).await, b"\x82\x04\0bye");
    // The other direction still works meanwhile.
    dev.frame(2, b"\0on").await;
    let mut got = [0; 2];
    pod.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"on");
    assert_eq!(dev.rest().await, b"\x88\x02\x03\xe8");
    assert!(start.elapsed() > std::time::Duration::from_millis(900));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_breaks_is_told_in_the_kubelets_words() {
    let cluster = Cluster::start();
    let (mut dev, mut pod) = forwarded(&cluster).await;
    // A byte on the way shows that the dial is over: a reset before that would be told as the dial's.
    dev.frame(2, b"\0x").await;
    pod.read_exact(&mut [0]).await.unwrap();
    socket2::SockRef::from(&pod)
        .set_linger(Some(std::time::Duration::ZERO))
        .unwrap();
    drop(pod);
    let text = String::from_utf8_lossy(&dev.rest().await).into_owned();
    assert!(
        text.contains("\u{1}error forwarding port 8080 to pod "),
        "{text}"
    );
    assert!(text.contains(": read: connection reset by peer"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_ends_its_own_connection_only() {
    let cluster = Cluster::start();
    let (mut good, mut pod) = forwarded(&cluster).await;
    let (mut bad, _other) = forwarded(&cluster).await;
    // Not masked, then bytes that are no frame at all.
    bad.send(b"\x82\x04\0abc\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff")
        .await;
    bad.rest().await;
    let mut plain = tokio::net::TcpStream::connect(cluster.address)
        .await
        .unwrap();
    plain.write_all(&[0x5a; 4096]).await.unwrap();
    good.frame(2, b"\0ok").await;
    let mut got = [0; 2];
    pod.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"ok");
}

//! The playground's cluster: what a Kubernetes user would find, machine by machine.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use support::{connect, get_json, http, playground, udp};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_to_a_cluster_ip_reach_both_pods_behind_it() {
    needs_root!("connections_to_a_cluster_ip_reach_both_pods_behind_it");
    let playground = playground(None).await;
    let client = playground.pod("blob-0").unwrap();
    for address in ["10.96.0.10:80", "[fd00:10:96::a]:80"] {
        let mut answers = HashMap::new();
        for _ in 0..40 {
            let answer = get_json(&client, address, "/a?b=c");
            assert_eq!(
                (&answer["path"], &answer["query"]),
                (&"/a".into(), &"b=c".into())
            );
            assert_eq!(answer["method"], "GET");
            *answers
                .entry(answer["hostname"].as_str().unwrap().to_owned())
                .or_insert(0) += 1;
        }
        assert_eq!(answers.len(), 2, "{address}: {answers:?}");
        assert!(
            answers
                .keys()
                .all(|name| name == "echo-0" || name == "echo-1")
        );
    }
    assert_eq!(
        get_json(&client, "10.96.0.10:80", "/?echo_body=amazing"),
        "amazing"
    );
    let shop = get_json(&client, "10.96.0.15:80", "/");
    assert_eq!(shop["hostname"], "shop-echo-0");
    playground.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_sees_the_address_of_the_pod_that_connects() {
    needs_root!("a_pod_sees_the_address_of_the_pod_that_connects");
    let playground = playground(None).await;
    let client = playground.pod("blob-0").unwrap();
    let own = playground
        .model()
        .get()
        .pod("default", "blob-0")
        .unwrap()
        .addresses
        .clone();
    for (to, own) in [("10.96.0.10:80", &own[0]), ("[fd00:10:96::a]:80", &own[1])] {
        let answer = get_json(&client, to, "/");
        let client: std::net::SocketAddr = answer["client"].as_str().unwrap().parse().unwrap();
        assert_eq!(client.ip(), *own);
    }
    playground.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_reaches_itself_through_its_service() {
    needs_root!("a_pod_reaches_itself_through_its_service");
    let playground = playground(None).await;
    let pod = playground.pod("blob-0").unwrap();
    for address in ["10.96.0.12:80", "[fd00:10:96::c]:80"] {
        let (status, body) = http(&pod, address, "GET /10", b"").unwrap();
        assert_eq!((status, body.len()), (200, 10));
    }
    playground.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn datagrams_come_back_from_the_address_that_was_asked() {
    needs_root!("datagrams_come_back_from_the_address_that_was_asked");
    let playground = playground(None).await;
    let client = playground.pod("echo-0").unwrap();
    for address in ["10.96.0.11:7", "[fd00:10:96::b]:7"] {
        // Connected sockets take answers from nobody else.
        let socket = udp(&client, address).unwrap();
        for len in [0, 1, 1400, 60_000] {
            socket.send(&vec![7; len]).unwrap();
            let mut answer = vec![0; 65_536];
            assert_eq!(socket.recv(&mut answer).unwrap(), len);
        }
    }
    playground.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_there_fails_as_in_a_real_cluster() {
    needs_root!("what_is_not_there_fails_as_in_a_real_cluster");
    let playground = playground(None).await;
    let client = playground.pod("echo-0").unwrap();
    for (address, errno, what) in [
        (
            "10.96.0.14:80",
            libc::ECONNREFUSED,
            "a service without endpoints",
        ),
        (
            "[fd00:10:96::e]:80",
            libc::ECONNREFUSED,
            "a service without endpoints",
        ),
        ("10.96.0.99:80", libc::EHOSTUNREACH, "an unknown ClusterIP"),
        (
            "[fd00:10:96::99]:80",
            libc::EHOSTUNREACH,
            "an unknown ClusterIP",
        ),
        (
            "10.96.0.10:81",
            libc::EHOSTUNREACH,
            "an unknown port of a service",
        ),
        ("10.244.0.200:80", libc::ENETUNREACH, "an unknown pod"),
        ("[fd00:10:244::200]:80", libc::ENETUNREACH, "an unknown pod"),
    ] {
        let error = connect(&client, address).unwrap_err();
        assert_eq!(
            error.raw_os_error(),
            Some(errno),
            "{what}, {address}: {error}"
        );
    }
    // Again and again, and always at once (an ICMPv6 error for TCP takes the kernel a second over veth).
    let start = Instant::now();
    for _ in 0..50 {
        for address in ["10.96.0.14:80", "[fd00:10:96::e]:80", "10.96.0.99:80"] {
            connect(&client, address).unwrap_err();
        }
    }
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
    let laptop = playground.laptop();
    let error = connect(laptop, "10.96.0.10:80").unwrap_err();
    assert_eq!(
        error.raw_os_error(),
        Some(libc::ENETUNREACH),
        "the laptop has no route: {error}"
    );
    playground.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_port_leads_from_the_lan_to_the_pods_that_are_ready() {
    needs_root!("a_node_port_leads_from_the_lan_to_the_pods_that_are_ready");
    let playground = playground(None).await;
    let agent = playground.add_agent_pod(vec![]).await.unwrap();
    let server = agent
        .in_netns(|| UdpSocket::bind("[::]:51820"))
        .unwrap()
        .unwrap();
    server.set_read_timeout(Some(support::LIMIT)).unwrap();
    let laptop = playground.laptop();

    let early = udp(laptop, "10.99.0.11:31820").unwrap();
    early.send(b"early").unwrap();
    let error = early.recv(&mut [0; 16]).unwrap_err();
    assert_eq!(
        error.raw_os_error(),
        Some(libc::ECONNREFUSED),
        "before it is ready: {error}"
    );

    playground.set_ready("pmz", agent.name(), true);
    // The rules follow the model in a task of their own; flows that began before are no worse off.
    server
        .set_read_timeout(Some(Duration::from_millis(100)))
        .unwrap();
    let fresh = udp(laptop, "[fd99::b]:31820").unwrap();
    for (socket, from) in [(early, "::ffff:10.244.0.1"), (fresh, "fd00:10:244::1")] {
        let mut buf = [0; 16];
        let peer = (0..50).find_map(|_| {
            let _ = socket.send(b"hello");
            server.recv_from(&mut buf).ok()
        });
        let (len, peer) = peer.expect("the node port leads to the agent");
        assert_eq!(peer.ip().to_string(), from, "masqueraded to the node");
        server.send_to(&buf[..len], peer).unwrap();
        let answer = (0..50).find_map(|_| socket.recv(&mut buf).ok());
        assert_eq!(answer, Some(5));
    }
    playground.remove_pod("pmz", agent.name()).await.unwrap();
    assert!(playground.model().get().pod("pmz", agent.name()).is_none());
    playground.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blobs_have_their_length_and_their_hash() {
    needs_root!("blobs_have_their_length_and_their_hash");
    use sha2::{Digest, Sha256};
    let playground = playground(None).await;
    let client = playground.pod("echo-0").unwrap();
    let (status, body) = http(&client, "10.96.0.12:80", "GET /5000000?seed=9", b"").unwrap();
    let expected: Vec<u8> = pmz_cli::playground::servers::blob::Pieces::new(5_000_000, 9)
        .flatten()
        .collect();
    assert_eq!(status, 200);
    assert!(body == expected);
    let (_, answer) = http(&client, "10.96.0.12:80", "POST /", &body).unwrap();
    let answer: serde_json::Value = serde_json::from_slice(&answer).unwrap();
    assert_eq!(answer["bytes"], 5_000_000);
    let hash: String = Sha256::digest(&body)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(answer["sha256"], hash);
    let (status, _) = http(&client, "10.96.0.12:80", "GET /x", b"").unwrap();
    assert_eq!(status, 400);
    playground.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_echo_server_keeps_connections_and_sends_bodies_back() {
    needs_root!("the_echo_server_keeps_connections_and_sends_bodies_back");
    let playground = playground(None).await;
    let client = playground.pod("blob-0").unwrap();
    let mut stream = connect(&client, "10.96.0.10:80").unwrap();
    let mut hostnames = Vec::new();
    for body in ["one", "two"] {
        write!(
            stream,
            "PUT /x HTTP/1.1\r\nHost: t\r\nX-A: 1\r\nX-A: 2\r\nContent-Length: 3\r\n\r\n{body}"
        )
        .unwrap();
        let mut reader = BufReader::new(&mut stream);
        let mut len = 0;
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                len = value.trim().parse().unwrap();
            }
            if line == "\r\n" {
                break;
            }
        }
        let mut answer = vec![0; len];
        reader.read_exact(&mut answer).unwrap();
        let answer: serde_json::Value = serde_json::from_slice(&answer).unwrap();
        assert_eq!(answer["body"], body);
        assert_eq!(answer["headers"]["x-a"], "1, 2");
        hostnames.push(answer["hostname"].clone());
    }
    assert_eq!(hostnames[0], hostnames[1], "one connection, one pod");
    playground.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn databases_send_lines_back_and_slow_ones_take_nothing() {
    needs_root!("databases_send_lines_back_and_slow_ones_take_nothing");
    let playground = playground(None).await;
    let client = playground.pod("echo-0").unwrap();
    let db = playground
        .model()
        .get()
        .pod("default", "db-1")
        .unwrap()
        .addresses[0];
    let mut stream = connect(&client, &format!("{db}:5432")).unwrap();
    stream.write_all(b"select 1\nrest").unwrap();
    let mut line = String::new();
    BufReader::new(&stream).read_line(&mut line).unwrap();
    assert_eq!(line, "select 1\n");
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "rest");

    let mut slow = connect(&client, "10.96.0.13:80").unwrap();
    slow.set_nonblocking(true).unwrap();
    let mut taken = 0;
    let full = loop {
        match slow.write(&[0; 65_536]) {
            Ok(n) => taken += n,
            Err(error) => break error,
        }
        assert!(taken < 64 << 20);
    };
    assert_eq!(full.kind(), std::io::ErrorKind::WouldBlock);
    playground.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_playgrounds_do_not_disturb_each_other() {
    needs_root!("two_playgrounds_do_not_disturb_each_other");
    let (one, two) = tokio::join!(playground(None), playground(None));
    let of_one = one.pod("echo-0").unwrap();
    let of_two = two.pod("echo-0").unwrap();
    assert_ne!(of_one.netns(), of_two.netns());
    one.shutdown().await;
    drop(of_one);
    assert_eq!(get_json(&of_two, "10.96.0.10:80", "/?echo_body=x"), "x");
    two.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_connections_are_served_at_once() {
    needs_root!("a_thousand_connections_are_served_at_once");
    let playground = playground(None).await;
    let client = playground.pod("echo-0").unwrap();
    let db = playground
        .model()
        .get()
        .pod("default", "db-0")
        .unwrap()
        .addresses[0];
    let mut streams: Vec<_> = (0..1000)
        .map(|_| connect(&client, &format!("{db}:5432")).unwrap())
        .collect();
    for (number, stream) in streams.iter_mut().enumerate() {
        writeln!(stream, "{number}").unwrap();
    }
    for (number, stream) in streams.iter().enumerate() {
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).unwrap();
        assert_eq!(line, format!("{number}\n"));
    }
    playground.shutdown().await;
}

//! Port-forwards, by kube's client.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::Portforwarder;
use pmz_cli::playground::api::Frozen;
use pmz_cli::playground::model::PodPhase;
use rand::{Rng, SeedableRng, rngs::StdRng};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::cluster::{Cluster, SOON};

const AGENT: &str = "pmz-agent-0";

/// Has `serve` called for each connection to that port of the agent's pod.
async fn listen<F>(
    cluster: &Cluster,
    port: u16,
    serve: impl Fn(TcpStream) -> F + Send + Sync + Copy + 'static,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    cluster
        .ports
        .insert(AGENT, port, listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
}

async fn echo(mut stream: TcpStream) {
    let (mut read, mut write) = stream.split();
    let _ = tokio::io::copy(&mut read, &mut write).await;
}

async fn forward(cluster: &Cluster, ports: &[u16]) -> Portforwarder {
    let pods: Api<Pod> = Api::namespaced(cluster.client("dev").await, "pmz");
    timeout(SOON, pods.portforward(AGENT, ports))
        .await
        .unwrap()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_megabytes_come_back_unchanged() {
    const TOTAL: usize = 50_000_000;
    let cluster = Cluster::start();
    listen(&cluster, 7, echo).await;
    let mut forwarder = forward(&cluster, &[7]).await;
    let (mut read, mut write) = tokio::io::split(forwarder.take_stream(7).unwrap());
    let sending = tokio::spawn(async move {
        let mut random = StdRng::seed_from_u64(7);
        let mut hash = Sha256::new();
        let mut left = TOTAL;
        while left > 0 {
            let mut chunk = vec![0; random.random_range(1..100_000).min(left)];
            random.fill(&mut chunk[..]);
            hash.update(&chunk);
            left -= chunk.len();
            write.write_all(&chunk).await.unwrap();
        }
        (hash.finalize(), write)
    });
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    let mut got = 0;
    while got < TOTAL {
        let n = timeout(SOON, read.read(&mut buffer))
            .await
            .unwrap()
            .unwrap();
        assert!(n > 0, "ended after {got} bytes");
        hash.update(&buffer[..n]);
        got += n;
    }
    let (sent, _write) = sending.await.unwrap();
    assert_eq!(hash.finalize(), sent);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_port_of_one_forward_has_its_own_connection() {
    let cluster = Cluster::start();
    listen(&cluster, 7, echo).await;
    listen(&cluster, 13, async |mut s: TcpStream| {
        s.write_all(b"noon").await.unwrap()
    })
    .await;
    let mut forwarder = forward(&cluster, &[7, 13, 9]).await;
    let refused = timeout(SOON, forwarder.take_error(9).unwrap())
        .await
        .unwrap()
        .unwrap();
    assert!(
        refused.starts_with("error forwarding port 9 to pod "),
        "{refused}"
    );
    let mut noon = String::new();
    let mut stream = forwarder.take_stream(13).unwrap();
    timeout(SOON, (&mut stream).take(4).read_to_string(&mut noon))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(noon, "noon");
    let mut stream = forwarder.take_stream(7).unwrap();
    stream.write_all(b"still here").await.unwrap();
    let mut back = [0; 10];
    timeout(SOON, stream.read_exact(&mut back))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&back, b"still here");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_connection_is_told_in_the_kubelets_words() {
    let cluster = Cluster::start();
    let mut forwarder = forward(&cluster, &[9]).await;
    let error = timeout(SOON, forwarder.take_error(9).unwrap())
        .await
        .unwrap()
        .unwrap();
    assert!(
        error.starts_with("error forwarding port 9 to pod "),
        "{error}"
    );
    assert!(
        error.contains(", uid : failed to execute portforward in network namespace"),
        "{error}"
    );
    assert!(
        error.contains("IPv4: dial tcp4 127.0.0.1:9: connect: connection refused IPv6 "),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_pod_sent_before_it_closed_arrives() {
    let cluster = Cluster::start();
    listen(&cluster, 13, async |mut s: TcpStream| {
        s.write_all(&[b'x'; 300_000]).await.unwrap()
    })
    .await;
    let mut forwarder = forward(&cluster, &[13]).await;
    let mut all = Vec::new();
    let mut stream = forwarder.take_stream(13).unwrap();
    timeout(SOON, stream.read_to_end(&mut all))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(all.len(), 300_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_client_sent_before_it_closed_arrives() {
    let cluster = Cluster::start();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    cluster
        .ports
        .insert(AGENT, 9, listener.local_addr().unwrap());
    let mut forwarder = forward(&cluster, &[9]).await;
    let mut stream = forwarder.take_stream(9).unwrap();
    let (mut pod, _) = timeout(SOON, listener.accept()).await.unwrap().unwrap();
    stream.write_all(&[b'y'; 300_000]).await.unwrap();
    stream.shutdown().await.unwrap();
    drop(stream);
    let mut all = Vec::new();
    timeout(SOON, pod.read_to_end(&mut all))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(all.len(), 300_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_forward_is_silent_and_loses_nothing() {
    let cluster = Cluster::start();
    listen(&cluster, 7, echo).await;
    let mut forwarder = forward(&cluster, &[7]).await;
    let mut stream = forwarder.take_stream(7).unwrap();
    let mut back = [0; 4];
    stream.write_all(b"one.").await.unwrap();
    timeout(SOON, stream.read_exact(&mut back))
        .await
        .unwrap()
        .unwrap();

    cluster.server.freeze_port_forwards(Frozen::Open);
    stream.write_all(b"two.").await.unwrap();
    let quiet = Duration::from_millis(300);
    assert!(timeout(quiet, stream.read_exact(&mut back)).await.is_err());
    // Another one that comes later is not concerned.
    let mut other = forward(&cluster, &[7]).await;
    let mut second = other.take_stream(7).unwrap();
    second.write_all(b"new.").await.unwrap();
    timeout(SOON, second.read_exact(&mut back))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(cluster.server.open_port_forwards(), 2);

    cluster.server.freeze_port_forwards(Frozen::None);
    timeout(SOON, stream.read_exact(&mut back))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&back, b"two.");
}

#[tokio::test(flavor = "multi_thread")]
async fn forwards_can_be_cut_and_refused() {
    let cluster = Cluster::start();
    listen(&cluster, 7, echo).await;
    let mut forwarder = forward(&cluster, &[7]).await;
    let mut stream = forwarder.take_stream(7).unwrap();
    cluster.server.cut_port_forwards();
    let mut rest = Vec::new();
    timeout(SOON, stream.read_to_end(&mut rest))
        .await
        .unwrap()
        .unwrap();
    assert!(rest.is_empty());

    cluster.server.refuse_port_forwards(true);
    let pods: Api<Pod> = Api::namespaced(cluster.client("dev").await, "pmz");
    let Err(kube::Error::Api(status)) = pods.portforward(AGENT, &[7]).await else {
        panic!("not refused");
    };
    assert_eq!(status.code, 500);
    assert!(
        status
            .message
            .starts_with("error dialing backend: dial tcp "),
        "{}",
        status.message
    );
    cluster.server.refuse_port_forwards(false);
    forward(&cluster, &[7]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_stopped_cuts_refuses_and_comes_back_as_it_was() {
    let cluster = Cluster::start();
    listen(&cluster, 7, echo).await;
    let mut forwarder = forward(&cluster, &[7]).await;
    let mut stream = forwarder.take_stream(7).unwrap();
    timeout(SOON, cluster.server.stop()).await.unwrap();
    let mut rest = Vec::new();
    timeout(SOON, stream.read_to_end(&mut rest))
        .await
        .unwrap()
        .unwrap();
    let refused = TcpStream::connect(cluster.address).await.unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    assert_eq!(cluster.server.open_port_forwards(), 0);
    cluster.server.resume().unwrap();
    cluster.server.resume().unwrap();
    forward(&cluster, &[7]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_does_not_run_can_not_be_reached() {
    let cluster = Cluster::start();
    let pods: Api<Pod> = Api::namespaced(cluster.client("dev").await, "pmz");
    let version = cluster.server.store().version();
    cluster.model.update(|m| {
        for pod in &mut m.pods {
            pod.phase = PodPhase::Failed;
        }
    });
    timeout(SOON, async {
        while cluster.server.store().version() < version + 5 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    let error = pods.portforward(AGENT, &[7]).await.map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("pod not found"), "{error}");
}

//! Staying connected: what ends in the cluster, on the way and on the laptop, and how soon pmz is back.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use pmz_tests::eventually;
use pmz_tests::lab::{AGENT_NAMESPACE, Lab, Laptop, NEEDED, Uses, on_cluster};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::workload::echo;

/// From the end of a cause to the first answer.
const BACK: Duration = Duration::from_secs(3);
/// A new connection that takes longer is tried again.
const TRY: Duration = Duration::from_millis(500);
const CARRIER: Duration = Duration::from_secs(10);
/// The lab has everything that it restarts back by then.
const RESTART: Duration = Duration::from_secs(40);

#[test]
fn a_deleted_agent_hands_its_clients_to_another_one() {
    on_cluster("deleted_agent", Uses::Alone, async |lab| {
        let server = echo(lab, "deleted").await?;
        scale(lab, 2).await?;
        let laptop = connected(lab, "del", &[]).await?;
        let before = agent(&laptop).await?;
        lab.ask(&format!(
            "delete pod -n {AGENT_NAMESPACE} {before} --wait=false"
        ))
        .await?;
        let begun = Instant::now();
        moved(&laptop, &before).await?;
        answers(&laptop, server, begun, BACK).await?;
        scale(lab, 1).await
    });
}

#[test]
fn a_drained_node_hands_its_clients_to_an_agent_on_another_one() {
    on_cluster("drained_node", Uses::Alone, async |lab| {
        let server = echo(lab, "drained").await?;
        scale(lab, 2).await?;
        let laptop = connected(lab, "drain", &[]).await?;
        let before = agent(&laptop).await?;
        let node = lab
            .ask(&format!(
                "get pod -n {AGENT_NAMESPACE} {before} -o jsonpath={{.spec.nodeName}}"
            ))
            .await?;
        // Data on the move: it ends with the agent, and the next connection is another one's.
        let mut moving = connect(&laptop, server).await?;
        let drain = format!(
            "drain {node} --ignore-daemonsets --force --delete-emptydir-data --timeout=60s \
             --pod-selector=app.kubernetes.io/name=pmz-agent"
        );
        let drained = async {
            lab.ask(&drain).await?;
            anyhow::Ok(Instant::now())
        };
        let moves = async {
            while exchange(&mut moving).await.is_ok() {}
            anyhow::Ok(())
        };
        let (begun, ()) = tokio::try_join!(drained, moves)?;
        let back = async {
            moved(&laptop, &before).await?;
            answers(&laptop, server, begun, BACK).await
        };
        let back = back.await;
        lab.ask(&format!("uncordon {node}")).await?;
        back?;
        scale(lab, 1).await
    });
}

#[test]
fn connections_outlive_the_api_server_by_udp() {
    on_cluster("api_server_by_udp", Uses::Alone, async |lab| {
        let server = echo(lab, "api-udp").await?;
        let laptop = connected(lab, "apiudp", &["--transport", "udp"]).await?;
        let mut kept = connect(&laptop, server).await?;
        kill_api_server(lab).await?;
        // The tunnel needs no API server, not even for a new connection.
        exchange(&mut kept).await.context("at once")?;
        answers(&laptop, server, Instant::now(), BACK).await?;
        let back = api_server_back(lab).await?;
        exchange(&mut kept).await.context("afterwards")?;
        answers(&laptop, server, back, BACK).await
    });
}

#[test]
fn connections_outlive_the_api_server_by_streams() {
    on_cluster("api_server_by_streams", Uses::Alone, async |lab| {
        let server = echo(lab, "api-stream").await?;
        let laptop = connected(lab, "apistream", &["--transport", "stream"]).await?;
        let mut kept = connect(&laptop, server).await?;
        kill_api_server(lab).await?;
        let back = api_server_back(lab).await?;
        answers(&laptop, server, back, BACK).await?;
        exchange(&mut kept).await.context("the old connection")
    });
}

#[test]
fn connections_outlive_a_kubelet() {
    on_cluster("kubelet", Uses::Alone, async |lab| {
        let server = echo(lab, "kubelet").await?;
        let laptop = connected(lab, "kubelet", &["--transport", "stream"]).await?;
        let mut kept = connect(&laptop, server).await?;
        let number = match lab.agent_node().await?.as_str() {
            "node2" => 2,
            _ => 1,
        };
        let mut kill = lab.node(number, "sh");
        kill.args(["-c", "kill -9 $(pidof kubelet)"]);
        run(kill).await?;
        let back = eventually("a kubelet", RESTART, async || {
            let mut ask = lab.node(number, "curl");
            ask.args([
                "-sS",
                "--fail",
                "--max-time",
                "1",
                "http://127.0.0.1:10248/healthz",
            ]);
            Ok(run(ask).await.is_ok().then(Instant::now))
        });
        answers(&laptop, server, back.await?, BACK).await?;
        exchange(&mut kept).await.context("the old connection")
    });
}

#[test]
fn connections_outlive_an_interface_that_goes_down_and_up() {
    on_cluster("interface", Uses::Shared, async |lab| {
        let server = echo(lab, "interface").await?;
        for carrier in ["udp", "stream"] {
            let user = format!("if{carrier}");
            let laptop = connected(lab, &user, &["--transport", carrier]).await?;
            let mut kept = connect(&laptop, server).await?;
            let link = format!("pmzk-{}", lab.name());
            laptop.script(&format!("ip link set {link} down")).await?;
            // Long enough that everybody has noticed.
            laptop
                .wait_for("reconnecting", Duration::from_secs(20), |s| {
                    s["state"] == "reconnecting"
                })
                .await?;
            laptop.script(&format!("ip link set {link} up")).await?;
            back(&laptop, server, &mut kept)
                .await
                .with_context(|| carrier.to_owned())?;
        }
        Ok(())
    });
}

#[test]
fn connections_outlive_a_minute_of_sleep() {
    on_cluster("sleep", Uses::Shared, async |lab| {
        let server = echo(lab, "sleep").await?;
        let mut sleepers = Vec::new();
        for carrier in ["udp", "stream"] {
            let user = format!("sleep{carrier}");
            let laptop = connected(lab, &user, &["--transport", carrier]).await?;
            let kept = connect(&laptop, server).await?;
            signal(&laptop, "STOP").await?;
            sleepers.push((carrier, laptop, kept));
        }
        // Nothing tells when a minute is over but the clock.
        tokio::time::sleep(Duration::from_secs(60)).await;
        for (carrier, laptop, mut kept) in sleepers {
            signal(&laptop, "CONT").await?;
            back(&laptop, server, &mut kept)
                .await
                .with_context(|| carrier.to_owned())?;
        }
        Ok(())
    });
}

#[test]
fn a_token_that_has_run_out_is_asked_for_again() {
    on_cluster("token", Uses::Alone, async |lab| {
        let server = echo(lab, "token").await?;
        lab.ask(&format!("create serviceaccount robot -n {AGENT_NAMESPACE}"))
            .await?;
        let account = format!("system:serviceaccount:{AGENT_NAMESPACE}:robot");
        lab.allow_as("robot", &account, AGENT_NAMESPACE, &NEEDED)
            .await?;
        let first = token(lab, "first").await?;
        let kubeconfig = with_plugin(&lab.kubeconfig("nobody").await?)?;
        let laptop = lab.laptop("robot", &kubeconfig).await?;
        laptop
            .machine()
            .write_file("/run/lab/token", first.as_bytes())?;
        laptop.up(&["--transport", "stream"]).await?;
        let mut kept = connect(&laptop, server).await?;

        // The first token is worth nothing any more, and the plugin gives another one.
        lab.ask(&format!("delete secret first -n {AGENT_NAMESPACE}"))
            .await?;
        let second = token(lab, "second").await?;
        laptop
            .machine()
            .write_file("/run/lab/token", second.as_bytes())?;
        kill_api_server(lab).await?;
        let back = api_server_back(lab).await?;
        answers(&laptop, server, back, BACK).await?;
        exchange(&mut kept).await.context("the old connection")
    });
}

/// A token of the robot's account, which ends with the Secret of that name.
async fn token(lab: &Lab, secret: &str) -> Result<String> {
    lab.ask(&format!(
        "create secret generic {secret} -n {AGENT_NAMESPACE}"
    ))
    .await?;
    lab.ask(&format!(
        "create token robot -n {AGENT_NAMESPACE} --bound-object-kind=Secret --bound-object-name={secret}"
    ))
    .await
}

/// The kubeconfig with its user's certificate replaced by a plugin that tells the token in a file.
fn with_plugin(kubeconfig: &str) -> Result<String> {
    let credential = r#"{\"apiVersion\": \"client.authentication.k8s.io/v1\", \"kind\": \"ExecCredential\", \"status\": {\"token\": \"'$(cat /run/lab/token)'\"}}"#;
    let plugin = format!(
        "    exec:\n      apiVersion: client.authentication.k8s.io/v1\n      interactiveMode: Never\n      \
         command: sh\n      args: [\"-c\", \"echo '{credential}'\"]\n"
    );
    let mut lines: Vec<&str> = kubeconfig.lines().collect();
    let certificate = lines
        .iter()
        .position(|line| line.contains("client-certificate-data"))
        .context("no certificate in the kubeconfig")?;
    lines.retain(|line| {
        !line.contains("client-certificate-data") && !line.contains("client-key-data")
    });
    lines.insert(certificate, plugin.trim_end());
    Ok(lines.join("\n") + "\n")
}

async fn connected(lab: &Lab, user: &str, arguments: &[&str]) -> Result<Laptop> {
    let kubeconfig = lab.developer(user).await?;
    let laptop = lab.laptop(user, &kubeconfig).await?;
    laptop.up(arguments).await?;
    if let ["--transport", carrier] = arguments {
        laptop
            .wait_for(carrier, CARRIER, |s| s["carrier"]["kind"] == *carrier)
            .await?;
    }
    Ok(laptop)
}

async fn scale(lab: &Lab, replicas: u8) -> Result<()> {
    lab.ask(&format!(
        "scale deployment/pmz-agent -n {AGENT_NAMESPACE} --replicas={replicas}"
    ))
    .await?;
    lab.ask(&format!(
        "rollout status deployment/pmz-agent -n {AGENT_NAMESPACE} --timeout=25s"
    ))
    .await?;
    Ok(())
}

/// The pod of the agent in use.
async fn agent(laptop: &Laptop) -> Result<String> {
    let status = laptop.status().await?;
    let pod = status["agent"]["pod"].as_str();
    Ok(pod
        .with_context(|| format!("no agent: {status}"))?
        .to_owned())
}

/// Waits until another agent is in use.
async fn moved(laptop: &Laptop, from: &str) -> Result<Value> {
    let moved = |status: &Value| status["state"] == "connected" && status["agent"]["pod"] != from;
    laptop.wait_for("at another agent", RESTART, moved).await
}

/// A connection to a service that is new: kube-proxy may not know it yet.
async fn connect(laptop: &Laptop, server: SocketAddr) -> Result<TcpStream> {
    let stream = eventually("a connection", CARRIER, async || {
        let socket = laptop.machine().in_netns(TcpSocket::new_v4)??;
        match timeout(CARRIER, socket.connect(server)).await? {
            Ok(stream) => Ok(Some(stream)),
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(None),
            Err(error) => Err(error.into()),
        }
    })
    .await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A line there and back.
async fn exchange(stream: &mut TcpStream) -> Result<()> {
    let line = b"are you there?\n";
    let mut back = [0; 15];
    let exchanged = async {
        stream.write_all(line).await?;
        stream.read_exact(&mut back).await
    };
    timeout(CARRIER, exchanged).await.context("no answer")??;
    ensure!(back == *line, "{back:?}");
    Ok(())
}

/// That it is all right again from now on: new connections soon, and the old one.
async fn back(laptop: &Laptop, server: SocketAddr, kept: &mut TcpStream) -> Result<()> {
    answers(laptop, server, Instant::now(), BACK).await?;
    exchange(kept).await.context("the old connection")
}

/// That a new connection is answered within that time of `since`.
async fn answers(
    laptop: &Laptop,
    server: SocketAddr,
    since: Instant,
    within: Duration,
) -> Result<()> {
    loop {
        let attempt = async {
            let socket = laptop.machine().in_netns(TcpSocket::new_v4)??;
            let mut stream = socket.connect(server).await?;
            exchange(&mut stream).await
        };
        let result = timeout(TRY, attempt).await;
        let took = since.elapsed();
        if took > within {
            let status = laptop.status().await?;
            bail!("not answered after {took:.1?} ({result:?}): {status}");
        }
        if matches!(result, Ok(Ok(()))) {
            eprintln!("back after {took:.2?}");
            return Ok(());
        }
    }
}

async fn kill_api_server(lab: &Lab) -> Result<()> {
    let mut kill = lab.node(1, "sh");
    kill.args(["-c", "kill -9 $(pidof kube-apiserver)"]);
    run(kill).await
}

/// Waits until it serves, and gives the moment.
async fn api_server_back(lab: &Lab) -> Result<Instant> {
    eventually("an API server", RESTART, async || {
        let ready = lab.ask("get --raw /readyz --request-timeout=2s").await;
        Ok(ready.is_ok().then(Instant::now))
    })
    .await
}

/// Sends a signal to pmz's processes on the laptop.
async fn signal(laptop: &Laptop, signal: &str) -> Result<()> {
    let script = format!(
        "pids=\nfor process in /proc/[0-9]*; do\n\
         case $(tr '\\0' ' ' <$process/cmdline) in\n\
         'pmz daemon '* | 'pmz helper '*) pids=\"$pids ${{process#/proc/}}\";;\n\
         esac\ndone\n\
         [ $(echo $pids | wc -w) = 2 ]\n\
         kill -{signal} $pids"
    );
    laptop.script(&script).await.map(drop)
}

async fn run(command: std::process::Command) -> Result<()> {
    let ran = pmz_tests::run(command).await?;
    ensure!(ran.code == Some(0), "{ran:?}");
    Ok(())
}

//! Prints what the agent's watch makes of a cluster, and each change after that, until Ctrl-C:
//! `KUBECONFIG=... cargo run -p pmz-agent --example watch`. With `--once` it ends after the first print.

use pmz_agent::watch::{WatchConfig, start};
use pmz_net::catalog::feed::Update;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .init();
    let client = match kube::Client::try_default().await {
        Ok(client) => client,
        Err(error) => {
            println!("skipped: no cluster is configured ({error})");
            return Ok(());
        }
    };
    let config = WatchConfig {
        namespace: "pmz".to_owned(),
        service: "pmz-agent".to_owned(),
        tunnel_port: pmz_agent::TUNNEL_PORT,
        ..WatchConfig::default()
    };
    let mut watch = start(client, config);
    let mut follower = watch.catalog.follow();
    let mut problem = watch.problem.clone();
    tokio::select! {
        () = watch.ready() => {}
        Ok(problem) = problem.wait_for(Option::is_some) => {
            anyhow::bail!("{}", problem.as_deref().unwrap_or_default());
        }
    }
    println!(
        "networks {}",
        serde_json::to_string(&*watch.networks.borrow())?
    );
    println!("candidates {:?}", *watch.candidates.borrow());
    let once = std::env::args().any(|argument| argument == "--once");
    loop {
        tokio::select! {
            update = follower.next() => match update {
                Update::Snapshot(snapshot) => {
                    println!("snapshot, version {}", snapshot.version);
                    for service in &snapshot.services {
                        println!("  {}", serde_json::to_string(service)?);
                    }
                    if once {
                        return Ok(());
                    }
                }
                Update::Delta(delta) => println!("delta {}", serde_json::to_string(&*delta)?),
            },
            Ok(()) = watch.candidates.changed() => {
                println!("candidates {:?}", *watch.candidates.borrow_and_update());
            }
            Ok(()) = watch.problem.changed() => {
                println!("problem {:?}", *watch.problem.borrow_and_update());
            }
            _ = tokio::signal::ctrl_c() => return Ok(()),
        }
    }
}

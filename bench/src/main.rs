//! Throughput of pmz beside named peers, in one run on one machine.

mod bare;
mod lab;
mod load;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use load::Way;

const DURATION: Duration = Duration::from_secs(3);

#[tokio::main]
async fn main() -> Result<()> {
    let lab = lab::Lab::new().await?;
    let at = SocketAddr::new(lab.server.address, 0);
    let show = |what: &str, up: f64, down: f64, rtt: (f64, f64)| {
        println!(
            "{what:12} up {:6.2} Gbit/s  down {:6.2} Gbit/s  round trip p50 {:5.0} us p99 {:5.0} us",
            up / 1e9,
            down / 1e9,
            rtt.0,
            rtt.1
        );
    };
    let measure = |what: &str, at: SocketAddr| -> Result<()> {
        let (c, s) = (&lab.client.netns, &lab.server.netns);
        let up = load::tcp(c, s, at, Way::Up, DURATION)?;
        let down = load::tcp(c, s, at, Way::Down, DURATION)?;
        let rtt = load::round_trip(c, s, at, 5000)?;
        show(what, up, down, rtt);
        Ok(())
    };
    tokio::task::block_in_place(|| measure("veth", at))?;
    for carrier in [bare::Carrier::Udp, bare::Carrier::Stream] {
        let tunnel = bare::BareTunnel::new(&lab, carrier).await?;
        let at = SocketAddr::new(tunnel.server_address, 0);
        tokio::task::block_in_place(|| measure(&format!("pmz {carrier:?}"), at))?;
    }
    Ok(())
}

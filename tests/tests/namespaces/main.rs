//! The whole product on real network namespaces: laptop, node, pods, API server, agent.

mod carriers;
mod deaths;

use std::net::SocketAddr;

use anyhow::{Context, Result};
use pmz_cli::playground::world::World;

/// A service's first port at its ClusterIP of that family, 4 or 6.
fn service(world: &World, namespace: &str, name: &str, family: u8) -> Result<SocketAddr> {
    let model = world.playground().model().get();
    let service = model.service(namespace, name).context("no such service")?;
    let address = service
        .cluster_ips()
        .iter()
        .find(|a| a.is_ipv4() == (family == 4))
        .copied()
        .context("no address of that family")?;
    let port = service.ports.first().context("no port")?.port;
    Ok(SocketAddr::new(address, port))
}

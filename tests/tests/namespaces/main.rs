//! The whole product on real network namespaces: laptop, node, pods, API server, agent.

mod away;
mod carriers;
mod congestion;
mod containers;
mod deaths;
mod diverting;
mod dns_capture;
mod domains;
mod flows;
mod hostile;
mod interop;
mod load;
mod mistakes;
mod outside;
mod playground;
mod proof;
mod real_clients;
mod resolved;
mod search;
mod steering;

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

/// A port of a pod of namespace `default` at its address of that family.
fn pod(world: &World, name: &str, port: u16, family: u8) -> Result<SocketAddr> {
    let model = world.playground().model().get();
    let pod = model.pod("default", name).context("no such pod")?;
    let address = pod
        .addresses
        .iter()
        .find(|a| a.is_ipv4() == (family == 4))
        .context("no address of that family")?;
    Ok(SocketAddr::new(*address, port))
}

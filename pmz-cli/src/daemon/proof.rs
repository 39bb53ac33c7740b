//! The proof, before `pmz up` says that it is connected: a service's name resolves, and what comes back from
//! its address came through the tunnel.

use std::net::IpAddr;

use pmz_net::catalog::{Protocol, Service, ServiceKind};

use super::running::Running;
use crate::failure::{ExitCode, Failure};

/// Resolves a service's name the way every program does, and connects to it where it has TCP.
pub(super) async fn prove(running: &Running, domain: &str) -> Result<String, Failure> {
    let mut changes = running.mirror.subscribe();
    let (name, port, expected) = loop {
        changes.borrow_and_update();
        if let Some(target) = proof_target(running, domain) {
            break target;
        }
        if running.mirror.read().mirror.is_filled() {
            return Ok("the cluster has no service with an address".to_owned());
        }
        if changes.changed().await.is_err() {
            return Ok("no catalog".to_owned());
        }
    };
    let failed = |what: String| {
        Failure::new(
            ExitCode::General,
            format!("{name} {what}"),
            "Check `ip route`, /etc/nsswitch.conf and /etc/resolv.conf, then run `pmz up` again; with `--dns resolvconf` \
             or `--dns ebpf` names take another way",
        )
    };
    let found = running
        .attachment
        .look_up(&name)
        .await
        .map_err(|error| failed(format!("does not resolve on this machine: {error}")))?;
    let cluster_address = |used: IpAddr| {
        let steering = running.steering.as_ref();
        let behind = steering.and_then(|steering| steering.cluster_address(used));
        behind.unwrap_or(used)
    };
    let is_expected = |at: &&IpAddr| expected.contains(&cluster_address(**at));
    let Some(address) = found.iter().find(is_expected) else {
        return Err(failed(
            "resolves to something else than the cluster says".to_owned(),
        ));
    };
    // Whatever comes back came through the tunnel: a refusal proves it as well as a connection, since this machine
    // itself refuses only services without endpoints.
    match tokio::net::TcpStream::connect((*address, port)).await {
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {}
        Err(error) => {
            return Err(failed(format!(
                "resolves, but {address} is not reached: {error}"
            )));
        }
    }
    Ok(format!("{name} is {address}"))
}

/// A service to prove things with: `kubernetes` is in every cluster; else any with TCP.
fn proof_target(running: &Running, domain: &str) -> Option<(String, u16, Vec<IpAddr>)> {
    let view = running.mirror.read();
    let usable = |service: &Service| {
        let ServiceKind::ClusterIp { addresses } = &service.kind else {
            return None;
        };
        if service.endpoints.is_empty() {
            return None;
        }
        let port = service.ports.iter().find(|p| p.protocol == Protocol::Tcp)?;
        let name = format!(
            "{}.{}.svc.{domain}.",
            service.key.name, service.key.namespace
        );
        Some((name, port.port, addresses.clone()))
    };
    let kubernetes = view
        .mirror
        .service("default", "kubernetes")
        .and_then(|s| usable(s));
    kubernetes.or_else(|| view.mirror.services().find_map(|s| usable(s)))
}

//! The proof, before `pmz up` says that it is connected: a service's name resolves, an outside name is what it was, and
//! what comes back from the service's address came through the tunnel.

use std::io::ErrorKind;
use std::net::IpAddr;
use std::time::Duration;

use pmz_net::catalog::{Protocol, Service, ServiceKind};
use pmz_net::dns::DomainTable;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::board::Board;
use super::connect_error::ConnectError;
use super::running::Running;
use crate::failure::{ExitCode, Failure, capital};

/// How long services may take to be known, and a connection to one of them.
const PACKETS_WITHIN: Duration = Duration::from_secs(10);
/// How long a service's name may take: a server that is the second in line is asked after 5 s (resolv.conf(5)).
const NAME_WITHIN: Duration = Duration::from_secs(10);

/// A service to prove things with.
struct Target {
    name: String,
    port: u16,
    /// The cluster's.
    addresses: Vec<IpAddr>,
}

/// Resolves names the way every program does, and connects to a service where one has TCP. As long as names have not been
/// proven, they are led on another way where they don't come out as they should. Domains that the user has `led`
/// elsewhere are no outside names.
pub(super) async fn prove(
    running: &mut Running,
    domain: &str,
    led: &DomainTable,
    board: &Board,
) -> Result<String, ConnectError> {
    const STEP: &str = "proving names and packets";
    board.step(STEP);
    let target = timeout(PACKETS_WITHIN, target(running, domain)).await;
    let target = target.map_err(|_| too_late())?;
    let address = loop {
        let why = match names(running, target.as_ref(), led).await {
            Ok(address) => break address,
            Err(why) => why,
        };
        if running.names_proven {
            return Err(transient(
                ExitCode::General,
                &why,
                "Check `ip route`, /etc/nsswitch.conf and /etc/resolv.conf, then run `pmz up` again",
            ));
        }
        board.done(why.as_str());
        board.step("leading names another way");
        board.done(running.attachment.take_another_way(&why).await?);
        board.step(STEP);
    };
    running.names_proven = true;
    let (Some(target), Some(address)) = (target, address) else {
        return Ok("the cluster has no service with an address".to_owned());
    };
    // Whatever comes back came through the tunnel: a refusal proves it as well as a connection, since this machine
    // itself refuses only services without endpoints.
    let connecting = TcpStream::connect((address, target.port));
    let connected = timeout(PACKETS_WITHIN, connecting).await;
    match connected.map_err(|_| too_late())? {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
        Err(error) => {
            return Err(transient(
                ExitCode::General,
                &format!(
                    "{} resolves, but {address} is not reached: {error}",
                    target.name
                ),
                "Check `ip route`, then run `pmz up` again",
            ));
        }
    }
    Ok(format!("{} is {address}", target.name))
}

/// The address that the service's name leads to on this machine.
///
/// # Errors
/// What is wrong with it, or with the outside's.
async fn names(
    running: &Running,
    target: Option<&Target>,
    led: &DomainTable,
) -> Result<Option<IpAddr>, String> {
    let inside = async {
        match target {
            Some(target) => resolve(running, target).await.map(Some),
            None => Ok(None),
        }
    };
    let outside = async {
        match &running.outside {
            Some(outside) if !running.names_proven => outside.check(led).await,
            Some(_) | None => Ok(()),
        }
    };
    let (address, ()) = tokio::try_join!(inside, outside)?;
    Ok(address)
}

async fn resolve(running: &Running, target: &Target) -> Result<IpAddr, String> {
    let Target {
        name, addresses, ..
    } = target;
    let found = running.attachment.look_up(name, NAME_WITHIN).await;
    let found =
        found.map_err(|error| format!("{name} does not resolve on this machine: {error}"))?;
    let steering = running.steering.as_ref();
    let cluster_address = |used: IpAddr| {
        let behind = steering.and_then(|steering| steering.cluster_address(used));
        behind.unwrap_or(used)
    };
    let is_expected = |at: &&IpAddr| addresses.contains(&cluster_address(**at));
    let address = found.iter().find(is_expected).copied();
    address.ok_or_else(|| format!("{name} resolves to something else than the cluster says"))
}

/// Waits until services are known; `None` where none has TCP and an address.
async fn target(running: &Running, domain: &str) -> Option<Target> {
    let mut changes = running.mirror.subscribe();
    loop {
        changes.borrow_and_update();
        let target = usable_target(running, domain);
        if target.is_some() || running.mirror.read().mirror.is_filled() {
            return target;
        }
        changes.changed().await.ok()?;
    }
}

/// `kubernetes` is in every cluster; else any with TCP.
fn usable_target(running: &Running, domain: &str) -> Option<Target> {
    let view = running.mirror.read();
    let usable = |service: &Service| {
        let ServiceKind::ClusterIp { addresses } = &service.kind else {
            return None;
        };
        if service.endpoints.is_empty() {
            return None;
        }
        let port = service.ports.iter().find(|p| p.protocol == Protocol::Tcp)?;
        let key = &service.key;
        Some(Target {
            name: format!("{}.{}.svc.{domain}.", key.name, key.namespace),
            port: port.port,
            addresses: addresses.clone(),
        })
    };
    let kubernetes = view
        .mirror
        .service("default", "kubernetes")
        .and_then(|s| usable(s));
    kubernetes.or_else(|| view.mirror.services().find_map(|s| usable(s)))
}

fn too_late() -> ConnectError {
    let within = PACKETS_WITHIN.as_secs();
    transient(
        ExitCode::Unreachable,
        &format!("names and packets were not proven within {within} s"),
        "Look at the agent's log: `kubectl -n pmz logs -l app.kubernetes.io/name=pmz-agent`",
    )
}

fn transient(code: ExitCode, cause: &str, next: &str) -> ConnectError {
    ConnectError {
        failure: Failure::new(code, capital(cause), next),
        transient: true,
    }
}

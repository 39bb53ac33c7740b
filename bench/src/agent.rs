//! The whole product: from the playground's laptop, by `pmz up`, through an agent and its NAT, to a pod.

use std::net::IpAddr;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pmz_cli::daemon::{CarrierKind, Status};
use pmz_cli::playground::Options;
use pmz_cli::playground::link::LinkSpec;
use pmz_cli::playground::world::World;
use tokio::process::Command;
use tokio::time::timeout;

use crate::congestion::Congestion;
use crate::load::Course;

/// The pod that the load's servers run in.
const POD: &str = "db-0";
/// A name that leads to it.
const NAME: &str = "db-0.db.default.svc";
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Which carrier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Carrier {
    Udp,
    Stream,
}

/// What the playground is to be.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    /// Between laptop and node; none: a veth pair.
    pub(crate) link: Option<LinkSpec>,
    /// Where the link's chances come from.
    pub(crate) seed: u64,
    pub(crate) carrier: Carrier,
    /// What the API server's sockets use, which send the streams down.
    pub(crate) api_server: Congestion,
    /// What the load's sockets use.
    pub(crate) applications: Congestion,
    /// Whether the cluster's addresses get virtual ones.
    pub(crate) remapped: bool,
    /// Let agent and `pmz up` speak.
    pub(crate) verbose: bool,
}

/// Builds a playground, connects, measures between laptop and pod, and takes everything down. The course
/// has no times yet.
///
/// # Errors
/// Where something can't be made, `load` fails, or packets went by another carrier.
pub(crate) async fn measure<T>(
    setting: &Setting,
    load: impl AsyncFnOnce(&World, Course<'_>) -> Result<T>,
) -> Result<T> {
    let options = Options {
        link: setting.link.clone(),
        seed: setting.seed,
        api_congestion: Some(setting.api_server.name().to_owned()),
        ..Options::default()
    };
    let world = World::start(options, setting.verbose).await?;
    let measured = in_world(&world, setting, load).await;
    world.shutdown().await;
    measured
}

async fn in_world<T>(
    world: &World,
    setting: &Setting,
    load: impl AsyncFnOnce(&World, Course<'_>) -> Result<T>,
) -> Result<T> {
    let playground = world.playground();
    let pod = playground.pod(POD).context("no pod to measure with")?;
    let transport = match setting.carrier {
        Carrier::Udp => "udp",
        Carrier::Stream => "stream",
    };
    let overlap = if setting.remapped { "remap" } else { "refuse" };
    let options = ["--transport", transport, "--overlap", overlap];
    world.up(&options, setting.verbose).await?;
    let at = address(world)?;
    let dialled = if setting.remapped {
        virtual_address(world).await?
    } else {
        at
    };
    let course = Course {
        from: playground.laptop().netns(),
        to: pod.netns(),
        at,
        dialled,
        congestion: setting.applications,
        duration: Duration::ZERO,
    };
    let measured = load(world, course).await?;
    check_carrier(world, setting.carrier).await?;
    Ok(measured)
}

/// The IPv4 address of the pod.
fn address(world: &World) -> Result<IpAddr> {
    let model = world.playground().model().get();
    let pod = model.pod("default", POD).context("no pod")?;
    let address = pod.addresses.iter().find(|address| address.is_ipv4());
    address.copied().context("the pod has no IPv4 address")
}

/// The address that stands for the pod on the laptop.
async fn virtual_address(world: &World) -> Result<IpAddr> {
    let hosts = said(world.laptop("getent"), &["ahostsv4", NAME]).await?;
    let hosts = String::from_utf8(hosts)?;
    let address: IpAddr = hosts
        .split_whitespace()
        .next()
        .with_context(|| format!("{NAME} leads nowhere"))?
        .parse()?;
    ensure!(
        address != self::address(world)?,
        "{NAME} leads to the pod's own address"
    );
    Ok(address)
}

/// What a command writes.
async fn said(command: std::process::Command, arguments: &[&str]) -> Result<Vec<u8>> {
    let mut command = Command::from(command);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = timeout(ANSWER_WITHIN, command.output())
        .await
        .with_context(|| format!("{arguments:?} does not end"))??;
    Ok(output.stdout)
}

/// A figure of the wrong carrier would be worse than none.
async fn check_carrier(world: &World, carrier: Carrier) -> Result<()> {
    let status = said(world.pmz(), &["status", "-o", "json"]).await?;
    let status: Status = serde_json::from_slice(&status).context("what `pmz status` says")?;
    let wanted = match carrier {
        Carrier::Udp => CarrierKind::Udp,
        Carrier::Stream => CarrierKind::Stream,
    };
    let kind = status.carrier.map(|carrier| carrier.kind);
    ensure!(
        kind == Some(wanted) && status.reconnects == 0,
        "packets went by {kind:?} with {} reconnects, and not all by {wanted:?}",
        status.reconnects
    );
    Ok(())
}

//! The rows, and what each one measures.

use anyhow::Result;

use super::many;
use super::measure;
use super::peer::Peer;
use super::scene::Scene;
use super::way::Way;
use crate::agent::Carrier;
use crate::reading::Reading;
use crate::section::Run;

/// One row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Row {
    /// The node's own connections to the Service, or those of a pod on it.
    Inside,
    /// `kubectl port-forward` to the pod.
    PortForward,
    Pmz(Carrier),
    /// Another product that leads into the cluster.
    Peer(Peer),
    /// 200,000 short connections in a row.
    Many(Carrier),
}

/// All of them, in the table's order.
pub(crate) const ALL: [Row; 8] = [
    Row::Inside,
    Row::PortForward,
    Row::Pmz(Carrier::Udp),
    Row::Pmz(Carrier::Stream),
    Row::Peer(Peer::Telepresence),
    Row::Peer(Peer::Kubevpn),
    Row::Many(Carrier::Udp),
    Row::Many(Carrier::Stream),
];

impl Row {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Inside => "inside",
            Self::PortForward => "pf",
            Self::Pmz(Carrier::Udp) => "pmz-udp",
            Self::Pmz(Carrier::Stream) => "pmz-stream",
            Self::Peer(peer) => peer.program(),
            Self::Many(Carrier::Udp) => "many-udp",
            Self::Many(Carrier::Stream) => "many-stream",
        }
    }

    /// What a reader is told.
    pub(crate) fn description(self) -> &'static str {
        match self {
            Self::Inside => {
                "connections to the ClusterIP from the node itself, or from a pod on it"
            }
            Self::PortForward => "`kubectl port-forward` to the pod",
            Self::Pmz(Carrier::Udp) => "`pmz up --transport udp`, to the ClusterIP",
            Self::Pmz(Carrier::Stream) => "`pmz up --transport stream`, to the ClusterIP",
            Self::Peer(Peer::Telepresence) => "`telepresence connect`, to the ClusterIP",
            Self::Peer(Peer::Kubevpn) => "`kubevpn connect`, to the ClusterIP",
            Self::Many(Carrier::Udp) => "as pmz-udp: 200,000 short connections, 300 at a time",
            Self::Many(Carrier::Stream) => {
                "as pmz-stream: 200,000 short connections, 300 at a time"
            }
        }
    }

    /// Measures it once.
    pub(super) async fn measure(self, scene: &Scene, run: &Run) -> Result<Vec<Reading>> {
        let mut way = match self {
            Self::Inside => Way::inside(scene),
            Self::PortForward => Way::port_forward(scene).await?,
            Self::Peer(peer) => Way::peer(scene, peer).await?,
            // It takes minutes, and is about errors: once in a run.
            Self::Many(_) if run.round > 0 => return Ok(Vec::new()),
            Self::Pmz(carrier) | Self::Many(carrier) => Way::pmz(scene, carrier).await?,
        };
        let measured = match self {
            Self::Many(_) => many::measure(&way).await,
            Self::Inside | Self::PortForward | Self::Pmz(_) | Self::Peer(_) => {
                measure::all(scene, &mut way, run.duration).await
            }
        };
        way.close().await?;
        measured
    }
}

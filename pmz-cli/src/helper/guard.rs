//! The guard before the tunnel's UDP socket: the helper loads it, the daemon says which peers there are.

use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};

use pmz_net::guard::{Guard, GuardError, GuardReport};
use pmz_net::tunnel::PeerId;

use super::client::{HelperClient, HelperError};
use super::message::{GuardRequest, Refusal, Reply, Request};

/// Peers that are known ahead: the daemon's tunnel numbers one after another, and answers to the first message of
/// the next one must get through before the helper could be told.
pub const AHEAD: u32 = 16;

impl HelperClient {
    /// See [`GuardRequest`]. Returns what was counted since the helper began.
    ///
    /// # Errors
    /// See [`HelperError`]; where the socket can't be guarded, a refusal that says why.
    pub async fn guard(&self, peer: u32) -> Result<GuardReport, HelperError> {
        let request = GuardRequest { peer };
        match self.call(Request::Guard(request), None).await? {
            (Reply::Guard(report), _) => Ok(report),
            _ => Err(HelperError::Confused),
        }
    }
}

/// The helper's side: the guard, once there is one. It goes with this.
#[derive(Default)]
pub(super) struct Guarder {
    socket: Option<OwnedFd>,
    guard: Option<Guard>,
    peers: Range<u32>,
    /// By guards that are no more.
    counted: GuardReport,
}

impl Guarder {
    /// The UDP socket was handed out, and is the tunnel's from now on.
    pub(super) fn opened(&mut self, socket: &OwnedFd) -> std::io::Result<()> {
        let socket = socket.try_clone()?;
        if let Some(guard) = self.guard.take()
            && let Ok(report) = guard.report()
        {
            self.counted = self.counted.plus(&report);
        }
        self.peers = 0..0;
        self.socket = Some(socket);
        Ok(())
    }

    /// Does what is asked, and tells what was counted.
    pub(super) fn handle(&mut self, request: &GuardRequest) -> Result<Reply, Refusal> {
        let Some(socket) = &self.socket else {
            return Err(Refusal::Invalid {
                message: "there is no UDP socket to guard".to_owned(),
            });
        };
        if self.guard.is_none() {
            self.guard = Some(Guard::at_socket(socket.as_fd()).map_err(refusal)?);
            tracing::debug!("the tunnel's socket is guarded");
        }
        let mut report = self.counted;
        if let Some(guard) = &mut self.guard {
            let wanted = request.peer..request.peer.saturating_add(AHEAD + 1);
            let_through(guard, &self.peers, &wanted).map_err(refusal)?;
            self.peers = wanted;
            report = report.plus(&guard.report().map_err(refusal)?);
        }
        Ok(Reply::Guard(report))
    }
}

fn let_through(guard: &mut Guard, had: &Range<u32>, wanted: &Range<u32>) -> Result<(), GuardError> {
    if had == wanted {
        return Ok(());
    }
    for new in wanted.clone() {
        guard.add_peer(PeerId(new))?;
    }
    for gone in had.clone().filter(|it| !wanted.contains(it)) {
        guard.remove_peer(PeerId(gone))?;
    }
    Ok(())
}

fn refusal(error: GuardError) -> Refusal {
    Refusal::NoEbpf {
        why: error.to_string(),
    }
}

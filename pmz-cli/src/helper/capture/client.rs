//! The daemon's side.

use std::net::IpAddr;

use pmz_net::capture::{CaptureSockets, Knock, Slot, Slots};

use super::super::client::{HelperClient, HelperError};
use super::super::message::{Reply, Request};
use super::{CaptureReply, CaptureRequest};

/// Where caught queries arrive.
#[derive(Debug)]
pub struct Caught {
    /// The sockets.
    pub sockets: CaptureSockets,
    /// Which addresses there stand for servers.
    pub slots: Slots,
    /// How this process tells the programs that it is not to be caught itself.
    pub knock: Knock,
}

impl HelperClient {
    /// See [`CaptureRequest::Attach`].
    ///
    /// # Errors
    /// See [`HelperError`]; where the machine has no eBPF for us, a refusal that says why.
    pub async fn catch_queries(&self) -> Result<Caught, HelperError> {
        let request = Request::Capture(CaptureRequest::Attach);
        let (Reply::Capture(CaptureReply::Attached { slots, knock }), descriptors) =
            self.call(request, None).await?
        else {
            return Err(HelperError::Confused);
        };
        let sockets = CaptureSockets::from_descriptors(descriptors).ok_or(HelperError::Confused)?;
        Ok(Caught {
            sockets,
            slots,
            knock,
        })
    }

    /// See [`CaptureRequest::Server`].
    ///
    /// # Errors
    /// See [`HelperError`].
    pub async fn asked_server(&self, slot: Slot) -> Result<Option<IpAddr>, HelperError> {
        let request = Request::Capture(CaptureRequest::Server { slot });
        match self.call(request, None).await? {
            (Reply::Capture(CaptureReply::Server { address }), _) => Ok(address),
            _ => Err(HelperError::Confused),
        }
    }

    /// See [`CaptureRequest::Release`].
    ///
    /// # Errors
    /// See [`HelperError`].
    pub async fn release_queries(&self) -> Result<(), HelperError> {
        self.command(Request::Capture(CaptureRequest::Release))
            .await
    }
}

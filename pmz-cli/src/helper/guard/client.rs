//! The daemon's side.

use std::net::IpAddr;

use super::super::client::{HelperClient, HelperError};
use super::super::message::{Reply, Request};
use super::{GuardRequest, Guarded};

impl HelperClient {
    /// See [`GuardRequest`].
    ///
    /// # Errors
    /// See [`HelperError`]; where the interface can't be guarded, a refusal that says why.
    pub async fn guard(&self, toward: IpAddr, peer: u32) -> Result<Guarded, HelperError> {
        let request = GuardRequest { toward, peer };
        match self.call(Request::Guard(request), None).await? {
            (Reply::Guard(guarded), _) => Ok(guarded),
            _ => Err(HelperError::Confused),
        }
    }
}

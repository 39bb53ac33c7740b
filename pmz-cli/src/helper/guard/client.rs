//! The daemon's side.

use std::net::IpAddr;

use super::super::client::{HelperClient, HelperError};
use super::super::message::{Reply, Request};
use super::{GuardRequest, Guarded};

impl HelperClient {
    /// See [`GuardRequest::Lead`].
    ///
    /// # Errors
    /// See [`HelperError`]; where the interface can't be guarded, a refusal that says why.
    pub async fn guard(&self, toward: IpAddr, peer: u32) -> Result<Guarded, HelperError> {
        self.ask_guard(GuardRequest::Lead { toward, peer }).await
    }

    /// See [`GuardRequest::Report`].
    ///
    /// # Errors
    /// See [`HelperError`].
    pub async fn guarded(&self) -> Result<Guarded, HelperError> {
        self.ask_guard(GuardRequest::Report).await
    }

    async fn ask_guard(&self, request: GuardRequest) -> Result<Guarded, HelperError> {
        match self.call(Request::Guard(request), None).await? {
            (Reply::Guard(guarded), _) => Ok(guarded),
            _ => Err(HelperError::Confused),
        }
    }
}

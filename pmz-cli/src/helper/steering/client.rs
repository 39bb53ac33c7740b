//! The daemon's side.

use ipnet::IpNet;
use pmz_net::steer::{
    Attachment, DivertedDevice, SteerReport, SteeredPrefix, TargetChange, TargetTraffic,
};

use super::super::client::{HelperClient, HelperError};
use super::super::message::{Reply, Request};
use super::{SteerReply, SteerRequest};

/// Messages that a whole of the counters may take: more than the programs' map holds.
const MAX_PAGES: usize = 512;

impl HelperClient {
    /// See [`SteerRequest::Attach`].
    ///
    /// # Errors
    /// See [`HelperError`]; where the machine has no eBPF for us, a refusal that says why.
    pub async fn attach_steering(&self) -> Result<Attachment, HelperError> {
        match self.steer(SteerRequest::Attach).await? {
            Some(SteerReply::Attached { how }) => Ok(how),
            _ => Err(HelperError::Confused),
        }
    }

    /// See [`SteerRequest::Prefixes`].
    ///
    /// # Errors
    /// See [`HelperError`].
    pub async fn steer_prefixes(&self, prefixes: &[SteeredPrefix]) -> Result<(), HelperError> {
        let prefixes = prefixes.to_vec();
        self.done(SteerRequest::Prefixes { prefixes }).await
    }

    /// See [`SteerRequest::Targets`].
    ///
    /// # Errors
    /// See [`HelperError`].
    pub async fn steer_targets(&self, changes: &[TargetChange]) -> Result<(), HelperError> {
        let changes = changes.to_vec();
        self.done(SteerRequest::Targets { changes }).await
    }

    /// See [`SteerRequest::Complete`].
    ///
    /// # Errors
    /// See [`HelperError`].
    pub async fn steer_complete(&self, complete: bool) -> Result<(), HelperError> {
        self.done(SteerRequest::Complete { complete }).await
    }

    /// What went to and came from each address, in their order.
    ///
    /// # Errors
    /// See [`HelperError`].
    pub async fn traffic(&self) -> Result<Vec<TargetTraffic>, HelperError> {
        let mut all = Vec::new();
        for _ in 0..MAX_PAGES {
            let after = all.last().map(|last: &TargetTraffic| last.address);
            let Some(SteerReply::Traffic { targets, more }) =
                self.steer(SteerRequest::Traffic { after }).await?
            else {
                return Err(HelperError::Confused);
            };
            all.extend(targets);
            if !more {
                break;
            }
        }
        Ok(all)
    }

    /// See [`SteerRequest::Report`].
    ///
    /// # Errors
    /// See [`HelperError`].
    pub async fn steer_report(&self) -> Result<SteerReport, HelperError> {
        match self.steer(SteerRequest::Report).await? {
            Some(SteerReply::Report { report }) => Ok(report),
            _ => Err(HelperError::Confused),
        }
    }

    /// See [`SteerRequest::Divert`].
    ///
    /// # Errors
    /// See [`HelperError`].
    pub async fn divert(
        &self,
        prefixes: &[IpNet],
        devices: &[String],
    ) -> Result<Vec<DivertedDevice>, HelperError> {
        let (prefixes, devices) = (prefixes.to_vec(), devices.to_vec());
        let request = SteerRequest::Divert { prefixes, devices };
        match self.steer(request).await? {
            Some(SteerReply::Diverted { devices }) => Ok(devices),
            _ => Err(HelperError::Confused),
        }
    }

    async fn done(&self, request: SteerRequest) -> Result<(), HelperError> {
        match self.steer(request).await? {
            None => Ok(()),
            Some(_) => Err(HelperError::Confused),
        }
    }

    async fn steer(&self, request: SteerRequest) -> Result<Option<SteerReply>, HelperError> {
        match self.call(Request::Steer(request), None).await? {
            (Reply::Steer(reply), _) => Ok(Some(reply)),
            (Reply::Done, _) => Ok(None),
            _ => Err(HelperError::Confused),
        }
    }
}

//! The helper's side.

use pmz_net::steer::{MAX_PREFIXES, SteerError, Steering};

use super::super::message::{Refusal, Reply};
use super::{MAX_BATCH, SteerReply, SteerRequest};

/// The programs, once they run. They go with this.
#[derive(Default)]
pub(in super::super) struct Steerer {
    pub(super) programs: Option<Steering>,
    /// Of the UDP sockets that carry the tunnel, the oldest first.
    pub(super) carriers: Vec<u64>,
}

impl Steerer {
    /// Does what is asked, on the TUN of this name.
    pub(in super::super) fn handle(
        &mut self,
        device: &str,
        request: SteerRequest,
    ) -> Result<Reply, Refusal> {
        if request == SteerRequest::Attach {
            if self.programs.is_some() {
                return Err(invalid("the programs run already"));
            }
            let programs = Steering::attach(device).map_err(refusal)?;
            let how = programs.how();
            self.programs = Some(programs);
            return Ok(Reply::Steer(SteerReply::Attached { how }));
        }
        let Some(programs) = &mut self.programs else {
            return Err(invalid("there are no programs yet"));
        };
        match request {
            // Dealt with above, and by whoever can ask the kernel for routes.
            SteerRequest::Attach | SteerRequest::Divert { .. } => {}
            SteerRequest::Prefixes { prefixes } => {
                if prefixes.len() > MAX_PREFIXES {
                    return Err(invalid("too many prefixes"));
                }
                programs.set_prefixes(&prefixes).map_err(refusal)?;
            }
            SteerRequest::Targets { changes } => {
                if changes.len() > MAX_BATCH {
                    return Err(invalid("too many changes at once"));
                }
                programs.apply(&changes).map_err(refusal)?;
            }
            SteerRequest::Complete { complete } => {
                programs.set_complete(complete).map_err(refusal)?;
            }
            SteerRequest::Traffic { after } => {
                let mut targets = programs.traffic().map_err(refusal)?;
                targets.retain(|it| after.is_none_or(|after| it.address > after));
                targets.sort_unstable_by_key(|it| it.address);
                let more = targets.len() > MAX_BATCH;
                targets.truncate(MAX_BATCH);
                return Ok(Reply::Steer(SteerReply::Traffic { targets, more }));
            }
            SteerRequest::Report => {
                let report = programs.report().map_err(refusal)?;
                return Ok(Reply::Steer(SteerReply::Report { report }));
            }
        }
        Ok(Reply::Done)
    }
}

pub(super) fn invalid(message: &str) -> Refusal {
    Refusal::Invalid {
        message: message.to_owned(),
    }
}

pub(super) fn refusal(error: SteerError) -> Refusal {
    Refusal::NoEbpf {
        why: error.to_string(),
    }
}

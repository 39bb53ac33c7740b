//! Passing the kernel's verifier without being interrupted.

use std::io::ErrorKind;

use aya::programs::ProgramError;
use nix::sys::signal::{SigSet, SigmaskHow};

use super::SteerError;

/// How many times in a row the verifier may be interrupted by what cannot be held up. It takes it milliseconds.
const ATTEMPTS: u32 = 5;

/// Has the verifier look at a program: `load` is aya's, of the program of this name.
///
/// The verifier gives up with EAGAIN as soon as a signal waits for its thread, and a process that starts others gets
/// one at the end of each. So signals are held up meanwhile; where it is something else (a stop, a machine that goes
/// to sleep), it is worth another attempt.
///
/// # Errors
/// [`SteerError::Rejected`], or what stands in the way of loading any program.
pub(crate) fn verified(
    program: &'static str,
    mut load: impl FnMut() -> Result<(), ProgramError>,
) -> Result<(), SteerError> {
    let _quiet = Quiet::begin();
    let mut attempts = 1;
    loop {
        match load() {
            Err(error) if is_interrupted(&error) && attempts < ATTEMPTS => attempts += 1,
            result => return result.map_err(|error| SteerError::verifying(program, error)),
        }
    }
}

fn is_interrupted(error: &ProgramError) -> bool {
    matches!(error, ProgramError::LoadError { io_error, .. } if io_error.kind() == ErrorKind::WouldBlock)
}

/// While it lives, signals wait or go to another thread.
struct Quiet {
    former: Option<SigSet>,
}

impl Quiet {
    fn begin() -> Self {
        let former = SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK).ok();
        Self { former }
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        if let Some(former) = &self.former {
            let _ = former.thread_set_mask();
        }
    }
}

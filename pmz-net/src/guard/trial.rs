//! The guard on single frames, as the kernel itself judges them (`BPF_PROG_TEST_RUN`).

use std::time::Duration;

use aya::Ebpf;
use aya::programs::{TestRun, TestRunOptions, Xdp};
use pmz_xdp_types::guard::PROGRAM_OLD;

use super::attach::{load, try_load};
use super::{GuardError, GuardMaps};
use crate::steer::SteerError;
use crate::steer::error::chain;
use crate::steer::load::{program, with_memory};

const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;

/// The guard in the kernel, at no interface.
pub struct GuardTrial {
    maps: GuardMaps,
    programs: Ebpf,
    name: &'static str,
}

/// What would become of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judged {
    /// Whether it goes on.
    pub passed: bool,
    /// What one run took, on average.
    pub duration: Duration,
}

impl GuardTrial {
    /// Loads the one for drivers, for a tunnel at `port`: for single datagrams, or for `joined` ones too, as the one at
    /// the socket sees them.
    ///
    /// # Errors
    /// As [`super::Guard::at_interface`].
    pub fn load(port: u16, joined: bool) -> Result<Self, GuardError> {
        Self::of(load(port)?, joined)
    }

    /// As [`GuardTrial::load`], the one for kernels before 5.18 on any. It needs CAP_PERFMON, too.
    ///
    /// # Errors
    /// As there.
    pub fn load_old(port: u16, joined: bool) -> Result<Self, GuardError> {
        let programs = with_memory(|| try_load(port, PROGRAM_OLD))?;
        Self::of((programs, PROGRAM_OLD), joined)
    }

    fn of((mut programs, name): (Ebpf, &'static str), joined: bool) -> Result<Self, GuardError> {
        let maps = GuardMaps::take(&mut programs, joined)?;
        Ok(Self {
            maps,
            programs,
            name,
        })
    }

    /// What it goes by and what it counts.
    pub fn maps(&mut self) -> &mut GuardMaps {
        &mut self.maps
    }

    /// What becomes of a frame, `repeat` times, at least once; the last time tells.
    ///
    /// # Errors
    /// If the kernel can't do it: a frame of fewer than 14 bytes, or of more than some 3,500, or no right to.
    pub fn judge(&mut self, frame: &[u8], repeat: u32) -> Result<Judged, GuardError> {
        let name = self.name;
        let xdp: &mut Xdp = program(&mut self.programs, name)?;
        let mut out = vec![0; frame.len()];
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            repeat: repeat.max(1),
            ..TestRunOptions::default()
        };
        let result = xdp.test_run(options).map_err(|error| {
            SteerError::Load(format!("run {name} on a frame: {}", chain(&error)))
        })?;
        let passed = match result.return_value {
            XDP_DROP => false,
            XDP_PASS if out == frame => true,
            other => {
                let text = format!("{name} gave the verdict {other}, or changed the frame");
                return Err(SteerError::Load(text).into());
            }
        };
        Ok(Judged {
            passed,
            duration: result.duration,
        })
    }
}

//! The programs on single packets, without a device or a network: what they do to a packet, as the kernel itself
//! says (`BPF_PROG_TEST_RUN`).

use std::time::Duration;

use aya::programs::{ProgramError, SchedClassifier, TestRun, TestRunOptions};
use aya::{Ebpf, programs::TestRunResult};
use pmz_xdp_types::{DIVERT, RETURN, STEER};

use super::SteerError;
use super::load::{Loaded, load, program};
use super::maps::SteerMaps;
use super::verify::verified;

/// The kernel makes a frame of what it is given, and takes 14 bytes of Ethernet off it before the program runs,
/// and puts them before the packet again: programs of this kind always see them in a trial.
const ETHERNET: usize = 14;
/// Answers can be longer than what they answer.
const GROWTH: usize = 256;
/// `struct __sk_buff` (linux/bpf.h): its size, and two of its fields.
const CONTEXT: usize = 192;
const GSO_SEGMENTS: usize = 164;
const GSO_SIZE: usize = 176;

/// The programs in the kernel, for trials.
pub struct Trial {
    maps: SteerMaps,
    programs: Ebpf,
}

/// An IP packet for a trial.
#[derive(Clone, Copy, Debug)]
pub struct TrialPacket<'a> {
    /// From the IP header on.
    pub bytes: &'a [u8],
    /// Of a super-packet: how many packets it stands for (0: not counted yet), and bytes of payload in each.
    pub gso: Option<(u16, u16)>,
}

/// What the kernel would do with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on its way.
    Pass,
    /// It is dropped.
    Drop,
    /// It goes back to where it came from; or, diverted, into the tunnel, and out of it to its device.
    TurnBack,
}

/// What came of a trial.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What would be done with the packet.
    pub verdict: Verdict,
    /// The packet as the program left it, from the IP header on.
    pub bytes: Vec<u8>,
    /// What one run took, on average.
    pub duration: Duration,
}

impl Trial {
    /// Loads the programs.
    ///
    /// # Errors
    /// As [`super::Steering::attach`].
    pub fn load() -> Result<Self, SteerError> {
        let Loaded { mut programs, maps } = load(ETHERNET as u32)?;
        let divert = program::<SchedClassifier>(&mut programs, DIVERT)?;
        verified(DIVERT, || divert.load())?;
        Ok(Self { maps, programs })
    }

    /// What the programs go by and what they count.
    pub fn maps(&mut self) -> &mut SteerMaps {
        &mut self.maps
    }

    /// What happens to a packet from the machine to the tunnel; `repeat` runs of it, at least one. All are
    /// counted, and each sees what the one before has made of the packet.
    ///
    /// # Errors
    /// If the kernel can't do it: a packet shorter than 14 bytes, or no right to.
    pub fn steer(&self, packet: TrialPacket<'_>, repeat: u32) -> Result<Outcome, SteerError> {
        self.run(STEER, packet, repeat)
    }

    /// As [`Trial::steer`], of a packet from the tunnel to the machine.
    ///
    /// # Errors
    /// As there.
    pub fn returning(&self, packet: TrialPacket<'_>, repeat: u32) -> Result<Outcome, SteerError> {
        self.run(RETURN, packet, repeat)
    }

    /// As [`Trial::steer`], of a packet that would leave by another device, an Ethernet one: the loopback device, as
    /// the kernel has it.
    ///
    /// # Errors
    /// As there.
    pub fn divert(&self, packet: TrialPacket<'_>, repeat: u32) -> Result<Outcome, SteerError> {
        self.run(DIVERT, packet, repeat)
    }

    fn run(
        &self,
        name: &'static str,
        packet: TrialPacket<'_>,
        repeat: u32,
    ) -> Result<Outcome, SteerError> {
        let program: &SchedClassifier = self
            .programs
            .program(name)
            .and_then(|program| program.try_into().ok())
            .ok_or_else(|| SteerError::Load(format!("the object has no program {name}")))?;
        let frame = frame(packet.bytes);
        let mut out = vec![0; frame.len() + GROWTH];
        let mut context = [0; CONTEXT];
        if let Some((segments, size)) = packet.gso {
            context[GSO_SEGMENTS..GSO_SEGMENTS + 4]
                .copy_from_slice(&u32::from(segments).to_ne_bytes());
            context[GSO_SIZE..GSO_SIZE + 4].copy_from_slice(&u32::from(size).to_ne_bytes());
        }
        let options = TestRunOptions {
            data_in: Some(&frame),
            data_out: Some(&mut out),
            ctx_in: Some(&context),
            repeat: repeat.max(1),
            ..TestRunOptions::default()
        };
        let result = program
            .test_run(options)
            .map_err(|error| failed(name, &error))?;
        outcome(&result, out)
    }
}

fn frame(packet: &[u8]) -> Vec<u8> {
    let ethertype: [u8; 2] = match packet.first().map(|first| first >> 4) {
        Some(4) => [0x08, 0x00],
        Some(6) => [0x86, 0xdd],
        _ => [0x88, 0xb5],
    };
    let mut frame = vec![0; ETHERNET - 2];
    frame.extend(ethertype);
    frame.extend(packet);
    frame
}

fn outcome(result: &TestRunResult, mut out: Vec<u8>) -> Result<Outcome, SteerError> {
    out.truncate(result.data_size_out as usize);
    let verdict = match result.return_value.cast_signed() {
        -1 => Verdict::Pass,
        2 => Verdict::Drop,
        7 => Verdict::TurnBack,
        other => {
            return Err(SteerError::Load(format!(
                "a program gave the unknown verdict {other}"
            )));
        }
    };
    Ok(Outcome {
        verdict,
        bytes: out.split_off(ETHERNET.min(out.len())),
        duration: result.duration,
    })
}

fn failed(program: &str, error: &ProgramError) -> SteerError {
    SteerError::Load(format!(
        "run {program} on a packet: {}",
        super::error::chain(error)
    ))
}

//! Loading the programs, and limits that stand in the way.

use aya::programs::SchedClassifier;
use aya::{Ebpf, EbpfLoader, VerifierLogLevel};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use pmz_xdp_types::{LINK_HEADER, RETURN, STEER};

use super::SteerError;
use super::maps::SteerMaps;

static OBJECT: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("CARGO_MANIFEST_DIR"), "/../xdp/objects/pmz.o"));

/// The programs in the kernel, on no device, and their maps.
pub(super) struct Loaded {
    pub(super) programs: Ebpf,
    pub(super) maps: SteerMaps,
}

/// Loads the programs for a device on which `link_header` bytes stand before the IP header.
pub(super) fn load(link_header: u32) -> Result<Loaded, SteerError> {
    match try_load(link_header) {
        // Before 5.11 maps are counted as locked memory, of which a process has 64 KiB.
        Err(SteerError::Permission(_)) if allow_locked_memory() => try_load(link_header),
        result => result,
    }
}

fn try_load(link_header: u32) -> Result<Loaded, SteerError> {
    let mut programs = EbpfLoader::new()
        .btf(None)
        .verifier_log_level(VerifierLogLevel::DEBUG)
        .override_global(LINK_HEADER, &link_header, true)
        .load(OBJECT)
        .map_err(|error| SteerError::loading(&error))?;
    for name in [STEER, RETURN] {
        program(&mut programs, name)?
            .load()
            .map_err(|error| SteerError::verifying(name, error))?;
    }
    let maps = SteerMaps::take(&mut programs)?;
    Ok(Loaded { programs, maps })
}

/// One of the programs.
pub(super) fn program<'a>(
    programs: &'a mut Ebpf,
    name: &'static str,
) -> Result<&'a mut SchedClassifier, SteerError> {
    programs
        .program_mut(name)
        .and_then(|program| program.try_into().ok())
        .ok_or_else(|| SteerError::Load(format!("the object has no program {name}")))
}

/// Whether that has changed anything.
fn allow_locked_memory() -> bool {
    let infinite = nix::libc::RLIM_INFINITY;
    matches!(getrlimit(Resource::RLIMIT_MEMLOCK), Ok((soft, _)) if soft != infinite)
        && setrlimit(Resource::RLIMIT_MEMLOCK, infinite, infinite).is_ok()
}

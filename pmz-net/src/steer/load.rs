//! Loading the programs, and limits that stand in the way.

use aya::programs::{Program, SchedClassifier};
use aya::{Ebpf, EbpfLoader, VerifierLogLevel};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use pmz_xdp_types::{LINK_HEADER, RETURN, STEER, capture, guard};

use super::SteerError;
use super::maps::SteerMaps;
use super::verify::verified;

static OBJECT: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("CARGO_MANIFEST_DIR"), "/../xdp/objects/pmz.o"));

/// The programs in the kernel, on no device, and their maps.
pub(super) struct Loaded {
    pub(super) programs: Ebpf,
    pub(super) maps: SteerMaps,
}

/// Maps that steering does without: they are part of the object, and made as small as can be.
const OTHERS: [&str; 5] = [
    guard::PEERS,
    guard::KNOWN,
    guard::SOURCES,
    capture::SLOTS,
    capture::SERVERS,
];

/// Loads the programs for a device on which `link_header` bytes stand before the IP header.
pub(super) fn load(link_header: u32) -> Result<Loaded, SteerError> {
    with_memory(|| try_load(link_header))
}

fn try_load(link_header: u32) -> Result<Loaded, SteerError> {
    let mut programs = open(&[(LINK_HEADER, link_header)], &OTHERS)?;
    for name in [STEER, RETURN] {
        let program = program::<SchedClassifier>(&mut programs, name)?;
        verified(name, || program.load())?;
    }
    let maps = SteerMaps::take(&mut programs)?;
    Ok(Loaded { programs, maps })
}

/// The object, with these read-only globals, and with no room in `unused` maps. Its programs are not loaded yet.
pub(crate) fn open(globals: &[(&str, u32)], unused: &[&str]) -> Result<Ebpf, SteerError> {
    let mut loader = EbpfLoader::new();
    loader.btf(None).verifier_log_level(VerifierLogLevel::DEBUG);
    for (name, value) in globals {
        loader.override_global(name, value, true);
    }
    for name in unused {
        loader.map_max_entries(name, 1);
    }
    give_back();
    loader
        .load(OBJECT)
        .map_err(|error| SteerError::loading(&error))
}

/// Gives freed memory back to the kernel: `EbpfLoader::new` reads all of the kernel's types, some 20 MB of small
/// pieces, before one can say that none is needed, and glibc keeps them for a process that will not ask again.
fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it only returns pages that hold nothing.
    unsafe {
        nix::libc::malloc_trim(0);
    }
}

/// Tries again without a limit where it is for want of locked memory: before 5.11 maps are counted as such, of which
/// a process has 64 KiB.
pub(crate) fn with_memory<T>(
    mut load: impl FnMut() -> Result<T, SteerError>,
) -> Result<T, SteerError> {
    match load() {
        Err(SteerError::Permission(_)) if allow_locked_memory() => load(),
        result => result,
    }
}

/// One of the programs, as what it is.
pub(crate) fn program<'a, P>(
    programs: &'a mut Ebpf,
    name: &'static str,
) -> Result<&'a mut P, SteerError>
where
    &'a mut P: TryFrom<&'a mut Program>,
{
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

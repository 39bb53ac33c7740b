//! The guard at an interface.

use std::net::IpAddr;

use aya::Ebpf;
use aya::programs::links::FdLink;
use aya::programs::{ProgramError, Xdp, XdpMode};
use pmz_xdp_types::guard::{PORT, PROGRAM, PROGRAM_OLD};
use pmz_xdp_types::{
    DIVERTED, FLOWS, LINK_HEADER, ORIGINS, PREFIX_VOLUMES, TARGETS, TRAFFIC, capture,
};
use serde::{Deserialize, Serialize};

use super::link::{self, ETHERNET};
use super::{GuardError, GuardMaps, GuardReport};
use crate::device::interface;
use crate::steer::SteerError;
use crate::steer::error::os_error;
use crate::steer::load::{open, program, with_memory};
use crate::tunnel::PeerId;

/// Maps of the same object that are steering's.
const OTHERS: [&str; 8] = [
    TARGETS,
    ORIGINS,
    TRAFFIC,
    FLOWS,
    PREFIX_VOLUMES,
    DIVERTED,
    capture::SLOTS,
    capture::SERVERS,
];

/// Where a frame meets the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GuardMode {
    /// In the driver, before the kernel has made anything of it.
    Native,
    /// Behind the driver, on any interface; frames of a flow may have been joined before.
    Generic,
}

/// The program at an interface, which it leaves when this is dropped, or with the process.
pub struct Guard {
    maps: GuardMaps,
    mode: GuardMode,
    _link: FdLink,
    _programs: Ebpf,
}

impl Guard {
    /// Guards UDP datagrams to `port` that arrive by an interface of the calling thread's network namespace: in the
    /// driver where that can and gains by it, else behind it. Until peers are added, only handshake initiations pass.
    ///
    /// A network card that gets a native program may start anew, and be off the net for a second or more.
    ///
    /// # Errors
    /// [`GuardError`] tells what is missing or in the way.
    pub fn attach(device: &str, port: u16) -> Result<Self, GuardError> {
        // With a native program at one end, the kernel cuts super-packets before they enter the pair (`veth_fix_features`
        // in drivers/net/veth.c), which costs the tunnel, and everything else on the interface, more than junk does.
        if link::header(device)? == ETHERNET && !interface::is_veth(device) {
            match Self::attach_as(device, port, GuardMode::Native) {
                // What drivers say that can't, or not with this MTU, these queues, this offload: anything.
                Err(GuardError::Ebpf(SteerError::Attach { .. })) => {}
                result => return result,
            }
        }
        Self::attach_as(device, port, GuardMode::Generic)
    }

    /// As [`Guard::attach`], in this way only.
    ///
    /// # Errors
    /// As there.
    pub fn attach_as(device: &str, port: u16, mode: GuardMode) -> Result<Self, GuardError> {
        let (mut programs, name) = load(link::header(device)?, port)?;
        // In place before the program is.
        let maps = GuardMaps::take(&mut programs, mode == GuardMode::Generic)?;
        let program: &mut Xdp = program(&mut programs, name)?;
        let aya_mode = match mode {
            GuardMode::Native => XdpMode::Driver,
            GuardMode::Generic => XdpMode::Skb,
        };
        let failed = |error: ProgramError| match os_error(&error) {
            Some(libc::EBUSY | libc::EEXIST) => GuardError::Occupied {
                device: device.to_owned(),
            },
            _ => GuardError::Ebpf(SteerError::attaching(device, &error)),
        };
        let id = program.attach(device, aya_mode).map_err(failed)?;
        // A kernel without links got it by netlink; that way it would stay, and dropping it here takes it away.
        let link = program.take_link(id).map_err(failed)?;
        let link = FdLink::try_from(link).map_err(|_| GuardError::NoLinks)?;
        Ok(Self {
            maps,
            mode,
            _link: link,
            _programs: programs,
        })
    }

    /// Where frames meet it.
    pub fn mode(&self) -> GuardMode {
        self.mode
    }

    /// See [`GuardMaps::add_peer`].
    ///
    /// # Errors
    /// As there.
    pub fn add_peer(&mut self, peer: PeerId) -> Result<(), GuardError> {
        self.maps.add_peer(peer)
    }

    /// See [`GuardMaps::remove_peer`].
    ///
    /// # Errors
    /// As there.
    pub fn remove_peer(&mut self, peer: PeerId) -> Result<(), GuardError> {
        self.maps.remove_peer(peer)
    }

    /// See [`GuardMaps::set_known`].
    ///
    /// # Errors
    /// As there.
    pub fn set_known(
        &mut self,
        sources: impl IntoIterator<Item = IpAddr>,
    ) -> Result<(), GuardError> {
        self.maps.set_known(sources)
    }

    /// See [`GuardMaps::report`].
    ///
    /// # Errors
    /// As there.
    pub fn report(&self) -> Result<GuardReport, GuardError> {
        self.maps.report()
    }
}

impl std::fmt::Debug for Guard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guard")
            .field("mode", &self.mode)
            .finish_non_exhaustive()
    }
}

/// The object with the newest of its guards that this kernel takes, and that one's name.
pub(super) fn load(link_header: u32, port: u16) -> Result<(Ebpf, &'static str), SteerError> {
    match with_memory(|| try_load(link_header, port, PROGRAM)) {
        // What an older kernel says to a flag that it does not know. If the verifier is against it, the other one
        // fares no better, and says so.
        Err(SteerError::Rejected { source, .. }) if source.raw_os_error() == Some(libc::EINVAL) => {
            Ok((try_load(link_header, port, PROGRAM_OLD)?, PROGRAM_OLD))
        }
        result => Ok((result?, PROGRAM)),
    }
}

pub(super) fn try_load(
    link_header: u32,
    port: u16,
    name: &'static str,
) -> Result<Ebpf, SteerError> {
    let globals = [(LINK_HEADER, link_header), (PORT, u32::from(port))];
    let mut programs = open(&globals, &OTHERS)?;
    program::<Xdp>(&mut programs, name)?
        .load()
        .map_err(|error| SteerError::verifying(name, error))?;
    Ok(programs)
}

//! The guard in its place.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use aya::Ebpf;
use aya::programs::links::FdLink;
use aya::programs::{ProgramError, SocketFilter, Xdp, XdpMode};
use pmz_xdp_types::guard::{PORT, PROGRAM, PROGRAM_OLD, PROGRAM_SOCKET};
use pmz_xdp_types::{DIVERTED, FLOWS, ORIGINS, PREFIX_VOLUMES, TARGETS, TRAFFIC, capture};

use super::{GuardError, GuardMaps, GuardReport};
use crate::device::interface;
use crate::steer::SteerError;
use crate::steer::error::os_error;
use crate::steer::load::{open, program, with_memory};
use crate::steer::verify::verified;
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

/// The program in its place, which it leaves when this is dropped, or with the process.
pub struct Guard {
    maps: GuardMaps,
    place: Place,
    _programs: Ebpf,
}

enum Place {
    /// At an interface, by this link.
    Driver { _link: FdLink },
    /// At this socket.
    Socket(OwnedFd),
}

impl Guard {
    /// Guards a UDP socket: only what passes is queued there and wakes its reader. Until peers are added, only handshake
    /// initiations pass.
    ///
    /// It costs nothing else on the machine anything, and takes no right but to load the program (`CAP_BPF`).
    ///
    /// # Errors
    /// [`GuardError`] tells what is missing.
    pub fn at_socket(socket: BorrowedFd<'_>) -> Result<Self, GuardError> {
        let socket = socket.try_clone_to_owned().map_err(GuardError::Socket)?;
        let mut programs = with_memory(load_for_socket)?;
        // In place before the program is.
        let maps = GuardMaps::take(&mut programs, true)?;
        let filter: &mut SocketFilter = program(&mut programs, PROGRAM_SOCKET)?;
        let program = filter.fd().map_err(|error| {
            SteerError::Load(format!("{PROGRAM_SOCKET} is not in the kernel: {error}"))
        })?;
        set_filter(&socket, libc::SO_ATTACH_BPF, program.as_fd().as_raw_fd())
            .map_err(GuardError::Socket)?;
        Ok(Self {
            maps,
            place: Place::Socket(socket),
            _programs: programs,
        })
    }

    /// Guards UDP datagrams to `port` that arrive by an interface of the calling thread's network namespace, in its
    /// driver, before the kernel has made anything of them. `None` where the driver can't, or nothing is gained by it:
    /// [`Guard::at_socket`] does it then.
    ///
    /// A network card that gets a program may start anew, and be off the net for a second or more.
    ///
    /// # Errors
    /// Where eBPF as such is missing or not permitted, or there is no such interface.
    pub fn in_driver(device: &str, port: u16) -> Result<Option<Self>, GuardError> {
        // With a program at one end, the kernel cuts super-packets before they enter the pair (`veth_fix_features` in
        // drivers/net/veth.c), which costs the tunnel, and everything else on the interface, more than junk does.
        if interface::is_veth(device) {
            return Ok(None);
        }
        match Self::at_interface(device, port) {
            // What drivers say that can't, or not with this MTU, these queues, this offload: anything.
            Err(
                GuardError::Ebpf(SteerError::Attach { .. })
                | GuardError::Link { .. }
                | GuardError::Occupied { .. },
            ) => Ok(None),
            result => result.map(Some),
        }
    }

    /// As [`Guard::in_driver`], also where nothing is gained by it.
    ///
    /// # Errors
    /// As there, and where the driver can't.
    pub fn at_interface(device: &str, port: u16) -> Result<Self, GuardError> {
        check_link(device)?;
        let (mut programs, name) = load(port)?;
        // In place before the program is.
        let maps = GuardMaps::take(&mut programs, false)?;
        let program: &mut Xdp = program(&mut programs, name)?;
        let failed = |error: ProgramError| match os_error(&error) {
            Some(libc::EBUSY | libc::EEXIST) => GuardError::Occupied {
                device: device.to_owned(),
            },
            _ => GuardError::Ebpf(SteerError::attaching(device, &error)),
        };
        let id = program.attach(device, XdpMode::Driver).map_err(failed)?;
        // A kernel without links got it by netlink; that way it would stay, and dropping it here takes it away.
        let link = program.take_link(id).map_err(failed)?;
        let link = FdLink::try_from(link).map_err(|_| GuardError::NoLinks)?;
        Ok(Self {
            maps,
            place: Place::Driver { _link: link },
            _programs: programs,
        })
    }

    /// Whether it is at the socket, and not before it.
    pub fn is_at_socket(&self) -> bool {
        matches!(self.place, Place::Socket(_))
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

impl Drop for Guard {
    fn drop(&mut self) {
        // The filter holds the program as a link would, and goes with the last copy of the socket's descriptor.
        if let Place::Socket(socket) = &self.place
            && let Err(error) = set_filter(socket, libc::SO_DETACH_FILTER, 0)
        {
            tracing::warn!(%error, "the guard stays at its socket");
        }
    }
}

impl std::fmt::Debug for Guard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guard")
            .field("is_at_socket", &self.is_at_socket())
            .finish_non_exhaustive()
    }
}

/// Sets one of the socket's options that concern its filter, socket(7).
fn set_filter(socket: &OwnedFd, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    // SAFETY: the descriptor is open, and the option's value is one integer, which is read during the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            (&raw const value).cast(),
            size_of_val(&value) as libc::socklen_t,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// The program in a driver reads Ethernet.
fn check_link(device: &str) -> Result<(), GuardError> {
    let kind = interface::kind(device).map_err(|error| match error.raw_os_error() {
        Some(libc::ENODEV) => SteerError::NoDevice(device.to_owned()),
        _ => SteerError::attaching(device, &error),
    })?;
    if kind != libc::ARPHRD_ETHER {
        return Err(GuardError::Link {
            device: device.to_owned(),
            kind,
        });
    }
    Ok(())
}

fn load_for_socket() -> Result<Ebpf, SteerError> {
    let mut programs = open(&[], &OTHERS)?;
    let program = program::<SocketFilter>(&mut programs, PROGRAM_SOCKET)?;
    verified(PROGRAM_SOCKET, || program.load())?;
    Ok(programs)
}

/// The object with the newest of its guards for drivers that this kernel takes, and that one's name.
pub(super) fn load(port: u16) -> Result<(Ebpf, &'static str), SteerError> {
    match with_memory(|| try_load(port, PROGRAM)) {
        // What an older kernel says to a flag that it does not know. If the verifier is against it, the other one
        // fares no better, and says so.
        Err(SteerError::Rejected { source, .. }) if source.raw_os_error() == Some(libc::EINVAL) => {
            Ok((try_load(port, PROGRAM_OLD)?, PROGRAM_OLD))
        }
        result => Ok((result?, PROGRAM)),
    }
}

pub(super) fn try_load(port: u16, name: &'static str) -> Result<Ebpf, SteerError> {
    let mut programs = open(&[(PORT, u32::from(port))], &OTHERS)?;
    let program = program::<Xdp>(&mut programs, name)?;
    verified(name, || program.load())?;
    Ok(programs)
}

//! The programs at a device.

use aya::Ebpf;
use aya::programs::links::LinkOrder;
use aya::programs::tc::{self, NlOptions, TcAttachOptions, TcError};
use aya::programs::{ProgramError, SchedClassifier, TcAttachType};
use pmz_xdp_types::{RETURN, STEER};

use super::divert::{Diversion, DivertedDevice, Diverter};
use super::error::os_error;
use super::load::{Loaded, load, program};
use super::maps::SteerMaps;
use super::{Attachment, SteerError, SteerReport, SteeredPrefix, TargetChange, TargetTraffic};

const _: () = {
    const fn sent_to_another_thread<T: Send>() {}
    sent_to_another_thread::<Steering>();
};

const PLACES: [(&str, TcAttachType); 2] = [
    (STEER, TcAttachType::Egress),
    (RETURN, TcAttachType::Ingress),
];

/// The programs at a device. Dropping it takes them away, and so does the end of the process or of the device. With
/// [`Attachment::Clsact`] only the device's end does, unless it is dropped in the device's network namespace.
pub struct Steering {
    maps: SteerMaps,
    how: Attachment,
    diverter: Diverter,
    /// Its links are what holds the programs at the device.
    programs: Ebpf,
}

impl Steering {
    /// Loads the programs and attaches them to a TUN of the calling thread's network namespace. Until prefixes
    /// are set nothing leaves by the device.
    ///
    /// # Errors
    /// [`SteerError`] tells what is missing: eBPF, rights, a newer kernel, the device.
    pub fn attach(device: &str) -> Result<Self, SteerError> {
        let mut loaded = for_device(device)?;
        let how = match attach_tcx(&mut loaded.programs, device) {
            Ok(()) => Attachment::Tcx,
            // What older kernels say to a kind of link, or to flags, that they don't know.
            Err(Failure::Kernel(error))
                if matches!(
                    os_error(&error),
                    Some(libc::EINVAL | libc::E2BIG | libc::EOPNOTSUPP)
                ) =>
            {
                attach_clsact(&mut loaded.programs, device)?;
                Attachment::Clsact
            }
            Err(failure) => return Err(failure.on(device)),
        };
        Ok(Self::of(loaded, how))
    }

    /// As [`Steering::attach`], in this way only.
    ///
    /// # Errors
    /// As there.
    pub fn attach_as(device: &str, how: Attachment) -> Result<Self, SteerError> {
        let mut loaded = for_device(device)?;
        match how {
            Attachment::Tcx => {
                attach_tcx(&mut loaded.programs, device).map_err(|failure| failure.on(device))?
            }
            Attachment::Clsact => attach_clsact(&mut loaded.programs, device)?,
        }
        Ok(Self::of(loaded, how))
    }

    fn of(loaded: Loaded, how: Attachment) -> Self {
        Self {
            maps: loaded.maps,
            how,
            diverter: Diverter::default(),
            programs: loaded.programs,
        }
    }

    /// How the programs hang on the device.
    pub fn how(&self) -> Attachment {
        self.how
    }

    /// See [`SteerMaps::set_prefixes`].
    ///
    /// # Errors
    /// As there.
    pub fn set_prefixes(&mut self, prefixes: &[SteeredPrefix]) -> Result<(), SteerError> {
        self.maps.set_prefixes(prefixes)
    }

    /// See [`SteerMaps::apply`].
    ///
    /// # Errors
    /// As there.
    pub fn apply(&mut self, changes: &[TargetChange]) -> Result<(), SteerError> {
        self.maps.apply(changes)
    }

    /// See [`SteerMaps::set_complete`].
    ///
    /// # Errors
    /// As there.
    pub fn set_complete(&mut self, complete: bool) -> Result<(), SteerError> {
        self.maps.set_complete(complete)
    }

    /// Diverts what prefixes steer from these devices and no others into the TUN. At devices that had the program and
    /// are not named, or are gone, it is no more; a device of the name that has come since gets it.
    ///
    /// Has to be called again within [`super::LEASE`], or filters ([`Attachment::Clsact`]) let everything pass.
    ///
    /// # Errors
    /// If a map can't be written. What goes wrong with a device is told beside its name.
    pub fn divert(
        &mut self,
        diversion: &Diversion,
        devices: &[String],
    ) -> Result<Vec<DivertedDevice>, SteerError> {
        self.diverter.follow(
            &mut self.programs,
            &mut self.maps,
            self.how,
            diversion,
            devices,
        )
    }

    /// See [`SteerMaps::set_carriers`].
    ///
    /// # Errors
    /// As there.
    pub fn set_carriers(&mut self, cookies: &[u64]) -> Result<(), SteerError> {
        self.maps.set_carriers(cookies)
    }

    /// See [`SteerMaps::traffic`].
    ///
    /// # Errors
    /// As there.
    pub fn traffic(&self) -> Result<Vec<TargetTraffic>, SteerError> {
        self.maps.traffic()
    }

    /// See [`SteerMaps::report`].
    ///
    /// # Errors
    /// As there.
    pub fn report(&self) -> Result<SteerReport, SteerError> {
        self.maps.report()
    }
}

impl std::fmt::Debug for Steering {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Steering")
            .field("how", &self.how)
            .finish_non_exhaustive()
    }
}

fn for_device(device: &str) -> Result<Loaded, SteerError> {
    if nix::net::if_::if_nametoindex(device).is_err() {
        return Err(SteerError::NoDevice(device.to_owned()));
    }
    load(0)
}

enum Failure {
    Kernel(ProgramError),
    Other(SteerError),
}

impl Failure {
    fn on(self, device: &str) -> SteerError {
        match self {
            Self::Kernel(error) => SteerError::attaching(device, &error),
            Self::Other(error) => error,
        }
    }
}

/// First of all programs at the device: those behind ours see what passes, as it goes into the tunnel.
fn attach_tcx(programs: &mut Ebpf, device: &str) -> Result<(), Failure> {
    for (name, place) in PLACES {
        program::<SchedClassifier>(programs, name)
            .map_err(Failure::Other)?
            .attach_with_options(device, place, TcAttachOptions::TcxOrder(LinkOrder::first()))
            .map_err(Failure::Kernel)?;
    }
    Ok(())
}

/// Filters stay when their process is killed, until the device goes. Who holds the device for longer than one
/// run finds the last run's there.
fn attach_clsact(programs: &mut Ebpf, device: &str) -> Result<(), SteerError> {
    match tc::qdisc_add_clsact(device) {
        Err(error) if os_error(&error) != Some(libc::EEXIST) => {
            return Err(SteerError::attaching(device, &error));
        }
        _ => {}
    }
    for (name, place) in PLACES {
        match tc::qdisc_detach_program(device, place, name) {
            Err(TcError::IoError(error)) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(SteerError::attaching(device, &error)),
            Ok(()) => {}
        }
        let options = NlOptions {
            priority: 1,
            ..NlOptions::default()
        };
        program::<SchedClassifier>(programs, name)?
            .attach_with_options(device, place, TcAttachOptions::Netlink(options))
            .map_err(|error| SteerError::attaching(device, &error))?;
    }
    Ok(())
}

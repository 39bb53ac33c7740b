//! The program at other devices than the TUN, where a rule or a narrower route leads packets that are for the tunnel.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use aya::Ebpf;
use aya::programs::links::LinkOrder;
use aya::programs::tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcError};
use aya::programs::{ProgramError, SchedClassifier, TcAttachType};
use nix::net::if_::{if_nameindex, if_nametoindex};
use pmz_xdp_types::{DIVERT, MAX_DIVERTS};
use serde::{Deserialize, Serialize};

use super::error::os_error;
use super::load::program;
use super::maps::SteerMaps;
use super::report::now;
use super::verify::verified;
use super::{Attachment, SteerError};
use crate::device::interface;

/// How long a filter goes on that nobody renews. Links need none: they end with their process.
pub const LEASE: Duration = Duration::from_secs(5);

/// Devices to divert from at a time.
pub const MAX_DEVICES: usize = MAX_DIVERTS as usize;

// linux/if_arp.h; libc has not all of them.
const TUNNEL: u16 = 768;
const TUNNEL6: u16 = 769;
const SIT: u16 = 776;
const PPP: u16 = 512;
const RAW_IP: u16 = 519;

/// Whereto packets are diverted, and with which source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diversion {
    /// The tunnel's addresses on this machine, at most one of a family. What is of a family without one is not
    /// diverted.
    pub addresses: Vec<IpAddr>,
    /// The TUN's index.
    pub tun: u32,
    /// The TUN's MTU, in bytes.
    pub mtu: u32,
}

/// How packets lie at a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkKind {
    /// They begin with their IP header.
    Bare,
    /// Ethernet stands before it.
    Ethernet,
    /// As [`LinkKind::Bare`]; but answers come in by the TUN, since not every kernel can redirect to such a device.
    OneWay,
}

/// What became of a device that packets are to be diverted from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DivertedDevice {
    /// Its name.
    pub device: String,
    /// How the program hangs on it, where it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub how: Option<Attachment>,
    /// Why it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<String>,
}

/// The devices with the program. It leaves them when this is dropped.
#[derive(Default)]
pub(super) struct Diverter {
    loaded: bool,
    swept: bool,
    places: HashMap<String, Place>,
}

struct Place {
    /// Another device may get the name.
    index: u32,
    kind: LinkKind,
    _link: SchedClassifierLink,
}

impl Diverter {
    /// Diverts from these devices and no others, until the lease is over.
    pub(super) fn follow(
        &mut self,
        programs: &mut Ebpf,
        maps: &mut SteerMaps,
        how: Attachment,
        diversion: &Diversion,
        devices: &[String],
    ) -> Result<Vec<DivertedDevice>, SteerError> {
        let places = &mut self.places;
        let gone: Vec<String> = places
            .iter()
            .filter(|(name, place)| {
                !devices.contains(name) || if_nametoindex(name.as_str()).ok() != Some(place.index)
            })
            .map(|(name, _)| name.clone())
            .collect();
        for name in gone {
            if let Some(place) = places.remove(&name) {
                maps.set_diversion(place.index, None)?;
            }
        }
        let mut told = Vec::with_capacity(devices.len());
        for device in devices.iter().take(MAX_DEVICES) {
            let outcome = self.keep(programs, maps, how, diversion, device);
            told.push(DivertedDevice {
                device: device.clone(),
                how: outcome.is_ok().then_some(how),
                missing: outcome.err().map(|error| error.to_string()),
            });
        }
        Ok(told)
    }

    fn keep(
        &mut self,
        programs: &mut Ebpf,
        maps: &mut SteerMaps,
        how: Attachment,
        diversion: &Diversion,
        device: &str,
    ) -> Result<(), SteerError> {
        let until = match how {
            Attachment::Tcx => u64::MAX,
            Attachment::Clsact => now()?.saturating_add(LEASE.as_nanos() as u64),
        };
        if let Some(place) = self.places.get(device) {
            return maps.set_diversion(place.index, Some((diversion, place.kind, until)));
        }
        let index = if_nametoindex(device).map_err(|_| SteerError::NoDevice(device.to_owned()))?;
        if index == diversion.tun {
            return Err(SteerError::attach(device, "it is the tunnel itself"));
        }
        let kind = kind(device)?;
        let program = program::<SchedClassifier>(programs, DIVERT)?;
        if !self.loaded {
            verified(DIVERT, || program.load())?;
            self.loaded = true;
        }
        if how == Attachment::Clsact {
            if !self.swept {
                sweep();
                self.swept = true;
            }
            match tc::qdisc_add_clsact(device) {
                Err(error) if os_error(&error) != Some(libc::EEXIST) => {
                    return Err(SteerError::attaching(device, &error));
                }
                _ => {}
            }
        }
        let options = match how {
            // Before others, which would take the packet for what it is no more.
            Attachment::Tcx => TcAttachOptions::TcxOrder(LinkOrder::first()),
            Attachment::Clsact => TcAttachOptions::Netlink(NlOptions {
                priority: 1,
                ..NlOptions::default()
            }),
        };
        let failed = |error: ProgramError| SteerError::attaching(device, &error);
        // What it goes by is there before it is.
        maps.set_diversion(index, Some((diversion, kind, until)))?;
        let link = program
            .attach_with_options(device, TcAttachType::Egress, options)
            .and_then(|id| program.take_link(id))
            .map_err(failed);
        match link {
            Ok(link) => {
                let place = Place {
                    index,
                    kind,
                    _link: link,
                };
                self.places.insert(device.to_owned(), place);
                Ok(())
            }
            Err(error) => {
                maps.set_diversion(index, None)?;
                Err(error)
            }
        }
    }
}

/// Takes away what a process left behind that could not do it itself. Its lease is over, so that this is for tidiness,
/// and what can't be done is left.
fn sweep() {
    let Ok(devices) = if_nameindex() else {
        return;
    };
    for device in &devices {
        let name = device.name().to_string_lossy();
        match tc::qdisc_detach_program(&name, TcAttachType::Egress, DIVERT) {
            Ok(()) => {
                tracing::info!(device = %name, "took away the filter of a pmz that was killed")
            }
            Err(TcError::IoError(error)) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => tracing::debug!(device = %name, %error, "no filters to look at"),
        }
    }
}

/// Of what kind the device of this name is.
fn kind(device: &str) -> Result<LinkKind, SteerError> {
    let number = interface::kind(device).map_err(|error| SteerError::attaching(device, &error))?;
    match number {
        libc::ARPHRD_ETHER => Ok(LinkKind::Ethernet),
        libc::ARPHRD_NONE | TUNNEL | TUNNEL6 | SIT => Ok(LinkKind::Bare),
        PPP | RAW_IP => Ok(LinkKind::OneWay),
        other => Err(SteerError::attach(
            device,
            format!("nothing can be diverted from a device of its kind (ARPHRD {other})"),
        )),
    }
}

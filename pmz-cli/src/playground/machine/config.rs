//! What a machine is to be, and how its init is told.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

/// More than any machine's files need.
const MAX_LEN: u32 = 8 << 20;

/// What a machine is to be.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct MachineSpec {
    /// Its hostname; also in /etc/hostname.
    pub hostname: String,
    /// /etc/hosts.
    pub hosts: String,
    /// /etc/resolv.conf.
    pub resolv_conf: String,
    /// Values to be written below /proc/sys before anything else runs: `("net/ipv4/ip_forward", "1")`.
    pub sysctls: Vec<(String, String)>,
    /// Files that are there from the start.
    pub files: Vec<MachineFile>,
}

/// A file of a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineFile {
    /// Absolute, below /run or /var/run.
    pub path: PathBuf,
    /// Its content.
    pub content: Vec<u8>,
}

pub(super) fn send(mut init: &UnixStream, spec: &MachineSpec) -> Result<()> {
    let json = serde_json::to_vec(spec)?;
    let len = u32::try_from(json.len()).ok().filter(|len| *len <= MAX_LEN);
    let len = len.context("the machine's files are too big")?;
    init.write_all(&len.to_ne_bytes())?;
    init.write_all(&json)?;
    Ok(())
}

pub(super) fn receive(mut main: &UnixStream) -> Result<MachineSpec> {
    let mut len = [0; 4];
    main.read_exact(&mut len)?;
    let len = u32::from_ne_bytes(len);
    ensure!(len <= MAX_LEN, "a machine's description of {len} bytes");
    let mut json = vec![0; len as usize];
    main.read_exact(&mut json)?;
    Ok(serde_json::from_slice(&json)?)
}

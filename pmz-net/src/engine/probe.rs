//! Probes: small inner UDP packets between the two ends' tunnel addresses that ask whether a way works.
//! Each engine answers them itself, on the way on which they came.

use std::net::IpAddr;

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{IpProtocol, IpRepr, UdpPacket, UdpRepr};

use super::Via;
use crate::tunnel::PeerId;

/// UDP port of probes at both ends, inside the tunnel alone.
pub const PORT: u16 = 7601;
/// The largest packet that a probe makes.
pub const MAX_PACKET: usize = 40 + 8 + PAYLOAD;

const MAGIC: [u8; 4] = *b"pmzp";
const PAYLOAD: usize = 16;
const PING: u8 = 1;
const PONG: u8 = 2;

/// A question or its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// The answer carries the same.
    pub nonce: u64,
    /// Whether this is an answer.
    pub is_answer: bool,
    /// The receiver is to send its packets this way from now on.
    pub select: bool,
}

/// An answer to one of this end's probes.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Who answered.
    pub peer: PeerId,
    /// The way on which the answer came.
    pub via: Via,
    /// As in the probe.
    pub nonce: u64,
}

impl Probe {
    /// The probe as an IP packet; `None` where the addresses are of two families.
    pub fn to_packet(self, from: IpAddr, to: IpAddr) -> Option<Vec<u8>> {
        if from.is_ipv4() != to.is_ipv4() {
            return None;
        }
        let mut payload = [0_u8; PAYLOAD];
        payload[..4].copy_from_slice(&MAGIC);
        payload[4] = if self.is_answer { PONG } else { PING };
        payload[5] = u8::from(self.select);
        payload[8..].copy_from_slice(&self.nonce.to_be_bytes());

        let udp = UdpRepr {
            src_port: PORT,
            dst_port: PORT,
        };
        let ip = IpRepr::new(from.into(), to.into(), IpProtocol::Udp, 8 + PAYLOAD, 64);
        let mut packet = vec![0_u8; ip.buffer_len()];
        let checksums = ChecksumCapabilities::default();
        ip.emit(&mut packet, &checksums);
        udp.emit(
            &mut UdpPacket::new_unchecked(&mut packet[ip.header_len()..]),
            &ip.src_addr(),
            &ip.dst_addr(),
            PAYLOAD,
            |buf| buf.copy_from_slice(&payload),
            &checksums,
        );
        Some(packet)
    }

    /// Reads a probe out of an opened packet. Cheap for everything that is none.
    pub fn parse(packet: &[u8]) -> Option<Self> {
        let udp = match packet.first()? >> 4 {
            4 if packet.len() == 20 + 8 + PAYLOAD && packet[0] == 0x45 && packet[9] == 17 => {
                packet.get(20..)?
            }
            6 if packet.len() == MAX_PACKET && packet[6] == 17 => packet.get(40..)?,
            _ => return None,
        };
        let port = PORT.to_be_bytes();
        let payload = udp.get(8..)?;
        if udp.get(..2)? != port || udp.get(2..4)? != port || payload.get(..4)? != MAGIC {
            return None;
        }
        let is_answer = match *payload.get(4)? {
            PING => false,
            PONG => true,
            _ => return None,
        };
        let nonce = u64::from_be_bytes(payload.get(8..16)?.try_into().ok()?);
        Some(Self {
            nonce,
            is_answer,
            select: payload.get(5)? & 1 == 1,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_is_read_as_it_was_written_in_both_families() {
        for (from, to) in [("240.0.0.1", "240.0.0.2"), ("fd00::1", "fd00::2")] {
            let probe = Probe {
                nonce: 0x1234_5678_9abc_def0,
                is_answer: true,
                select: true,
            };
            let packet = probe
                .to_packet(from.parse().unwrap(), to.parse().unwrap())
                .unwrap();
            assert_eq!(Probe::parse(&packet), Some(probe));
            assert_eq!(Probe::parse(&packet[..packet.len() - 1]), None);
        }
    }
}

//! Trials on maps that a test has filled.

use std::net::IpAddr;

use pmz_net::steer::{
    Outcome, PrefixKind, SteerReport, SteeredPrefix, Target, TargetChange, TargetTraffic, Trial,
    TrialPacket, Verdict,
};

/// The programs with what they go by.
pub(crate) struct Bench {
    trial: Trial,
}

impl Bench {
    pub(crate) fn new(prefixes: &[(&str, PrefixKind)]) -> Self {
        let mut trial = Trial::load().unwrap();
        trial.maps().set_prefixes(&steered(prefixes)).unwrap();
        Self { trial }
    }

    /// Services in 10.96.0.0/12 and fd00:96::/112, pods in 10.244.0.0/16 and fd00:244::/64; all services known.
    pub(crate) fn cluster() -> Self {
        let mut bench = Self::new(&[
            ("10.96.0.0/12", PrefixKind::Services),
            ("fd00:96::/112", PrefixKind::Services),
            ("10.244.0.0/16", PrefixKind::Other),
            ("fd00:244::/64", PrefixKind::Other),
        ]);
        bench.trial.maps().set_complete(true).unwrap();
        bench
    }

    /// Services have the stand-ins 240.0.0.0/16 and fd00:5::/64.
    pub(crate) fn remapped(pairs: &[(&str, &str)]) -> Self {
        let mut bench = Self::new(&[
            ("240.0.0.0/16", PrefixKind::Services),
            ("fd00:5::/64", PrefixKind::Services),
        ]);
        for (used, real) in pairs {
            bench.put(used, Some(real), false);
        }
        bench
    }

    pub(crate) fn trial(&mut self) -> &mut Trial {
        &mut self.trial
    }

    pub(crate) fn put(&mut self, address: &str, real: Option<&str>, reject: bool) {
        let target = Target {
            address: ip(address),
            real: real.map(ip),
            reject,
            service: true,
        };
        self.trial
            .maps()
            .apply(&[TargetChange::Put(target)])
            .unwrap();
    }

    pub(crate) fn steer(&self, bytes: &[u8]) -> Outcome {
        self.trial
            .steer(TrialPacket { bytes, gso: None }, 1)
            .unwrap()
    }

    pub(crate) fn returning(&self, bytes: &[u8]) -> Outcome {
        self.trial
            .returning(TrialPacket { bytes, gso: None }, 1)
            .unwrap()
    }

    /// What would leave by another device.
    pub(crate) fn divert(&self, bytes: &[u8]) -> Outcome {
        self.trial
            .divert(TrialPacket { bytes, gso: None }, 1)
            .unwrap()
    }

    /// What goes out unchanged.
    pub(crate) fn passes(&self, bytes: &[u8]) {
        let outcome = self.steer(bytes);
        assert_eq!(outcome.verdict, Verdict::Pass);
        assert_eq!(outcome.bytes, bytes);
    }

    /// The answer to a packet.
    pub(crate) fn answer(&self, bytes: &[u8]) -> Vec<u8> {
        let outcome = self.steer(bytes);
        assert_eq!(outcome.verdict, Verdict::TurnBack);
        outcome.bytes
    }

    pub(crate) fn report(&mut self) -> SteerReport {
        self.trial.maps().report().unwrap()
    }

    pub(crate) fn traffic(&mut self, address: &str) -> Option<TargetTraffic> {
        let address = ip(address);
        self.trial
            .maps()
            .traffic()
            .unwrap()
            .into_iter()
            .find(|entry| entry.address == address)
    }
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn steered(prefixes: &[(&str, PrefixKind)]) -> Vec<SteeredPrefix> {
    prefixes
        .iter()
        .map(|(prefix, kind)| SteeredPrefix {
            prefix: prefix.parse().unwrap(),
            kind: *kind,
        })
        .collect()
}

//! Names lead to the addresses that the machine uses, which need not be the cluster's own.

use std::fmt;
use std::net::IpAddr;

use hickory_proto::rr::{RData, Record};

/// What the machine uses for addresses of the cluster.
#[async_trait::async_trait]
pub trait Translate: Send + Sync + fmt::Debug {
    /// What names are to lead to instead of these addresses of the cluster, in their order, once it works;
    /// `None` where there is nothing.
    async fn used(&self, real: &[IpAddr]) -> Vec<Option<IpAddr>>;

    /// The cluster's address behind one that the machine uses, where they differ.
    fn real(&self, used: IpAddr) -> Option<IpAddr>;
}

/// Puts what the machine uses in the place of the cluster's addresses. False where nothing is left of what there
/// was to answer.
pub(super) async fn translate(
    by: &dyn Translate,
    answers: &mut Vec<Record>,
    additionals: &mut Vec<Record>,
) -> bool {
    let records = answers.iter().chain(additionals.iter());
    let real: Vec<IpAddr> = records.filter_map(address).collect();
    if real.is_empty() {
        return true;
    }
    let mut used = by.used(&real).await.into_iter();
    let had = answers.iter().any(|record| address(record).is_some());
    for records in [&mut *answers, additionals] {
        records.retain_mut(|record| {
            if address(record).is_none() {
                return true;
            }
            match used.next().flatten() {
                Some(IpAddr::V4(address)) => record.data = RData::A(address.into()),
                Some(IpAddr::V6(address)) => record.data = RData::AAAA(address.into()),
                None => return false,
            }
            true
        });
    }
    !had || answers.iter().any(|record| address(record).is_some())
}

fn address(record: &Record) -> Option<IpAddr> {
    match &record.data {
        RData::A(address) => Some(address.0.into()),
        RData::AAAA(address) => Some(address.0.into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use hickory_proto::rr::rdata::SRV;
    use hickory_proto::rr::{Name, RecordType};

    use super::super::found::address_records;
    use super::super::{Answer, Zone, resolve};
    use super::*;
    use crate::catalog::samples::cluster_ip;
    use crate::catalog::{SharedMirror, Snapshot};

    /// Uses `10.0.x.y` as `240.0.x.y`, and has nothing for 10.1.
    #[derive(Debug)]
    struct Shifted;

    #[async_trait::async_trait]
    impl Translate for Shifted {
        async fn used(&self, real: &[IpAddr]) -> Vec<Option<IpAddr>> {
            let used = real.iter().map(|address| match address {
                IpAddr::V4(v4) => match v4.octets() {
                    [10, 0, c, d] => Some([240, 0, c, d].into()),
                    [10, 1, ..] => None,
                    _ => Some(*address),
                },
                IpAddr::V6(_) => Some(*address),
            });
            used.collect()
        }

        fn real(&self, used: IpAddr) -> Option<IpAddr> {
            match used {
                IpAddr::V4(v4) if v4.octets()[0] == 240 => {
                    let [_, b, c, d] = v4.octets();
                    Some([10, b, c, d].into())
                }
                IpAddr::V4(_) | IpAddr::V6(_) => None,
            }
        }
    }

    fn records(addresses: &[&str]) -> Vec<Record> {
        let addresses = addresses.iter().map(|text| text.parse().unwrap());
        address_records(
            &Name::from_ascii("a.svc.").unwrap(),
            RecordType::A,
            addresses,
        )
    }

    fn shown(records: &[Record]) -> Vec<String> {
        let shown = records.iter().filter_map(address);
        shown.map(|address| address.to_string()).collect()
    }

    #[tokio::test]
    async fn addresses_change_in_answers_and_beside_them_and_the_rest_stays() {
        let name = Name::from_ascii("a.svc.").unwrap();
        let srv = RData::SRV(SRV::new(0, 1, 80, name.clone()));
        let mut answers = records(&["10.0.0.1", "192.0.2.1"]);
        answers.push(Record::from_rdata(name, 5, srv));
        let mut additionals = records(&["10.0.0.2"]);
        assert!(translate(&Shifted, &mut answers, &mut additionals).await);
        assert_eq!(shown(&answers), ["240.0.0.1", "192.0.2.1"]);
        assert_eq!(answers.len(), 3);
        assert_eq!(shown(&additionals), ["240.0.0.2"]);
    }

    #[tokio::test]
    async fn what_has_no_address_here_is_left_out_and_nothing_left_is_said() {
        let mut answers = records(&["10.1.0.1", "10.0.0.1"]);
        assert!(translate(&Shifted, &mut answers, &mut Vec::new()).await);
        assert_eq!(shown(&answers), ["240.0.0.1"]);
        let mut answers = records(&["10.1.0.1"]);
        assert!(!translate(&Shifted, &mut answers, &mut Vec::new()).await);
        let mut beside = records(&["10.1.0.1"]);
        assert!(translate(&Shifted, &mut Vec::new(), &mut beside).await);
        assert!(beside.is_empty());
    }

    #[test]
    fn a_used_address_leads_back_to_its_name_and_the_cluster_s_own_is_not_ours() {
        let mirror = SharedMirror::new();
        let services = vec![cluster_ip("default", "echo", &["10.0.96.10"], &[])];
        mirror
            .apply_snapshot(Snapshot {
                version: 1,
                services,
            })
            .unwrap();
        let zone = Zone::new("cluster.local")
            .unwrap()
            .with_reverse(vec!["240.0.0.0/16".parse().unwrap()])
            .with_translate(std::sync::Arc::new(Shifted));
        let ask = |address: [u8; 4]| {
            let name = Name::from(IpAddr::from(address));
            resolve(&mirror.read(), &zone, &name, RecordType::PTR)
        };
        let Answer::Records { answers, .. } = ask([240, 0, 96, 10]) else {
            panic!("no name");
        };
        assert_eq!(
            answers[0].data.to_string(),
            "echo.default.svc.cluster.local."
        );
        assert!(matches!(ask([240, 0, 96, 11]), Answer::NxDomain { .. }));
        assert_eq!(ask([10, 0, 96, 10]), Answer::NotOurs);
    }
}

//! What the mirror has for one name, as records.

use std::net::IpAddr;

use hickory_proto::rr::{Name, RData, Record, RecordType};

use super::zone::TTL;

/// What one name has, before external names are followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    Records {
        answers: Vec<Record>,
        additionals: Vec<Record>,
    },
    Alias(Name),
    NoData,
    NxDomain,
    /// What the mirror holds can't be said in DNS.
    Broken,
}

impl Found {
    /// Records of one kind; where there are none, the name exists all the same.
    pub(super) fn records(answers: Vec<Record>) -> Self {
        if answers.is_empty() {
            return Self::NoData;
        }
        Self::Records {
            answers,
            additionals: Vec::new(),
        }
    }
}

/// A or AAAA records of those addresses that are of the family asked for.
pub(super) fn address_records(
    name: &Name,
    record_type: RecordType,
    addresses: impl IntoIterator<Item = IpAddr>,
) -> Vec<Record> {
    let data = addresses
        .into_iter()
        .filter_map(|address| match (address, record_type) {
            (IpAddr::V4(address), RecordType::A) => Some(RData::A(address.into())),
            (IpAddr::V6(address), RecordType::AAAA) => Some(RData::AAAA(address.into())),
            _ => None,
        });
    data.map(|data| Record::from_rdata(name.clone(), TTL, data))
        .collect()
}

//! From a question to its answer, out of the mirror alone.

use hickory_proto::rr::rdata::{CNAME, NS, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use rand::Rng;
use rand::seq::SliceRandom;

use super::found::{Found, address_records};
use super::name::undashed;
use super::zone::{Place, TTL, Zone};
use super::{custom, reverse, services};
use crate::catalog::{MirrorState, View};

/// The version of the specification that the records follow.
const SCHEMA_VERSION: &str = "1.1.0";
/// External names that are followed within the cluster, one leading to the next.
const MAX_CHAIN: usize = 8;
/// What is told to who asks for all records of a name: those of the first of these types of which it has any.
const ONE_OF: [RecordType; 7] = [
    RecordType::CNAME,
    RecordType::A,
    RecordType::AAAA,
    RecordType::SRV,
    RecordType::PTR,
    RecordType::TXT,
    RecordType::SOA,
];

/// What there is to say to a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Records.
    Records {
        /// External names (CNAME) that were followed, then the records asked for.
        answers: Vec<Record>,
        /// Addresses of names that the answers mention.
        additionals: Vec<Record>,
        /// An external name that leads out of the cluster: its records, of the type asked for, belong
        /// after `answers`, and somebody else has them.
        chase: Option<Name>,
    },
    /// The name exists, but has no records of this type.
    NoData {
        /// External names that led there.
        answers: Vec<Record>,
        /// For the authority section.
        soa: Record,
    },
    /// The name is ours, and does not exist.
    NxDomain {
        /// External names that led there.
        answers: Vec<Record>,
        /// For the authority section.
        soa: Record,
    },
    /// The name is ours, and at present nobody knows.
    ServFail,
    /// The name is none of ours.
    NotOurs,
}

impl Answer {
    /// Puts the addresses into another order, so that clients that take the first don't all take the
    /// same.
    pub fn shuffle(&mut self, random: &mut impl Rng) {
        if let Self::Records { answers, .. } = self {
            let is_alias = |record: &&Record| record.record_type() == RecordType::CNAME;
            let start = answers.iter().take_while(is_alias).count();
            answers[start..].shuffle(random);
        }
    }
}

/// Answers a question of class IN from the mirror. Records carry the name as it was asked, letter case
/// and all. The order of records is that of the mirror: see [`Answer::shuffle`].
///
/// `ANY` gets the records of one type (RFC 8482, section 4.1): all that a name has is more than anybody needs at once, and
/// in a datagram to a forged address a weapon.
pub fn resolve(view: &View, zone: &Zone, name: &Name, record_type: RecordType) -> Answer {
    if record_type == RecordType::ANY {
        let [first, others @ ..] = ONE_OF;
        let mut answer = resolve(view, zone, name, first);
        for record_type in others {
            if !matches!(answer, Answer::NoData { .. }) {
                break;
            }
            answer = resolve(view, zone, name, record_type);
        }
        return answer;
    }
    let serial = view.mirror.version();
    let mut chain = Vec::new();
    let mut name = name.clone();
    name.set_fqdn(true);
    for _ in 0..MAX_CHAIN {
        let Some((found, apex)) = look_up(view, zone, &name, record_type) else {
            if chain.is_empty() {
                return Answer::NotOurs;
            }
            return Answer::Records {
                answers: chain,
                additionals: vec![],
                chase: Some(name),
            };
        };
        if view.state == MirrorState::Stale {
            return Answer::ServFail;
        }
        match found {
            Found::Records {
                answers,
                additionals,
            } => {
                chain.extend(answers);
                return Answer::Records {
                    answers: chain,
                    additionals,
                    chase: None,
                };
            }
            Found::NoData => {
                return Answer::NoData {
                    answers: chain,
                    soa: zone.soa(&apex, serial),
                };
            }
            Found::NxDomain => {
                return Answer::NxDomain {
                    answers: chain,
                    soa: zone.soa(&apex, serial),
                };
            }
            Found::Broken => return Answer::ServFail,
            Found::Alias(target) => {
                let alias = RData::CNAME(CNAME(target.clone()));
                chain.push(Record::from_rdata(name, TTL, alias));
                if record_type == RecordType::CNAME {
                    return Answer::Records {
                        answers: chain,
                        additionals: vec![],
                        chase: None,
                    };
                }
                name = target;
            }
        }
    }
    // External names in a circle.
    Answer::ServFail
}

/// What a name has, and the apex of the zone that it is in; `None` where it is none of ours.
fn look_up(
    view: &View,
    zone: &Zone,
    name: &Name,
    record_type: RecordType,
) -> Option<(Found, Name)> {
    let mirror = &view.mirror;
    let place = zone.place(name);
    if matches!(
        place,
        Place::Short { .. } | Place::Bare { .. } | Place::Elsewhere
    ) && let Some(found) = custom::look_up(mirror, zone, name, record_type)
    {
        return Some(found);
    }
    match place {
        Place::Elsewhere => None,
        Place::Short { service, namespace } => {
            let service = mirror.service(&namespace, &service)?;
            let found = services::service(service, zone, name, record_type);
            Some((found, zone.short_services.clone()))
        }
        Place::Bare { service } => {
            let mut namespaces = zone.search.iter();
            let service = namespaces.find_map(|namespace| mirror.service(namespace, &service))?;
            let found = services::service(service, zone, name, record_type);
            Some((found, name.clone()))
        }
        Place::Service { labels, apex } => {
            let found = if labels.is_empty() {
                at_apex(zone, &apex, name, record_type, mirror.version())
            } else {
                services::look_up(mirror, zone, &labels, name, record_type)
            };
            Some((found, apex))
        }
        Place::Pod { labels, apex } => {
            let found = match labels.as_slice() {
                [] => at_apex(zone, &apex, name, record_type, mirror.version()),
                // Of namespaces without services the mirror knows nothing; the cluster's own name server does.
                [.., namespace] if !mirror.has_namespace(namespace) => Found::NxDomain,
                [_] => Found::NoData,
                // The address is in the name: no pod has to be known for it.
                [label, _] => match undashed(label) {
                    Some(address) => Found::records(address_records(name, record_type, [address])),
                    None => Found::NxDomain,
                },
                _ => Found::NxDomain,
            };
            Some((found, apex))
        }
        Place::Version => {
            let text = RData::TXT(TXT::new(vec![SCHEMA_VERSION.to_owned()]));
            Some((
                only(RecordType::TXT, record_type, name, text),
                zone.version.clone(),
            ))
        }
        Place::Server => {
            let addresses = zone.server_addresses.iter().copied();
            let found = Found::records(address_records(name, record_type, addresses));
            Some((found, zone.server.clone()))
        }
        Place::Reverse { net, apex } => {
            let found = if apex == *name {
                at_apex(zone, &apex, name, record_type, mirror.version())
            } else {
                reverse::look_up(mirror, zone, net, name, record_type)
            };
            Some((found, apex))
        }
    }
}

fn at_apex(zone: &Zone, apex: &Name, name: &Name, record_type: RecordType, serial: u64) -> Found {
    match record_type {
        RecordType::SOA => {
            let mut soa = zone.soa(apex, serial);
            soa.name = name.clone();
            Found::records(vec![soa])
        }
        RecordType::NS => {
            let server = &zone.server;
            let ns = Record::from_rdata(name.clone(), TTL, RData::NS(NS(server.clone())));
            let additionals = [RecordType::A, RecordType::AAAA]
                .into_iter()
                .flat_map(|family| {
                    address_records(server, family, zone.server_addresses.iter().copied())
                });
            Found::Records {
                answers: vec![ns],
                additionals: additionals.collect(),
            }
        }
        _ => Found::NoData,
    }
}

fn only(has: RecordType, asked: RecordType, name: &Name, data: RData) -> Found {
    if has != asked {
        return Found::NoData;
    }
    Found::records(vec![Record::from_rdata(name.clone(), TTL, data)])
}

#[cfg(test)]
mod spec;
#[cfg(test)]
mod tests;

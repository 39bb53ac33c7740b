//! Reading what the kernel's routing holds. It takes no right.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;

use futures::{Stream, TryStreamExt};
use ipnet::IpNet;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags};
use rtnetlink::packet_route::route::{RouteAttribute, RouteFlags, RouteMessage};
use rtnetlink::{IpVersion, RouteMessageBuilder};

use super::decode::{self, Link, Links};
use super::netlink::{Netlink, RouteError, within};
use super::plan::Subject;
use super::prefix::overlap;
use super::survey::{ExistingRoute, Lookup, RouteKind, Survey};
use super::tables::{LOCAL, MAIN};

/// Routes that may concern what a survey is about; so many are none that a person has made.
const MAX_CONCERNED: usize = 1 << 16;
/// Rules of one family.
const MAX_RULES: usize = 1 << 14;

impl Netlink {
    /// What routing holds that concerns a subject, as packets of `user` meet it.
    ///
    /// # Errors
    /// When the kernel does not answer, or holds more than can be looked at.
    pub async fn survey(&self, subject: &Subject, user: u32) -> Result<Survey, RouteError> {
        let links = self.links().await?;
        let concerns = |route: &ExistingRoute| {
            let mut about = subject.nets.iter().chain(&subject.ranges);
            about.any(|net| overlap(net, &route.prefix))
        };
        let routes = self.read_routes(&links, concerns).await?;
        let mut rules = self.rules(IpVersion::V4).await?;
        rules.extend(self.rules(IpVersion::V6).await?);
        let mut lookups = Vec::new();
        for net in &subject.nets {
            lookups.extend(self.look_up(probe(net), user, &links).await?);
        }
        let addresses = self.handle.address().get().execute();
        let addresses = addresses.try_filter_map(async |message| {
            let own = decode::own_address(&message, &links);
            Ok(own.filter(|own| {
                let mut about = subject.nets.iter().chain(&subject.ranges);
                about.any(|net| overlap(net, &own.address))
            }))
        });
        let addresses = bounded("list addresses", addresses, MAX_CONCERNED).await?;
        let quiet = links.into_values().filter(|link| link.is_quiet);
        let quiet = quiet.filter_map(|link| link.name).collect();
        Ok(Survey {
            routes,
            rules,
            addresses,
            lookups,
            quiet,
            user,
        })
    }

    /// All unicast routes of both families, of every table but the kernel's own `local`.
    ///
    /// # Errors
    /// When the kernel does not answer, or there are more than can be looked at.
    pub async fn routes(&self) -> Result<Vec<ExistingRoute>, RouteError> {
        let links = self.links().await?;
        let leads = |r: &ExistingRoute| r.kind == RouteKind::Unicast && r.table != LOCAL;
        self.read_routes(&links, leads).await
    }

    /// The prefixes that routes of the main table lead to a link.
    ///
    /// # Errors
    /// As [`Netlink::routes`].
    pub async fn led_to(&self, index: u32) -> Result<Vec<IpNet>, RouteError> {
        let leads = |r: &ExistingRoute| r.table == MAIN && r.index == Some(index);
        let routes = self.read_routes(&Links::new(), leads).await?;
        Ok(routes.into_iter().map(|route| route.prefix).collect())
    }

    async fn read_routes(
        &self,
        links: &Links,
        concerns: impl Fn(&ExistingRoute) -> bool,
    ) -> Result<Vec<ExistingRoute>, RouteError> {
        let mut routes = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut filter = RouteMessageBuilder::<IpAddr>::new().build();
            filter.header.address_family = family;
            let dump = self.handle.route().get(filter).execute();
            let dump = dump.try_filter_map(async |message| {
                Ok(decode::route(&message, links).filter(|route| concerns(route)))
            });
            routes.extend(bounded("list routes", dump, MAX_CONCERNED).await?);
        }
        Ok(routes)
    }

    async fn rules(&self, version: IpVersion) -> Result<Vec<super::Rule>, RouteError> {
        let dump = self.handle.rule().get(version).execute();
        let dump = dump.try_filter_map(async |message| Ok(decode::rule(&message)));
        match bounded("list rules", dump, MAX_RULES).await {
            // A kernel without the family, or without policy routing.
            Err(error)
                if matches!(
                    error.source.raw_os_error(),
                    Some(libc::EAFNOSUPPORT | libc::EOPNOTSUPP)
                ) =>
            {
                Ok(Vec::new())
            }
            other => other,
        }
    }

    /// The route that the kernel finds for packets of `user`; `None` where they go nowhere.
    async fn look_up(
        &self,
        address: IpAddr,
        user: u32,
        links: &Links,
    ) -> Result<Option<Lookup>, RouteError> {
        let what = format!("ask for the route to {address}");
        let host = IpNet::from(address);
        let mut message = RouteMessageBuilder::<IpAddr>::new()
            .destination_prefix(address, host.prefix_len())
            .map_err(|_| RouteError {
                what: what.clone(),
                source: io::ErrorKind::InvalidInput.into(),
            })?
            .build();
        // The matching entry with its prefix and its table, not the route made from it.
        message.header.flags = RouteFlags::FibMatch | RouteFlags::LookupTable;
        message.attributes.push(RouteAttribute::Uid(user));
        let answer = self.handle.route().get(message).execute();
        let first = async { std::pin::pin!(answer).try_next().await };
        match within(what, first).await {
            Ok(message) => Ok(found(address, message, links)),
            Err(error) => match error.source.raw_os_error() {
                // No route, or one that drops packets: unreachable, prohibited, blackholed.
                Some(
                    libc::ENETUNREACH
                    | libc::EHOSTUNREACH
                    | libc::EACCES
                    | libc::EINVAL
                    | libc::ESRCH
                    | libc::EAGAIN,
                )
                // No such family.
                | Some(libc::EAFNOSUPPORT | libc::EOPNOTSUPP) => Ok(None),
                _ => Err(error),
            },
        }
    }

    /// The devices by which packets of `user` to these prefixes leave, as the kernel says of one address in each.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub async fn leaving_by(&self, nets: &[IpNet], user: u32) -> Result<Vec<String>, RouteError> {
        let links = self.links().await?;
        let mut devices: Vec<String> = Vec::new();
        for net in nets {
            let found = self.look_up(probe(net), user, &links).await?;
            let found = found.filter(|lookup| lookup.route.kind == RouteKind::Unicast);
            devices.extend(found.iter().flat_map(|lookup| lookup.route.devices()));
        }
        devices.sort();
        devices.dedup();
        Ok(devices)
    }

    /// The names of all links, by index.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub async fn link_names(&self) -> Result<HashMap<u32, String>, RouteError> {
        let links = self.links().await?.into_iter();
        Ok(links
            .filter_map(|(index, link)| Some((index, link.name?)))
            .collect())
    }

    async fn links(&self) -> Result<Links, RouteError> {
        let dump = self.handle.link().get().execute();
        let dump = dump.map_ok(|message| {
            let name = message.attributes.into_iter().find_map(|a| match a {
                LinkAttribute::IfName(name) => Some(name),
                _ => None,
            });
            let is_up = message.header.flags.contains(LinkFlags::Up);
            let is_quiet = message.header.flags.contains(LinkFlags::Noarp);
            let link = Link {
                name,
                is_up,
                is_quiet,
            };
            (message.header.index, link)
        });
        within("list links".to_owned(), dump.try_collect()).await
    }
}

/// An address that stands for a prefix: the first that a host can have.
fn probe(net: &IpNet) -> IpAddr {
    // The first of IPv6 is any router's (RFC 4291, section 2.6.1), that of IPv4 is no host.
    let others = usize::from(net.addr().is_ipv6());
    net.hosts().nth(others).unwrap_or(net.network())
}

fn found(address: IpAddr, message: Option<RouteMessage>, links: &Links) -> Option<Lookup> {
    let route = decode::route(&message?, links)?;
    matches!(route.kind, RouteKind::Unicast | RouteKind::Local).then_some(Lookup { address, route })
}

/// Collects so many and no more.
async fn bounded<T>(
    what: &str,
    items: impl Stream<Item = Result<T, rtnetlink::Error>>,
    limit: usize,
) -> Result<Vec<T>, RouteError> {
    let collect = items.try_fold(Vec::new(), async |mut all, item| {
        // What is too much is read to its end all the same, and thrown away.
        if all.len() <= limit {
            all.push(item);
        }
        Ok(all)
    });
    let all = within(what.to_owned(), collect).await?;
    if all.len() > limit {
        return Err(RouteError {
            what: what.to_owned(),
            source: io::Error::other(format!("there are more than {limit}")),
        });
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn routes_can_be_listed_without_any_right() {
        let netlink = Netlink::open().unwrap();
        let routes = netlink.routes().await.unwrap();
        assert!(routes.iter().all(|r| r.table != LOCAL), "{routes:?}");
        let names = netlink.link_names().await.unwrap();
        assert!(names.values().any(|name| name == "lo"));
    }

    #[tokio::test]
    async fn a_survey_finds_this_machines_own_address_and_its_rules() {
        let subject = Subject {
            nets: vec!["127.0.0.0/8".parse().unwrap()],
            ranges: ["240.0.0.0/4".parse().unwrap(), "fd00::/8".parse().unwrap()],
        };
        let netlink = Netlink::open().unwrap();
        let found = netlink.survey(&subject, 0).await.unwrap();
        let own: Vec<_> = found.addresses.iter().map(|a| a.address.addr()).collect();
        assert!(own.contains(&[127, 0, 0, 1].into()), "{own:?}");
        assert_eq!(found.lookups.len(), 1, "{:?}", found.lookups);
        assert_eq!(found.lookups[0].route.kind, RouteKind::Local);
        assert!(!found.rules.is_empty());
    }
}

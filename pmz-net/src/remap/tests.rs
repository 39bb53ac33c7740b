use super::*;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn map(pool: &[&str]) -> AddressMap {
    let pool: Vec<IpNet> = pool.iter().map(|net| net.parse().unwrap()).collect();
    let remapped = ["10.96.0.0/16", "fd00:10:96::/112"].map(|net| net.parse().unwrap());
    AddressMap::new(remapped.to_vec(), &pool)
}

const NEVER: fn(IpAddr) -> bool = |_| false;

#[test]
fn addresses_are_handed_out_on_demand_and_stay() {
    let (mut map, now) = (map(&["240.128.0.0/16", "fd11::/112"]), Instant::now());
    assert_eq!(map.used(now, ip("10.96.0.10")), Used::None);
    let first = map.assign(now, ip("10.96.0.10"), NEVER).unwrap();
    assert_eq!((first.address, first.was), (ip("240.128.0.1"), None));
    let second = map.assign(now, ip("fd00:10:96::a"), NEVER).unwrap();
    assert_eq!(second.address, ip("fd11::1"));
    assert_eq!(
        map.used(now, ip("10.96.0.10")),
        Used::Virtual(first.address)
    );
    assert_eq!(map.assign(now, ip("10.96.0.10"), NEVER), Ok(first));
    assert_eq!(map.real(first.address), Some(ip("10.96.0.10")));
    assert_eq!(map.len(), 2);
}

#[test]
fn what_does_not_collide_is_used_itself() {
    let mut map = map(&["240.128.0.0/16"]);
    assert_eq!(map.used(Instant::now(), ip("10.97.0.1")), Used::Itself);
    map.set_remapped(vec!["10.97.0.0/16".parse().unwrap()]);
    assert_eq!(map.used(Instant::now(), ip("10.97.0.1")), Used::None);
    assert_eq!(map.used(Instant::now(), ip("10.96.0.1")), Used::Itself);
}

#[test]
fn a_full_pool_gives_the_address_that_was_longest_out_of_use() {
    // Two addresses between the first and the last.
    let (mut map, start) = (map(&["240.128.0.0/30"]), Instant::now());
    let later = start + Duration::from_secs(1);
    map.assign(start, ip("10.96.0.1"), NEVER).unwrap();
    map.assign(later, ip("10.96.0.2"), NEVER).unwrap();
    let full = map.assign(later, ip("10.96.0.3"), NEVER);
    assert_eq!(full, Err(NoAddress::Exhausted(2)), "both are young");

    let old = later + KEPT;
    let taken = map.assign(old, ip("10.96.0.3"), NEVER).unwrap();
    assert_eq!(taken.was, Some(ip("10.96.0.1")));
    assert_eq!(map.real(taken.address), Some(ip("10.96.0.3")));
    assert_eq!(map.used(old, ip("10.96.0.1")), Used::None);
    assert_eq!(
        map.used(old, ip("10.96.0.2")),
        Used::Virtual(ip("240.128.0.2"))
    );
}

#[test]
fn an_address_in_use_is_not_taken_away() {
    let (mut map, start) = (map(&["240.128.0.0/30"]), Instant::now());
    for (seconds, real) in [(0, "10.96.0.1"), (1, "10.96.0.2")] {
        let now = start + Duration::from_secs(seconds);
        map.assign(now, ip(real), NEVER).unwrap();
    }
    let old = start + Duration::from_secs(1) + KEPT;
    let busy = |address| address == ip("240.128.0.1");
    let taken = map.assign(old, ip("10.96.0.3"), busy).unwrap();
    assert_eq!(taken.was, Some(ip("10.96.0.2")));
    let full = map.assign(old, ip("10.96.0.4"), |_| true);
    assert_eq!(full, Err(NoAddress::Exhausted(2)));
}

#[test]
fn a_family_without_a_pool_is_named() {
    let mut map = map(&["240.128.0.0/16"]);
    let refused = map.assign(Instant::now(), ip("fd00:10:96::1"), NEVER);
    assert_eq!(refused, Err(NoAddress::Family(ip("fd00:10:96::1"))));
}

#[test]
fn a_pool_ends_within_its_prefix_and_is_never_endless() {
    for (prefix, size, last) in [
        ("240.128.4.0/24", 254, "240.128.4.254"),
        ("240.128.0.0/9", 65_535, "240.128.255.255"),
        ("fd11::/64", 65_535, "fd11::ffff"),
        ("fd11::/112", 65_534, "fd11::fffe"),
    ] {
        let mut pool = Pool::new(&prefix.parse().unwrap());
        assert_eq!(pool.size(), size, "{prefix}");
        let addresses: Vec<_> = std::iter::from_fn(|| pool.next()).collect();
        assert_eq!(addresses.len() as u64, size, "{prefix}");
        assert_eq!(addresses.last(), Some(&ip(last)), "{prefix}");
    }
    assert_eq!(Pool::new(&"240.128.0.1/32".parse().unwrap()).next(), None);
}

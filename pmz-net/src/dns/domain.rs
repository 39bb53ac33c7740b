//! A name that a user gives to a service: an exact one, or a wildcard.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use hickory_proto::rr::Name;
use serde::{Deserialize, Serialize};

/// The longest name, in characters and without its last dot (RFC 1035, 2.3.4, has 255 octets on the wire).
const MAX_NAME: usize = 253;
/// The longest label, in characters (RFC 1035, 2.3.4).
const MAX_LABEL: usize = 63;

/// Why a text is no domain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DomainError {
    /// Nothing, or only a dot.
    #[error("it is empty")]
    Empty,
    /// More than a name.
    #[error("it is a URL or has a port, and only the name itself is wanted")]
    Url,
    /// DNS isn't asked for addresses.
    #[error("it is an address, and no program asks for the address of one")]
    Address,
    /// Not in ASCII.
    #[error(
        "{0:?} is not in ASCII: international names are written in punycode, such as xn--bcher-kva.example"
    )]
    NotAscii(char),
    /// Too long.
    #[error("it has more than {MAX_NAME} characters")]
    Long,
    /// Two dots beside each other, or one at the start.
    #[error("it has an empty label")]
    EmptyLabel,
    /// A label that is too long.
    #[error("the label {0:?} has more than {MAX_LABEL} characters")]
    LongLabel(String),
    /// What no label has.
    #[error("{0:?} can't be in a name: letters, digits, `-` and `_` can")]
    Character(char),
    /// A hyphen at a label's end.
    #[error("the label {0:?} begins or ends with a hyphen")]
    Hyphen(String),
    /// A star that is no wildcard.
    #[error("a wildcard's `*` is the whole first label, such as `*.shop.test`")]
    Star,
    /// A name that looks like an address.
    #[error("its last label has no letter, and programs would take it for an address")]
    Numeric,
    /// What leads from addresses to names.
    #[error("names below in-addr.arpa and ip6.arpa stand for addresses")]
    Reverse,
}

/// A domain name that can lead to a service: letters, digits and hyphens (RFC 1123, 2.1), and underscores, which no
/// host name has, but DNS (RFC 2181, 11) and many names in use have. In lower case, without a dot at its end. A `*` as
/// first label makes it a wildcard.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Domain {
    text: String,
    /// What follows the `*`, of a wildcard; else the whole name.
    name: Name,
}

impl Domain {
    /// Whether it stands for the names below [`Domain::name`], and not for that one.
    pub fn is_wildcard(&self) -> bool {
        self.text.starts_with('*')
    }

    /// The name; a wildcard's without its `*`.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// Whether it takes a whole top-level domain or more, or is a single label, of which resolvers make other names by
    /// search domains.
    pub fn is_broad(&self) -> bool {
        self.name.iter().count() <= 1
    }

    /// Whether a name is this one, or below a wildcard's.
    pub fn covers(&self, name: &Name) -> bool {
        if self.is_wildcard() {
            self.name.zone_of(name) && !self.name.eq_ignore_root(name)
        } else {
            self.name.eq_ignore_root(name)
        }
    }

    /// The text, such as `*.shop.test`.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl FromStr for Domain {
    type Err = DomainError;

    fn from_str(text: &str) -> Result<Self, DomainError> {
        let text = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        if text.is_empty() {
            return Err(DomainError::Empty);
        }
        if let Some(other) = text.chars().find(|c| !c.is_ascii()) {
            return Err(DomainError::NotAscii(other));
        }
        if text.parse::<IpAddr>().is_ok() {
            return Err(DomainError::Address);
        }
        if text.contains(['/', ':']) {
            return Err(DomainError::Url);
        }
        if text.len() > MAX_NAME {
            return Err(DomainError::Long);
        }
        let mut labels: Vec<&str> = text.split('.').collect();
        if labels.first() == Some(&"*") {
            labels.remove(0);
        }
        labels.iter().try_for_each(|label| check(label))?;
        if labels
            .last()
            .is_some_and(|top| top.bytes().all(|byte| byte.is_ascii_digit()))
        {
            return Err(DomainError::Numeric);
        }
        if let [.., "in-addr" | "ip6", "arpa"] = labels.as_slice() {
            return Err(DomainError::Reverse);
        }
        let name = Name::from_labels(labels.iter().map(|label| label.as_bytes()))
            .map_err(|_| DomainError::Long)?;
        Ok(Self { text, name })
    }
}

fn check(label: &str) -> Result<(), DomainError> {
    if label.is_empty() {
        return Err(DomainError::EmptyLabel);
    }
    if label.contains('*') {
        return Err(DomainError::Star);
    }
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if let Some(other) = label.chars().find(|c| !fits(*c)) {
        return Err(DomainError::Character(other));
    }
    if label.len() > MAX_LABEL {
        return Err(DomainError::LongLabel(label.to_owned()));
    }
    if label.starts_with('-') || label.ends_with('-') {
        return Err(DomainError::Hyphen(label.to_owned()));
    }
    Ok(())
}

impl TryFrom<String> for Domain {
    type Error = DomainError;

    fn try_from(text: String) -> Result<Self, DomainError> {
        text.parse()
    }
}

impl From<Domain> for String {
    fn from(domain: Domain) -> Self {
        domain.text
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_taken_in_lower_case_and_without_their_last_dot() {
        for (text, taken, wildcard) in [
            ("www.dns.com", "www.dns.com", false),
            ("WWW.Dns.COM.", "www.dns.com", false),
            ("*.shop.test", "*.shop.test", true),
            ("my_app.example", "my_app.example", false),
            ("_x._tcp.example", "_x._tcp.example", false),
            ("xn--bcher-kva.example", "xn--bcher-kva.example", false),
            ("1.example", "1.example", false),
            ("intranet", "intranet", false),
            ("*", "*", true),
        ] {
            let domain: Domain = text.parse().unwrap();
            assert_eq!((domain.as_str(), domain.is_wildcard()), (taken, wildcard));
        }
    }

    #[test]
    fn what_is_no_name_is_refused_for_its_own_reason() {
        let label = "a".repeat(64);
        for (text, reason) in [
            ("", DomainError::Empty),
            (".", DomainError::Empty),
            ("http://www.dns.com/", DomainError::Url),
            ("www.dns.com:80", DomainError::Url),
            ("192.0.2.1", DomainError::Address),
            ("2001:db8::1", DomainError::Address),
            ("bücher.example", DomainError::NotAscii('ü')),
            ("a..example", DomainError::EmptyLabel),
            (".example", DomainError::EmptyLabel),
            ("example..", DomainError::EmptyLabel),
            ("a b.example", DomainError::Character(' ')),
            ("a\n.example", DomainError::Character('\n')),
            ("-a.example", DomainError::Hyphen("-a".to_owned())),
            ("a-.example", DomainError::Hyphen("a-".to_owned())),
            ("a.*.example", DomainError::Star),
            ("a*.example", DomainError::Star),
            ("*a.example", DomainError::Star),
            ("**.example", DomainError::Star),
            ("*.*.example", DomainError::Star),
            ("host.1", DomainError::Numeric),
            ("256.1.1.1", DomainError::Numeric),
            ("1.0.0.127.in-addr.arpa", DomainError::Reverse),
            ("*.ip6.arpa", DomainError::Reverse),
        ] {
            assert_eq!(text.parse::<Domain>(), Err(reason), "{text:?}");
        }
        let long = format!("{label}.example");
        assert_eq!(long.parse::<Domain>(), Err(DomainError::LongLabel(label)));
        let long = format!("{}example", "abcdefghi.".repeat(25));
        assert_eq!(long.parse::<Domain>(), Err(DomainError::Long));
    }

    #[test]
    fn a_wildcard_covers_what_is_below_and_not_its_apex() {
        let covers = |domain: &str, name: &str| {
            let domain: Domain = domain.parse().unwrap();
            domain.covers(&Name::from_ascii(name).unwrap())
        };
        assert!(covers("*.shop.test", "a.shop.test."));
        assert!(covers("*.shop.test", "A.b.Shop.Test"));
        assert!(!covers("*.shop.test", "shop.test."));
        assert!(!covers("*.shop.test", "ashop.test."));
        assert!(covers("www.dns.com", "WWW.dns.com."));
        assert!(!covers("www.dns.com", "a.www.dns.com."));
        assert!(covers("*", "example."));
    }

    #[test]
    fn what_takes_a_top_level_domain_is_broad() {
        for (text, broad) in [
            ("*", true),
            ("*.com", true),
            ("intranet", true),
            ("*.shop.test", false),
            ("dns.com", false),
        ] {
            assert_eq!(text.parse::<Domain>().unwrap().is_broad(), broad, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_refused_or_a_name_that_reads_the_same_again(text in "[*a-zA-Z0-9._ü-]{0,80}") {
            if let Ok(domain) = text.parse::<Domain>() {
                prop_assert_eq!(domain.to_string().parse::<Domain>(), Ok(domain.clone()));
                let text = domain.as_str().trim_start_matches('*').trim_start_matches('.');
                let ascii = domain.name().to_ascii();
                prop_assert_eq!(ascii.trim_end_matches('.'), text);
            }
        }
    }
}

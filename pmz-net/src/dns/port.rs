//! Ports of services, as users name them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::catalog::Port;

/// The longest name of a port, in characters: a DNS label.
const MAX_PORT_NAME: usize = 63;

/// A port of a service, as users name it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum PortRef {
    /// By its number, not 0.
    Number(u16),
    /// By its name.
    Name(String),
}

/// A text that names no port.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither a port's number (1 to 65535) nor its name")]
pub struct PortRefError(String);

impl PortRef {
    /// Whether that port is meant.
    pub fn is(&self, port: &Port) -> bool {
        match self {
            Self::Number(number) => port.port == *number,
            Self::Name(name) => port.name.as_ref() == Some(name),
        }
    }
}

impl FromStr for PortRef {
    type Err = PortRefError;

    fn from_str(text: &str) -> Result<Self, PortRefError> {
        let error = || PortRefError(text.chars().take(MAX_PORT_NAME).collect());
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            let number = text.parse().ok().filter(|number| *number != 0);
            return number.map(Self::Number).ok_or_else(error);
        }
        let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let hyphen = text.starts_with('-') || text.ends_with('-');
        if text.len() > MAX_PORT_NAME || hyphen || !text.bytes().all(fits) {
            return Err(error());
        }
        Ok(Self::Name(text.to_owned()))
    }
}

impl TryFrom<String> for PortRef {
    type Error = PortRefError;

    fn try_from(text: String) -> Result<Self, PortRefError> {
        text.parse()
    }
}

impl From<PortRef> for String {
    fn from(port: PortRef) -> Self {
        port.to_string()
    }
}

impl fmt::Display for PortRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_a_number_or_a_name() {
        for (text, port) in [
            ("80", PortRef::Number(80)),
            ("65535", PortRef::Number(65535)),
            ("http", PortRef::Name("http".to_owned())),
            ("8080-tcp", PortRef::Name("8080-tcp".to_owned())),
        ] {
            assert_eq!(text.parse(), Ok(port));
        }
        let long = "x".repeat(64);
        for text in [
            "", "0", "65536", "-1", "http-", "HTTP", "80/tcp", "a b", &long,
        ] {
            assert!(text.parse::<PortRef>().is_err(), "{text:?}");
        }
    }
}

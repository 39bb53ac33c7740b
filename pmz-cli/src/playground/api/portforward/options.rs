//! What a client asks for: ports in the query, the subprotocol in the headers.

use http::HeaderMap;
use http::header::SEC_WEBSOCKET_PROTOCOL;

use crate::playground::api::request::{Query, is_digits};
use crate::playground::api::status::Status;

/// What this server speaks.
const PROTOCOL: &str = "v4.channel.k8s.io";
/// Channels have one byte, and each port needs two.
const MOST_PORTS: usize = 128;

/// The numbers in `ports`, in lists and repeated.
pub(super) fn numbers(query: &Query) -> Result<Vec<u16>, Status> {
    let mut all = Vec::new();
    for text in query.all("ports").flat_map(|list| list.split(',')) {
        let number = text.parse::<u16>().ok().filter(|_| is_digits(text));
        all.push(number.ok_or_else(|| {
            let what = if is_digits(text) {
                "value out of range"
            } else {
                "invalid syntax"
            };
            Status::bad_request(format!(
                "cannot convert to []int32: strconv.ParseUint: parsing \"{text}\": {what}"
            ))
        })?);
    }
    Ok(all)
}

/// The numbers, if they are ports, or what the kubelet says to them.
pub(super) fn ports(numbers: &[u16]) -> Result<Vec<u16>, String> {
    if numbers.is_empty() {
        return Err("query parameter \"port\" is required".to_owned());
    }
    if numbers.contains(&0) {
        return Err("port \"0\" must be > 0".to_owned());
    }
    if numbers.len() > MOST_PORTS {
        return Err(format!("more than {MOST_PORTS} ports"));
    }
    Ok(numbers.to_vec())
}

/// The subprotocol to speak; empty if the client did not ask for one. None: nothing that it wants.
pub(super) fn subprotocol(headers: &HeaderMap) -> Option<&'static str> {
    let mut wanted = headers
        .get_all(SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .flat_map(|value| value.to_str().unwrap_or_default().split(','))
        .map(str::trim)
        .filter(|protocol| !protocol.is_empty())
        .peekable();
    if wanted.peek().is_none() {
        return Some("");
    }
    wanted
        .any(|protocol| protocol == PROTOCOL)
        .then_some(PROTOCOL)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers_of(query: &str) -> Result<Vec<u16>, String> {
        let uri = format!("/x?{query}").parse().unwrap();
        numbers(&Query::of(&uri)).map_err(|status| status.message)
    }

    #[test]
    fn ports_come_in_lists_and_repeated() {
        assert_eq!(numbers_of("&ports=80%2C90&ports=80").unwrap(), [80, 90, 80]);
        for (text, what) in [
            ("", "invalid syntax"),
            ("abc", "invalid syntax"),
            ("-1", "invalid syntax"),
            ("%2B1", "invalid syntax"),
            ("70000", "value out of range"),
        ] {
            let message = numbers_of(&format!("ports={text}")).unwrap_err();
            assert!(message.ends_with(what), "{message}");
        }
    }

    #[test]
    fn ports_that_are_none_are_refused() {
        assert!(ports(&[]).is_err());
        assert!(ports(&[80, 0]).is_err());
        assert!(ports(&[1; 129]).is_err());
        assert_eq!(ports(&[80]).unwrap(), [80]);
    }

    #[test]
    fn the_one_known_subprotocol_is_chosen() {
        let choose = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(SEC_WEBSOCKET_PROTOCOL, value.parse().unwrap());
            subprotocol(&headers)
        };
        assert_eq!(
            choose("v5.channel.k8s.io, v4.channel.k8s.io"),
            Some(PROTOCOL)
        );
        assert_eq!(choose("SPDY/3.1+portforward.k8s.io"), None);
        assert_eq!(choose(""), Some(""));
    }
}

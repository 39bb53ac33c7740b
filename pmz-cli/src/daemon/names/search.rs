//! Namespaces whose services are found by `name` alone.

use serde::{Deserialize, Serialize};

use super::choice::config;
use crate::domains::KubeName;
use crate::failure::{ExitCode, Failure};

/// So many besides the agent's. With that, `svc.<cluster domain>` and `svc` they are six search domains, and older C
/// libraries read no more (resolv.conf(5)).
const MAX_SEARCH: usize = 3;

/// What the command line says of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SearchWish {
    /// The agent's namespace, where the user has named it.
    chosen: Option<KubeName>,
    /// Others, the first one's names first; where there are none, the config file's are meant.
    given: Vec<KubeName>,
}

impl SearchWish {
    /// The agent's namespace, if the user has named it, and others.
    ///
    /// # Errors
    /// Where these are too many.
    pub fn new(chosen: Option<&str>, given: Vec<KubeName>) -> Result<Self, Failure> {
        few(&given, "`--search`")?;
        // What is no namespace's name leads to no agent, and `pmz up` says so.
        let chosen = chosen.and_then(|name| name.parse().ok());
        Ok(Self { chosen, given })
    }

    /// All of them, in order.
    ///
    /// # Errors
    /// Where the config file can't be read, or has too many.
    pub(crate) fn find(&self) -> Result<Vec<KubeName>, Failure> {
        let more = match self.given.as_slice() {
            [] => config()?.dns.search,
            given => given.to_vec(),
        };
        few(&more, "the config file's `search`")?;
        Ok(self.before(more))
    }

    fn before(&self, more: Vec<KubeName>) -> Vec<KubeName> {
        let mut all: Vec<KubeName> = Vec::new();
        for name in self.chosen.iter().cloned().chain(more) {
            if !all.contains(&name) {
                all.push(name);
            }
        }
        all
    }
}

fn few(namespaces: &[KubeName], whose: &str) -> Result<(), Failure> {
    if namespaces.len() <= MAX_SEARCH {
        return Ok(());
    }
    Err(Failure::new(
        ExitCode::Usage,
        format!(
            "There are {} namespaces in {whose}, and {MAX_SEARCH} can be searched for names",
            namespaces.len()
        ),
        "`name.namespace` works for all others",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<KubeName> {
        text.split_whitespace()
            .map(|name| name.parse().unwrap())
            .collect()
    }

    #[test]
    fn the_chosen_namespace_goes_first_and_none_comes_twice() {
        let wish = SearchWish::new(Some("shop"), names("dev shop dev")).unwrap();
        assert_eq!(wish.find().unwrap(), names("shop dev"));
        let wish = SearchWish::new(None, names("dev")).unwrap();
        assert_eq!(wish.find().unwrap(), names("dev"));
        let unusual = SearchWish::new(Some("No Name"), names("dev")).unwrap();
        assert_eq!(unusual.find().unwrap(), names("dev"));
    }

    #[test]
    fn more_than_resolvers_read_are_refused_with_another_way() {
        let failure = SearchWish::new(None, names("a b c d")).unwrap_err();
        assert_eq!(failure.code, ExitCode::Usage);
        let text = failure.to_string();
        assert!(
            text.contains("--search") && text.contains("name.namespace"),
            "{text}"
        );
    }
}

//! Label and field selectors, in the grammar of apimachinery's `labels.Parse` and `fields.ParseSelector`,
//! and with its words where it refuses.

use serde_json::Value;

use super::status::Status;

/// Which objects of a collection are meant.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Selector {
    labels: Vec<Requirement>,
    fields: Vec<FieldRequirement>,
}

#[derive(Clone, Debug, PartialEq)]
struct Requirement {
    key: String,
    test: Test,
}

#[derive(Clone, Debug, PartialEq)]
enum Test {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    Absent,
    Greater(i64),
    Less(i64),
}

#[derive(Clone, Debug, PartialEq)]
struct FieldRequirement {
    path: String,
    equal: bool,
    value: String,
}

impl Selector {
    /// From the query's two parameters. `fields` names the fields that the resource can be selected by.
    pub(super) fn parse(labels: &str, fields: &str, known: &[&str]) -> Result<Self, Status> {
        Ok(Self {
            labels: Parser::new(labels).parse().map_err(Status::bad_request)?,
            fields: parse_fields(fields, known).map_err(Status::bad_request)?,
        })
    }

    /// Whether it means `object`.
    pub(super) fn matches(&self, object: &Value) -> bool {
        let labels = &object["metadata"]["labels"];
        self.labels
            .iter()
            .all(|r| r.holds(labels[r.key.as_str()].as_str()))
            && self.fields.iter().all(|f| {
                let found = field(object, &f.path);
                (found == f.value) == f.equal
            })
    }
}

impl Requirement {
    fn holds(&self, value: Option<&str>) -> bool {
        let number = || value.and_then(|v| v.parse::<i64>().ok());
        match &self.test {
            Test::In(set) => value.is_some_and(|v| set.iter().any(|s| s == v)),
            Test::NotIn(set) => value.is_none_or(|v| set.iter().all(|s| s != v)),
            Test::Exists => value.is_some(),
            Test::Absent => value.is_none(),
            Test::Greater(than) => number().is_some_and(|n| n > *than),
            Test::Less(than) => number().is_some_and(|n| n < *than),
        }
    }
}

/// The field at a dotted path, as text; what is not there is empty.
fn field(object: &Value, path: &str) -> String {
    let found = path.split('.').fold(object, |value, part| &value[part]);
    match found {
        Value::String(text) => text.clone(),
        Value::Null if path == "spec.unschedulable" || path == "spec.hostNetwork" => {
            "false".to_owned()
        }
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn parse_fields(text: &str, known: &[&str]) -> Result<Vec<FieldRequirement>, String> {
    let mut all = Vec::new();
    for term in text.split(',').filter(|t| !t.is_empty()) {
        let (path, equal, value) = if let Some((path, value)) = term.split_once("!=") {
            (path, false, value)
        } else if let Some((path, value)) = term.split_once("==").or_else(|| term.split_once('=')) {
            (path, true, value)
        } else {
            return Err(format!(
                "invalid selector: '{text}'; can't understand '{term}'"
            ));
        };
        if !known.contains(&path) {
            return Err(format!("field label not supported: {path}"));
        }
        all.push(FieldRequirement {
            path: path.to_owned(),
            equal,
            value: value.to_owned(),
        });
    }
    Ok(all)
}

const END: &str = "";

/// A parser of label selectors, by recursive descent over words and signs.
struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Self {
        Self { rest: text }
    }

    /// The next word or sign; empty at the end.
    fn peek(&self) -> &'a str {
        let rest = self.rest.trim_start();
        let length = match rest.chars().next() {
            None => 0,
            Some(sign) if is_sign(sign) => {
                let two = rest.get(..2);
                if two == Some("==") || two == Some("!=") {
                    2
                } else {
                    1
                }
            }
            Some(_) => rest
                .find(|c: char| is_sign(c) || c.is_whitespace())
                .unwrap_or(rest.len()),
        };
        rest.get(..length).unwrap_or(END)
    }

    fn next(&mut self) -> &'a str {
        let word = self.peek();
        let rest = self.rest.trim_start();
        self.rest = rest.get(word.len()..).unwrap_or(END);
        word
    }

    fn parse(mut self) -> Result<Vec<Requirement>, String> {
        let mut all = Vec::new();
        if self.peek() == END {
            return Ok(all);
        }
        loop {
            let first = self.peek();
            if first != "!" && !is_word(first) {
                return Err(format!(
                    "found '{first}', expected: !, identifier, or 'end of string'"
                ));
            }
            let requirement = self
                .requirement()
                .map_err(|e| format!("unable to parse requirement: {e}"))?;
            all.push(requirement);
            match self.next() {
                END => return Ok(all),
                "," if is_word(self.peek()) || self.peek() == "!" => {}
                "," => {
                    return Err(format!(
                        "found '{}', expected: identifier after ','",
                        self.peek()
                    ));
                }
                other => return Err(format!("found '{other}', expected: ',' or 'end of string'")),
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        let absent = self.peek() == "!";
        if absent {
            self.next();
        }
        let key = self.next();
        if !is_word(key) {
            return Err(format!("found '{key}', expected: identifier"));
        }
        let requirement = |test| Requirement {
            key: key.to_owned(),
            test,
        };
        if absent {
            return Ok(requirement(Test::Absent));
        }
        if matches!(self.peek(), END | ",") {
            return Ok(requirement(Test::Exists));
        }
        let test = match self.next() {
            "=" | "==" => Test::In(vec![self.value()?]),
            "!=" => Test::NotIn(vec![self.value()?]),
            "in" => Test::In(self.set()?),
            "notin" => Test::NotIn(self.set()?),
            ">" | "gt" => Test::Greater(self.number()?),
            "<" | "lt" => Test::Less(self.number()?),
            other => {
                return Err(format!(
                    "found '{other}', expected: in, notin, =, ==, !=, gt, lt"
                ));
            }
        };
        Ok(requirement(test))
    }

    /// A value, which may be empty.
    fn value(&mut self) -> Result<String, String> {
        match self.peek() {
            END | "," => Ok(String::new()),
            word if is_word(word) => Ok(self.next().to_owned()),
            other => Err(format!("found '{other}', expected: identifier")),
        }
    }

    fn number(&mut self) -> Result<i64, String> {
        let text = self.value()?;
        text.parse()
            .map_err(|_| format!("for 'Gt', 'Lt' operators, the value must be an integer: {text}"))
    }

    fn set(&mut self) -> Result<Vec<String>, String> {
        let open = self.next();
        if open != "(" {
            return Err(format!("found '{open}' expected: '('"));
        }
        let mut all = Vec::new();
        loop {
            match self.peek() {
                word if is_word(word) => all.push(self.next().to_owned()),
                "," | ")" => all.push(String::new()),
                other => {
                    return Err(format!("found '{other}', expected: ',', ')' or identifier"));
                }
            }
            match self.next() {
                "," => {}
                ")" => return Ok(all),
                other => return Err(format!("found '{other}', expected: ',' or ')'")),
            }
        }
    }
}

fn is_sign(c: char) -> bool {
    matches!(c, '=' | '!' | '(' | ')' | '>' | '<' | ',')
}

fn is_word(word: &str) -> bool {
    word.chars().next().is_some_and(|c| !is_sign(c))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn matches(selector: &str, labels: Value) -> bool {
        Selector::parse(selector, "", &[])
            .unwrap()
            .matches(&json!({"metadata": {"labels": labels}}))
    }

    fn refusal(selector: &str) -> String {
        Selector::parse(selector, "", &[]).unwrap_err().message
    }

    #[test]
    fn label_selectors_mean_what_the_grammar_says() {
        let labels = || json!({"app": "echo", "n": "5", "empty": ""});
        for selector in [
            "",
            "app=echo",
            "app == echo",
            "app!=db",
            "app in (db, echo)",
            "app notin (db),n",
            "other!=x",
            "!other",
            "n>4,n<6",
            "empty=",
            "empty=,app",
            "app in (echo),!x,n in (5,6)",
        ] {
            assert!(matches(selector, labels()), "{selector}");
        }
        for selector in [
            "app=db",
            "app!=echo",
            "!app",
            "other",
            "app notin (echo)",
            "n>5",
            "app>1",
            "app=",
        ] {
            assert!(!matches(selector, labels()), "{selector}");
        }
    }

    #[test]
    fn label_selectors_are_refused_in_the_words_of_the_real_server() {
        assert_eq!(
            refusal("x==="),
            "unable to parse requirement: found '=', expected: identifier"
        );
        assert_eq!(
            refusal("x in (a"),
            "unable to parse requirement: found '', expected: ',' or ')'"
        );
        assert_eq!(
            refusal("a b"),
            "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"
        );
        assert_eq!(
            refusal(","),
            "found ',', expected: !, identifier, or 'end of string'"
        );
    }

    #[test]
    fn fields_are_compared_as_text_and_only_the_known_ones() {
        let known = &["metadata.name", "status.phase"];
        let pod = json!({"metadata": {"name": "a"}, "status": {"phase": "Running"}});
        let parse = |text| Selector::parse("", text, known);
        assert!(
            parse("metadata.name=a,status.phase!=Failed")
                .unwrap()
                .matches(&pod)
        );
        assert!(!parse("status.phase==Pending").unwrap().matches(&pod));
        assert_eq!(
            parse("foo=bar").unwrap_err().message,
            "field label not supported: foo"
        );
        assert_eq!(
            parse("foo").unwrap_err().message,
            "invalid selector: 'foo'; can't understand 'foo'"
        );
    }

    #[test]
    fn no_text_makes_the_parser_panic() {
        for text in [
            "é",
            "=é(",
            "a in (é,",
            "!!",
            "((((",
            "a in",
            "\u{2003}=",
            "a=é,",
        ] {
            let _ = Selector::parse(text, text, &["metadata.name"]);
        }
    }
}

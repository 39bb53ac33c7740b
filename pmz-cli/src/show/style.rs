//! Colour, where there is somebody to see it.

use std::fmt::Display;
use std::io::IsTerminal;

/// Colours text, or leaves it as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    colour: bool,
}

impl Style {
    /// For a stream: colour on a terminal that has it, unless `NO_COLOR` is set.
    pub fn of(stream: &impl IsTerminal) -> Self {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self {
            colour: stream.is_terminal() && !refused && !dumb,
        }
    }

    /// No colour.
    pub fn plain() -> Self {
        Self { colour: false }
    }

    /// Whether it colours.
    pub fn has_colour(self) -> bool {
        self.colour
    }

    fn paint(self, code: &str, text: impl Display) -> String {
        if self.colour {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_string()
        }
    }

    /// All is well.
    pub fn good(self, text: impl Display) -> String {
        self.paint("32", text)
    }

    /// Something to look at.
    pub fn warn(self, text: impl Display) -> String {
        self.paint("33", text)
    }

    /// Something is wrong.
    pub fn bad(self, text: impl Display) -> String {
        self.paint("31", text)
    }

    /// Beside the point.
    pub fn dim(self, text: impl Display) -> String {
        self.paint("2", text)
    }
}

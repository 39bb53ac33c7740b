//! The steps of connecting: a line that moves on a terminal, plain lines elsewhere.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::Style;
use crate::daemon::View;

/// Shows the steps of a daemon's views, each once.
pub struct Progress {
    spinner: Option<ProgressBar>,
    style: Style,
    attempt: u64,
    shown: usize,
}

impl Progress {
    /// On stderr.
    pub fn new() -> Self {
        let stderr = std::io::stderr();
        let spinner = stderr.is_terminal().then(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        Self {
            spinner,
            style: Style::of(&stderr),
            attempt: 0,
            shown: 0,
        }
    }

    /// Shows what is new in a view.
    pub fn show(&mut self, view: &View) {
        if view.attempt != self.attempt {
            self.attempt = view.attempt;
            self.shown = 0;
        }
        for line in new_lines(view, &mut self.shown, self.style) {
            self.line(&line);
        }
        if let (Some(spinner), Some(step)) = (&self.spinner, view.steps.last()) {
            spinner.set_message(if step.done.is_none() {
                step.text.clone()
            } else {
                String::new()
            });
        }
    }

    /// A line of its own, above the one that moves.
    pub fn line(&self, text: &str) {
        match &self.spinner {
            Some(spinner) => spinner.suspend(|| eprintln!("{text}")),
            None => eprintln!("{text}"),
        }
    }

    /// Nothing moves any more.
    pub fn finish(&self) {
        if let Some(spinner) = &self.spinner {
            spinner.finish_and_clear();
        }
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.finish();
    }
}

fn new_lines(view: &View, shown: &mut usize, style: Style) -> Vec<String> {
    let mut lines = Vec::new();
    while let Some(step) = view.steps.get(*shown) {
        let Some(result) = &step.done else { break };
        let mark = style.good("✓");
        let result = if result.is_empty() {
            String::new()
        } else {
            format!(": {result}")
        };
        lines.push(format!("{mark} {}{}", step.text, style.dim(result)));
        *shown += 1;
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::{Phase, Step};

    #[test]
    fn each_step_is_shown_once_when_it_is_done() {
        let step = |text: &str, done: Option<&str>| Step {
            text: text.to_owned(),
            done: done.map(str::to_owned),
        };
        let mut view = View {
            phase: Phase::Connecting,
            attempt: 1,
            steps: vec![
                step("reading the kubeconfig", Some("dev")),
                step("finding the agent", None),
            ],
        };
        let mut shown = 0;
        assert_eq!(
            new_lines(&view, &mut shown, Style::plain()),
            ["✓ reading the kubeconfig: dev"]
        );
        assert!(new_lines(&view, &mut shown, Style::plain()).is_empty());
        view.steps[1].done = Some(String::new());
        assert_eq!(
            new_lines(&view, &mut shown, Style::plain()),
            ["✓ finding the agent"]
        );
    }
}

//! What `millrace check` found: one line for each thing, good or bad, as text for people or JSON for machines.

use std::fmt;

use serde::Serialize;

use crate::config::ConfigErrors;

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The part that it belongs to, such as `kafka`.
    pub part: &'static str,
    /// How it is.
    pub state: State,
    /// What was looked at and, if it is bad, what to do.
    pub text: String,
}

/// How a thing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// As it should be.
    Good,
    /// `millrace run` would fail or do wrong.
    Bad,
    /// Not looked at, because something else is bad.
    Skipped,
}

/// The findings of one part, while they are collected.
#[derive(Debug)]
pub(super) struct Part {
    name: &'static str,
    findings: Vec<Finding>,
}

impl Part {
    pub(super) fn new(name: &'static str) -> Self {
        Self { name, findings: Vec::new() }
    }

    pub(super) fn good(&mut self, text: impl Into<String>) {
        self.push(State::Good, text.into());
    }

    pub(super) fn bad(&mut self, text: impl Into<String>) {
        self.push(State::Bad, text.into());
    }

    pub(super) fn skipped(&mut self, text: impl Into<String>) {
        self.push(State::Skipped, text.into());
    }

    /// Says of every finding where it was made.
    pub(super) fn placed(&mut self, place: &str) {
        self.findings.iter_mut().for_each(|finding| finding.text.insert_str(0, place));
    }

    /// What is bad.
    pub(super) fn problems(self) -> Vec<String> {
        let bad = self.findings.into_iter().filter(|finding| finding.state == State::Bad);
        bad.map(|finding| finding.text).collect()
    }

    #[cfg(test)]
    pub(super) fn states(&self) -> Vec<State> {
        self.findings.iter().map(|finding| finding.state).collect()
    }

    fn push(&mut self, state: State, text: String) {
        self.findings.push(Finding { part: self.name, state, text });
    }
}

/// Everything that was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// By part, in the order in which events pass them.
    pub findings: Vec<Finding>,
}

impl Report {
    pub(super) fn add(&mut self, part: Part) {
        self.findings.extend(part.findings);
    }

    /// How many things are bad.
    pub fn problems(&self) -> usize {
        self.findings.iter().filter(|finding| finding.state == State::Bad).count()
    }

    /// `{"ok":…,"problems":…,"findings":[{"part":…,"state":"good|bad|skipped","text":…}]}` in one line.
    pub fn to_json(&self) -> String {
        let json = serde_json::json!({
            "ok": self.problems() == 0,
            "problems": self.problems(),
            "findings": self.findings,
        });
        json.to_string()
    }
}

impl From<ConfigErrors> for Report {
    /// A configuration that cannot be used, one finding for each problem.
    fn from(errors: ConfigErrors) -> Self {
        let lines = errors.to_string();
        let mut part = Part::new("config");
        lines.lines().for_each(|line| part.bad(line));
        Self { findings: part.findings }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Finding { part, state, text } in &self.findings {
            let mark = match state {
                State::Good => '✓',
                State::Bad => '✗',
                State::Skipped => '–',
            };
            writeln!(f, "{mark} {part:<10} {text}")?;
        }
        match self.problems() {
            0 => writeln!(f, "No problems."),
            1 => writeln!(f, "1 problem."),
            problems => writeln!(f, "{problems} problems."),
        }
    }
}

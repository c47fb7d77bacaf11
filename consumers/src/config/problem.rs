//! What is wrong with a configuration, in words that say what to do. It reads nothing.

use std::{fmt, path::PathBuf};

/// One thing that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Line and column in the file, from 1; none if it concerns no place in it.
    pub at: Option<Position>,
    /// Path of the key, as in `topics[0].batch.max_rows`; empty if it concerns no key.
    pub key: String,
    /// What was found, what was expected and what to do.
    pub message: String,
}

/// A place in the configuration file; columns count characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// From 1.
    pub line: usize,
    /// From 1.
    pub column: usize,
}

/// Everything that is wrong with a configuration, in the order of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors {
    /// The file as it was named.
    pub file: PathBuf,
    /// At least one.
    pub problems: Vec<Problem>,
}

impl std::error::Error for ConfigErrors {}

impl fmt::Display for ConfigErrors {
    /// One line for each problem: `file:line:column: key: message`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{}:", self.file.display())?;
            if let Some(Position { line, column }) = problem.at {
                write!(f, "{line}:{column}:")?;
            }
            if !problem.key.is_empty() {
                write!(f, " {}:", problem.key)?;
            }
            write!(f, " {}", problem.message)?;
        }
        Ok(())
    }
}

/// `; did you mean "…"?` if one of the candidates is near enough to be a slip, else nothing.
pub(crate) fn did_you_mean<'a>(found: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    match nearest(found, candidates) {
        Some(name) => format!("; did you mean `{name}`?"),
        None => String::new(),
    }
}

/// The candidate that a slip of the fingers could have turned into `found`.
pub(crate) fn nearest<'a>(found: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let found = found.to_ascii_lowercase();
    candidates
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(&found, &name.to_ascii_lowercase()), name))
        .filter(|(distance, name)| *distance <= (name.chars().count() / 3).max(1))
        .min()
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_its_name_and_a_different_word_does_not() {
        let names = ["password", "password_file", "user"];
        assert_eq!(nearest("pasword", names), Some("password"));
        assert_eq!(nearest("passwrod_file", names), Some("password_file"));
        assert_eq!(nearest("database", names), None);
    }
}

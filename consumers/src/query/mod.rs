//! Named queries: SQL that is shipped with Millrace, with parameters that ClickHouse itself puts in. They read, and within
//! limits; whoever asks never sends SQL.

mod across;
mod answer;
mod ask;
mod parse;
mod text;
mod values;

use std::sync::LazyLock;

use serde::Serialize;

pub use self::{
    across::Everywhere,
    answer::{Answer, Column},
    ask::{AskError, Asker, Limits},
    parse::{ParseError, parse},
    text::{Format, list, render},
    values::{Given, ValueError, bind},
};
use crate::config;

/// A named query.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Query {
    /// Lower case, digits and `_`.
    pub name: String,
    /// What it answers, in a sentence or more.
    pub description: String,
    /// In the order of the file.
    pub parameters: Vec<Parameter>,
    /// What an answer looks like, as a table.
    pub example: String,
    /// One SELECT with `{name:Type}` where parameters belong; it names no database and no format.
    #[serde(skip)]
    pub sql: String,
    /// The same over every shard.
    #[serde(skip)]
    pub everywhere: Everywhere,
}

/// What a query can be told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Parameter {
    /// Lower case, digits and `_`.
    pub name: String,
    /// Its type in ClickHouse.
    #[serde(rename = "type")]
    pub kind: String,
    /// Taken if it is not given; without one it has to be.
    pub default: Option<String>,
    /// What it is.
    pub description: String,
}

static SHIPPED: LazyLock<Vec<Query>> = LazyLock::new(|| {
    // One that could not be read would fail the test of the shipped queries.
    millrace_schemas::QUERIES.iter().filter_map(|(name, text)| parse(name, text).ok()).collect()
});

/// The shipped queries, by name.
pub fn shipped() -> &'static [Query] {
    &SHIPPED
}

/// The shipped query of this name.
///
/// # Errors
/// There is none; in words, with the nearest name or with all.
pub fn named(name: &str) -> Result<&'static Query, String> {
    shipped().iter().find(|query| query.name == name).ok_or_else(|| {
        let names = || shipped().iter().map(|query| query.name.as_str());
        match config::did_you_mean(name, names()) {
            hint if hint.is_empty() => {
                format!("there is no query {name:?}; expected one of {}", names().collect::<Vec<_>>().join(", "))
            }
            hint => format!("there is no query {name:?}{hint}"),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_not_there_is_answered_with_the_nearest_or_with_all() {
        assert_eq!(named("funnel").unwrap().name, "funnel");
        assert!(named("funel").unwrap_err().contains("did you mean `funnel`"), "{}", named("funel").unwrap_err());
        let all = named("zzzzzzzz").unwrap_err();
        assert!(shipped().iter().all(|query| all.contains(&query.name)), "{all}");
        assert_eq!(shipped().len(), millrace_schemas::QUERIES.len());
    }
}

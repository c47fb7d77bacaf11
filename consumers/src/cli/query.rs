//! `millrace query`: its arguments, and what it prints.

use std::{path::PathBuf, time::Duration};

use anyhow::anyhow;
use clap::{Args, builder::PossibleValuesParser};

use super::{ConfigFile, Failure, duration, password_in, print, runtime};
use crate::{
    config::Config,
    query::{self, AskError, Asker, Format, Given, Limits},
};

/// Far more than a query that is shipped answers.
const LONGEST_ANSWER: usize = 256 << 20;
const THREADS: u8 = 8;

#[derive(Args)]
pub(super) struct QueryArguments {
    /// Which query; --list tells
    #[arg(value_name = "NAME", required_unless_present = "list")]
    name: Option<String>,
    /// Tell all queries, their parameters and what they answer
    #[arg(long, conflicts_with = "name")]
    list: bool,
    /// A parameter of the query
    #[arg(long = "param", value_name = "NAME=VALUE", value_parser = pair, conflicts_with = "list")]
    parameters: Vec<Given>,
    /// What is printed
    #[arg(long, value_name = "FORMAT", default_value = "table", value_parser = formats())]
    format: String,
    #[command(flatten)]
    config: ConfigFile,
    /// ClickHouse user with the right to read, instead of the configuration's
    #[arg(long, requires = "password_file")]
    user: Option<String>,
    /// File with that user's password
    #[arg(long, value_name = "FILE", requires = "user")]
    password_file: Option<PathBuf>,
    /// Longest time for the query, with its unit
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    timeout: Duration,
    /// Most rows of the answer; a longer one is an error
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    max_rows: u64,
}

impl QueryArguments {
    pub(super) fn execute(self) -> Result<(), Failure> {
        let name = match self.name {
            Some(name) if !self.list => name,
            _ => return Ok(print(&query::list(query::shipped()))?),
        };
        let query = query::named(&name).map_err(Failure::Usage)?;
        let values = query::bind(query, &self.parameters).map_err(|error| Failure::Usage(error.to_string()))?;
        let format = Format::NAMES.iter().find(|(name, _)| *name == self.format);
        let format = format.map_or(Format::Table, |(_, format)| *format);
        let mut settings = Config::load(&self.config.path)?.clickhouse;
        if let (Some(user), Some(file)) = (self.user, self.password_file) {
            settings.user = user;
            settings.password = Some(password_in(&file)?);
        }
        let limits = Limits { time: self.timeout, rows: self.max_rows, bytes: LONGEST_ANSWER, threads: THREADS };
        let asker = Asker::new(&settings, limits)?;
        let answer = runtime()?.block_on(asker.ask(query, &values)).map_err(|error| match error {
            AskError::Apart(_) => Failure::Usage(format!("query {name}: {error}")),
            error => Failure::Failed(anyhow!("query {name}: {error}")),
        })?;
        Ok(print(&query::render(&answer, format))?)
    }
}

fn pair(text: &str) -> Result<Given, String> {
    let (name, value) = text.split_once('=').ok_or_else(|| "expected NAME=VALUE, such as minutes=30".to_owned())?;
    Ok((name.to_owned(), value.to_owned()))
}

fn formats() -> PossibleValuesParser {
    PossibleValuesParser::new(Format::NAMES.iter().map(|(name, _)| *name))
}

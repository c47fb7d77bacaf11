//! The command line of `millrace dead`.

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use anyhow::anyhow;
use clap::{Args, Subcommand, builder::PossibleValuesParser};
use millrace_pipeline::reason::Reason;

use super::{ConfigFile, Failure, duration, print, replay::LetterReplay, runtime, section, sections};
use crate::{
    bound::Bound,
    config::Config,
    dead::{DeadLetterReader, filter::Filter, letter::Place, list::List, show},
    time::now_ms,
};

#[derive(Subcommand)]
pub(super) enum DeadCommand {
    /// List dead letters, and count them by reason
    List {
        #[command(flatten)]
        config: ConfigFile,
        /// Only of this topic of events; default: of every topic
        #[arg(long, value_name = "NAME")]
        topic: Option<String>,
        #[command(flatten)]
        filter: FilterArguments,
        /// Letters to list of each topic; all are counted
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: usize,
        /// Longest silence of a server, with its unit
        #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
        timeout: Duration,
        /// A line of JSON for each letter and one for the sums, instead of text
        #[arg(long)]
        json: bool,
    },
    /// Show one dead letter: its headers, its key, and its value decoded as far as it goes
    Show {
        #[command(flatten)]
        config: ConfigFile,
        /// Its topic of events; needed if there are several
        #[arg(long, value_name = "NAME")]
        topic: Option<String>,
        /// The section of the topic that writes this table, where several share a topic
        #[arg(long, value_name = "NAME")]
        table: Option<String>,
        /// Where it lies in the dead-letter topic
        #[arg(value_name = "PARTITION:OFFSET", value_parser = place)]
        place: (i32, i64),
        /// PARTITION:OFFSET is where the event lies in its own topic, whether it is dead-lettered or not
        #[arg(long)]
        source: bool,
        /// Longest silence of a server, with its unit
        #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
        timeout: Duration,
        /// One line of JSON instead of text
        #[arg(long)]
        json: bool,
    },
    /// Land the dead letters that can be read by now, by a newer schema or mapping, exactly once. The dead-letter topic is
    /// not altered
    Replay(LetterReplay),
}

/// Which dead letters are meant.
#[derive(Args)]
pub(super) struct FilterArguments {
    /// Only of this reason; may be given more than once
    #[arg(long, value_name = "REASON", value_parser = reasons(), hide_possible_values = true)]
    reason: Vec<String>,
    /// Only written with the schema of this id; may be given more than once
    #[arg(long, value_name = "ID")]
    schema_id: Vec<u32>,
    /// Only from this partition of the source
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    partition: Option<i32>,
    /// First offset of the source or, by its Kafka timestamp, time (2026-01-31T12:00:00Z, 2026-01-31) or age (2h)
    #[arg(long, value_name = "OFFSET|TIME", value_parser = bound)]
    from: Option<Bound>,
    /// To stop before, the same
    #[arg(long, value_name = "OFFSET|TIME", value_parser = bound)]
    to: Option<Bound>,
}

impl FilterArguments {
    pub(super) fn filter(self) -> Filter {
        let reasons = Reason::ALL.into_iter().filter(|reason| self.reason.iter().any(|code| code == reason.code()));
        Filter {
            reasons: reasons.collect(),
            schema_ids: self.schema_id,
            partition: self.partition,
            from: self.from,
            to: self.to,
        }
    }
}

impl DeadCommand {
    pub(super) fn execute(self) -> Result<(), Failure> {
        match self {
            Self::List { config, topic, filter, limit, timeout, json } => {
                list(&config.path, topic.as_deref(), &filter.filter(), limit, timeout, json)
            }
            Self::Show { config, topic, table, place, source, timeout, json } => {
                let meant = (topic.as_deref(), table.as_deref());
                show(&config.path, meant, place, source, timeout, json)
            }
            Self::Replay(letters) => letters.run(),
        }
    }
}

fn list(
    path: &Path,
    topic: Option<&str>,
    filter: &Filter,
    limit: usize,
    timeout: Duration,
    json: bool,
) -> Result<(), Failure> {
    let config = Config::load(path)?;
    let mut topics = sections(&config, topic, path)?;
    // Sections of one topic may share that of their dead letters.
    let mut seen = BTreeSet::new();
    topics.retain(|topic| seen.insert(&topic.dead_letter_topic));
    let reader = reader(&config, timeout);
    let runtime = runtime()?;
    let progress = reader.progress();
    let telling = runtime.spawn(async move { progress.tell().await });
    let lists = topics.iter().map(|topic| {
        let mut list = List::new(&topic.spec.topic, &topic.dead_letter_topic, limit);
        reader.read(topic, filter, |letter| {
            list.add(letter);
            Ok(())
        })?;
        Ok(list)
    });
    let lists = lists.collect::<anyhow::Result<Vec<List>>>();
    // What it told last is wiped before anything else is said.
    telling.abort();
    _ = runtime.block_on(telling);
    for list in lists? {
        print(&if json { list.to_json() } else { list.to_string() })?;
    }
    Ok(())
}

fn show(
    path: &Path,
    (topic, table): (Option<&str>, Option<&str>),
    (partition, offset): (i32, i64),
    source: bool,
    timeout: Duration,
    json: bool,
) -> Result<(), Failure> {
    let config = Config::load(path)?;
    let topic = section(&config, topic, table, path)?;
    let letter = show::find(&reader(&config, timeout), topic, partition, offset, source)?;
    let name = if source { &topic.spec.topic } else { &topic.dead_letter_topic };
    let place = Place { topic: name.clone(), partition, offset };
    let runtime = runtime()?;
    let shown = runtime.block_on(show::explain(&config, topic, place, letter));
    print(&if json { format!("{}\n", shown.to_json()) } else { shown.to_string() })?;
    Ok(())
}

fn reader(config: &Config, timeout: Duration) -> DeadLetterReader {
    // It writes nothing, so a signal may end it wherever it is.
    DeadLetterReader::new(config, timeout, Arc::new(AtomicBool::new(false)))
}

fn reasons() -> PossibleValuesParser {
    PossibleValuesParser::new(Reason::ALL.map(Reason::code))
}

pub(super) fn bound(text: &str) -> Result<Bound, String> {
    Bound::parse(text, now_ms()).ok_or_else(|| {
        "expected an offset such as 1200, a time such as 2026-01-31T12:00:00Z or 2026-01-31, or an age such as 2h"
            .to_owned()
    })
}

fn place(text: &str) -> anyhow::Result<(i32, i64)> {
    let place = || {
        let (partition, offset) = text.split_once(':')?;
        let place: (i32, i64) = (partition.parse().ok()?, offset.parse().ok()?);
        (place.0 >= 0 && place.1 >= 0).then_some(place)
    };
    place().ok_or_else(|| anyhow!("expected a partition and an offset, as in 0:1234"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_partition_and_an_offset() {
        assert_eq!(place("3:1234").unwrap(), (3, 1234));
        for text in ["", "3", "3:", ":4", "-1:4", "3:-4", "a:b", "3:4:5"] {
            assert!(place(text).is_err(), "{text}");
        }
    }
}

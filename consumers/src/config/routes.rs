//! The keys `record` and `other_records`: several sections that share a topic, one for each type of its events.

use std::collections::BTreeSet;

use millrace_pipeline::spec::{Others, RouteSpec};
use toml::de::DeValue;

use super::{
    Topic,
    reader::{Found, Section, choice, parsed},
};

/// What one section says of the records that it is for.
pub(super) struct Raw {
    record: Found<String>,
    others: Option<Found<Others>>,
}

/// The keys of one section; the inner `None` if it is for all records of its topic.
pub(super) fn read(section: &mut Section<'_, '_>) -> Option<Option<Raw>> {
    let record = section.optional("record", record_name);
    let others = [("dead_letter", Others::DeadLetter), ("ignore", Others::Ignore)];
    let others = section.optional("other_records", choice(&others));
    match (record?, others?) {
        (Some(record), others) => Some(Some(Raw { record, others })),
        (None, None) => Some(None),
        (None, Some(others)) => {
            section.report(others.at, "other_records", "not used without `record`: the section is for all records");
            None
        }
    }
}

/// Tells each section of a topic that several share about the others.
pub(super) fn complete(root: &Section<'_, '_>, topics: Vec<(Topic, Option<Raw>)>) -> Option<Vec<Topic>> {
    let mut right = true;
    let mut complain = |at: &Found<String>, key: &str, message: String| {
        right = false;
        root.report(at.at.clone(), key, message);
    };
    let routed: Vec<(&str, &Raw)> =
        topics.iter().filter_map(|(topic, raw)| Some((topic.spec.topic.as_str(), raw.as_ref()?))).collect();
    let names: BTreeSet<&str> = routed.iter().map(|(name, _)| *name).collect();
    for name in names {
        let sections: Vec<&Raw> = routed.iter().filter(|(topic, _)| *topic == name).map(|(_, raw)| *raw).collect();
        for (at, raw) in sections.iter().enumerate() {
            let record = &raw.record;
            if sections[..at].iter().any(|other| other.record.value == record.value) {
                let message =
                    format!("records named {:?} of topic {name:?} have a section above; expected one", record.value);
                complain(record, "topics", message);
            }
        }
        let seers = sections.iter().filter(|raw| raw.others.is_some()).count();
        if seers != 1 {
            let message = format!(
                "{seers} of the {} sections of topic {name:?} have `other_records`; expected exactly one, which sees to the records that no section is for and to those that are no events",
                sections.len()
            );
            complain(&sections[0].record, "topics", message);
        }
    }
    let records: Vec<(String, String)> =
        routed.iter().map(|(topic, raw)| ((*topic).to_owned(), raw.record.value.clone())).collect();
    let complete = |(mut topic, raw): (Topic, Option<Raw>)| {
        topic.spec.route = raw.map(|Raw { record: Found { value: record, .. }, others }| {
            let others = others.map_or(Others::Elsewhere, |others| others.value);
            let elsewhere = records.iter().filter(|(other, name)| *other == topic.spec.topic && *name != record);
            RouteSpec { elsewhere: elsewhere.map(|(_, name)| name.clone()).collect(), record, others }
        });
        topic
    };
    right.then(|| topics.into_iter().map(complete).collect())
}

fn record_name(value: &DeValue<'_>) -> Result<String, String> {
    let word = |word: &str| {
        let first = word.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        first && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    let full = |text: &str| text.split('.').all(word).then(|| text.to_owned());
    parsed("the full name of an Avro record, such as \"com.example.Refund\"", full)(value)
}

//! Replays dead letters: the originals of those that a filter lets through, under the coordinates of their source.

use std::collections::BTreeSet;

use anyhow::Result;
use millrace_pipeline::record::Record;
use rdkafka::Message;
use tokio::task::block_in_place;

use super::{gather::Gather, table::Ids};
use crate::{
    audit::{kafka::Reader, progress::Progress},
    config::Topic,
    dead::{
        filter::Filter,
        letter::{Letter, Place},
    },
};

/// Replays what the dead-letter topic holds now. The topic is read and never altered: which letters have been replayed is
/// known by the rows.
///
/// # Errors
/// A server fails; told to stop.
pub(super) async fn replay(
    reader: &Reader,
    gather: &mut Gather,
    topic: &Topic,
    filter: &Filter,
    progress: &Progress,
    notes: &mut Vec<String>,
) -> Result<()> {
    let letters = &topic.dead_letter_topic;
    let whole = block_in_place(|| reader.extents(letters))?;
    let what = format!("{letters}: dead letters looked at");
    progress.begin(&*what, Some(whole.iter().map(|(_, low, high)| high.abs_diff(*low)).sum()));
    // At-least-once: a record may have several.
    let mut seen: BTreeSet<(i32, i64)> = BTreeSet::new();
    let (mut repeated, mut others) = (0u64, 0u64);
    let nothing = Ids::none();
    block_in_place(|| {
        reader.read(letters, &whole, |messages| {
            let mut records = Vec::with_capacity(messages.len());
            for message in messages {
                let name = &topic.spec.topic;
                let letter = Letter::of(message);
                let meant = filter.admits(name, &letter);
                let Some(source) = letter.source.filter(|source| meant && source.topic == *name) else {
                    others += 1;
                    continue;
                };
                let Place { partition, offset, .. } = source;
                let timestamp_ms = letter.source_timestamp_ms.unwrap_or(0);
                if seen.insert((partition, offset)) {
                    records.push(Record { partition, offset, timestamp_ms, value: message.payload() });
                } else {
                    repeated += 1;
                }
            }
            gather.offer(&records, &nothing)?;
            progress.add(messages.len() as u64);
            progress.say(&*what);
            Ok(())
        })
    })?;
    gather.finish().await?;
    if others > 0 {
        notes.push(format!("{others} other letters of {letters} were left out by the filter, or are of another topic"));
    }
    if repeated > 0 {
        notes.push(format!("{repeated} letters of {letters} are of a record that has an earlier letter"));
    }
    Ok(())
}

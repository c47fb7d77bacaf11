//! Replays dead letters: the originals of those that a filter lets through, under the coordinates of their source.

use std::collections::BTreeSet;

use anyhow::Result;
use millrace_pipeline::record::Record;
use rdkafka::{Message, message::BorrowedMessage};
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
            let mut records: Vec<Record<'_>> =
                messages.iter().filter_map(|message| original(message, &topic.spec.topic, filter)).collect();
            gather.learn(&records)?;
            records.retain(|record| !gather.pipeline.decoder().passes_over(record.value));
            others += (messages.len() - records.len()) as u64;
            let meant = records.len();
            records.retain(|record| seen.insert((record.partition, record.offset)));
            repeated += (meant - records.len()) as u64;
            gather.offer(&records, &nothing)?;
            progress.add(messages.len() as u64);
            progress.say(&*what);
            Ok(())
        })
    })?;
    gather.finish().await?;
    if others > 0 {
        notes.push(format!(
            "{others} other letters of {letters} were left out by the filter, or are of another topic or section"
        ));
    }
    if repeated > 0 {
        notes.push(format!("{repeated} letters of {letters} are of a record that has an earlier letter"));
    }
    Ok(())
}

/// The record of `topic` that was dead-lettered, if the filter means the letter.
fn original<'m>(message: &'m BorrowedMessage<'_>, topic: &str, filter: &Filter) -> Option<Record<'m>> {
    let letter = Letter::of(message);
    let meant = filter.admits(topic, &letter);
    let Place { partition, offset, .. } = letter.source.filter(|source| meant && source.topic == topic)?;
    let timestamp_ms = letter.source_timestamp_ms.unwrap_or(0);
    Some(Record { partition, offset, timestamp_ms, value: message.payload() })
}

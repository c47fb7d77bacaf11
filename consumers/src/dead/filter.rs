//! Which dead letters are meant: by reason, schema, and where and when the event was published. Pure.

use millrace_pipeline::reason::Reason;

use super::letter::Letter;
use crate::bound::Bound;

/// Which dead letters are meant; an empty filter means all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// With one of these reasons; with any if none is named.
    pub reasons: Vec<Reason>,
    /// With one of these writer-schema ids; with any or none if none is named.
    pub schema_ids: Vec<u32>,
    /// From this partition of the source.
    pub partition: Option<i32>,
    /// Not before it.
    pub from: Option<Bound>,
    /// Before it.
    pub to: Option<Bound>,
}

impl Filter {
    /// Whether a letter is meant, of those of `topic`.
    pub fn admits(&self, topic: &str, letter: &Letter) -> bool {
        let reason = self.reasons.is_empty() || self.reasons.iter().any(|reason| reason.code() == letter.reason);
        let schema = self.schema_ids.is_empty() || letter.schema_id.is_some_and(|id| self.schema_ids.contains(&id));
        let Some(source) = letter.source.as_ref().filter(|source| source.topic == topic) else {
            // Of another topic, or not written by Millrace: shown, unless something particular is looked for.
            return *self == Self::default();
        };
        let partition = self.partition.is_none_or(|partition| partition == source.partition);
        let is_before = |bound: Bound| match bound {
            Bound::Offset(offset) => source.offset < offset,
            Bound::Time(time_ms) => letter.source_timestamp_ms.unwrap_or(0) < time_ms,
        };
        reason && schema && partition && !self.from.is_some_and(is_before) && self.to.is_none_or(is_before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dead::letter::Place;

    fn letter() -> Letter {
        Letter {
            source: Some(Place { topic: "orders".into(), partition: 1, offset: 15 }),
            source_timestamp_ms: Some(1_000),
            reason: "truncated".into(),
            schema_id: Some(7),
            ..Letter::default()
        }
    }

    #[test]
    fn a_letter_is_meant_if_it_is_so_by_every_part_of_the_filter() {
        let all = Filter::default();
        assert!(all.admits("payments", &letter()) && all.admits("orders", &Letter::default()));
        let cases = [
            (Filter { reasons: vec![Reason::BadMagic, Reason::Truncated], ..all.clone() }, true),
            (Filter { reasons: vec![Reason::BadMagic], ..all.clone() }, false),
            (Filter { schema_ids: vec![7], ..all.clone() }, true),
            (Filter { schema_ids: vec![8], ..all.clone() }, false),
            (Filter { partition: Some(1), ..all.clone() }, true),
            (Filter { partition: Some(0), ..all.clone() }, false),
            (Filter { from: Some(Bound::Offset(15)), to: Some(Bound::Offset(16)), ..all.clone() }, true),
            (Filter { from: Some(Bound::Offset(16)), ..all.clone() }, false),
            (Filter { to: Some(Bound::Offset(15)), ..all.clone() }, false),
            (Filter { from: Some(Bound::Time(1_000)), to: Some(Bound::Time(1_001)), ..all.clone() }, true),
            (Filter { from: Some(Bound::Time(1_001)), ..all.clone() }, false),
            (Filter { to: Some(Bound::Time(1_000)), schema_ids: vec![7], ..all.clone() }, false),
        ];
        for (filter, meant) in cases {
            assert_eq!(filter.admits("orders", &letter()), meant, "{filter:?}");
        }
        let foreign = Letter::default();
        let first = Filter { partition: Some(1), ..all.clone() };
        assert!(!first.admits("orders", &foreign) && !first.admits("payments", &letter()));
        assert!(!Filter { schema_ids: vec![7], ..all }.admits("orders", &Letter { schema_id: None, ..letter() }));
    }
}

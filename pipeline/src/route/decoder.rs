//! The decoder of one section: of a topic that carries several types of event it decodes the section's own, of any other
//! topic everything.

use arrow_schema::SchemaRef;

use super::{Router, Way};
use crate::{
    decode::{DecodeLimits, Decoded, Decoder, ReaderSchemaError},
    record::Record,
    spec::RouteSpec,
};

/// Decodes the records that are one section's own.
#[derive(Debug)]
pub struct RoutedDecoder {
    /// Where the topic carries several types of event.
    router: Option<Router>,
    decoder: Decoder,
}

/// A chunk of records, of which those that are the section's own are decoded.
#[derive(Debug)]
pub struct Routed {
    /// The section's own, and among what was rejected those that no section is for, if this one sees to them; positions are
    /// those in the slice given.
    pub decoded: Decoded,
    /// Positions of the others; ascending.
    pub passed_over: Vec<u32>,
}

impl RoutedDecoder {
    /// A decoder into the columns of `reader_schema` (Avro JSON, a record) for the section of `route`; without one, for all
    /// records.
    ///
    /// # Errors
    /// As [`Decoder::new`].
    pub fn new(reader_schema: &str, route: Option<RouteSpec>, limits: DecodeLimits) -> Result<Self, ReaderSchemaError> {
        Ok(Self { router: route.map(Router::new), decoder: Decoder::new(reader_schema, limits)? })
    }

    /// Arrow schema of the decoded rows.
    pub fn columns(&self) -> &SchemaRef {
        self.decoder.columns()
    }

    /// Whether records of this writer-schema id can be given to [`RoutedDecoder::decode`].
    pub fn knows(&self, schema_id: u32) -> bool {
        self.decoder.knows(schema_id) || self.router.as_ref().is_some_and(|router| router.knows(schema_id))
    }

    /// Takes the writer's schema of an id, as [`Decoder::learn`].
    pub fn learn(&mut self, schema_id: u32, writer_schema: &str) {
        if self.router.as_mut().is_none_or(|router| router.learn(schema_id, writer_schema)) {
            self.decoder.learn(schema_id, writer_schema);
        }
    }

    /// Notes that the registry has no schema of this id, as [`Decoder::learn_absent`].
    pub fn learn_absent(&mut self, schema_id: u32) {
        self.decoder.learn_absent(schema_id);
    }

    /// Forgets the ids whose records are refused, so that the registry is asked again.
    pub fn forget_refused(&mut self) {
        self.decoder.forget_refused();
    }

    /// Whether a record of this value is passed over: by a section only, never where all records are its own. What is asked
    /// of [`RoutedDecoder::knows`] holds here, too.
    pub fn passes_over(&self, value: Option<&[u8]>) -> bool {
        self.router.as_ref().is_some_and(|router| router.way(value) == Way::PassedOver)
    }

    /// Decodes the section's own records of a chunk, as [`Decoder::decode`].
    pub fn decode(&mut self, records: &[Record<'_>]) -> Routed {
        let Some(router) = &self.router else {
            return Routed { decoded: self.decoder.decode(records), passed_over: Vec::new() };
        };
        let (mut own, mut positions) = (Vec::new(), Vec::new());
        let (mut passed_over, mut unexpected) = (Vec::new(), Vec::new());
        for (position, record) in (0u32..).zip(records) {
            match router.way(record.value) {
                Way::Own => {
                    own.push(*record);
                    positions.push(position);
                }
                Way::PassedOver => passed_over.push(position),
                Way::Unexpected(rejection) => unexpected.push((position, rejection)),
            }
        }
        let mut decoded = self.decoder.decode(&own);
        for position in &mut decoded.origin {
            *position = positions[*position as usize];
        }
        for (position, _) in &mut decoded.rejected {
            *position = positions[*position as usize];
        }
        decoded.rejected.append(&mut unexpected);
        decoded.rejected.sort_by_key(|(position, _)| *position);
        Routed { decoded, passed_over }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{reason::Reason, spec::Others};

    const CHARGE: &str = r#"{"type": "record", "name": "Charge", "fields": [{"name": "cents", "type": "long"}]}"#;
    const REFUND: &str = r#"{"type": "record", "name": "Refund", "fields": [{"name": "cents", "type": "long"}]}"#;
    const VOUCHER: &str = r#"{"type": "record", "name": "Voucher", "fields": []}"#;

    fn decoder(route: Option<RouteSpec>) -> RoutedDecoder {
        let mut decoder = RoutedDecoder::new(CHARGE, route, DecodeLimits::default()).unwrap();
        let union = format!("[{VOUCHER}, {REFUND}, {CHARGE}]");
        for (id, schema) in [(1, CHARGE), (2, REFUND), (3, VOUCHER), (4, &*union)] {
            assert!(!decoder.knows(id));
            decoder.learn(id, schema);
            assert!(decoder.knows(id), "{schema}");
        }
        decoder
    }

    fn charges(others: Others) -> RoutedDecoder {
        decoder(Some(RouteSpec { record: "Charge".to_owned(), elsewhere: vec!["Refund".to_owned()], others }))
    }

    /// A refund, a charge, a voucher, one of each in a union, a charge that breaks off, and what is no event.
    const VALUES: [&[u8]; 8] = [
        &[0, 0, 0, 0, 2, 2],
        &[0, 0, 0, 0, 1, 2],
        &[0, 0, 0, 0, 3],
        &[0, 0, 0, 0, 4, 4, 6],
        &[0, 0, 0, 0, 4, 2, 2],
        &[0, 0, 0, 0, 4, 0],
        &[0, 0, 0, 0, 1],
        b"{}",
    ];

    fn routed(decoder: &mut RoutedDecoder) -> (Vec<u32>, Vec<(u32, Reason)>, Vec<u32>) {
        let records = VALUES.map(|value| Record { partition: 0, offset: 0, timestamp_ms: 0, value: Some(value) });
        let Routed { decoded, passed_over } = decoder.decode(&records);
        for (position, value) in (0..).zip(VALUES) {
            assert_eq!(decoder.passes_over(Some(value)), passed_over.contains(&position), "{value:?}");
        }
        assert_eq!(decoded.rows.num_rows(), decoded.origin.len());
        let rejected = decoded.rejected.into_iter().map(|(position, rejection)| (position, rejection.reason));
        (decoded.origin, rejected.collect(), passed_over)
    }

    #[test]
    fn positions_are_those_of_all_records_and_each_record_is_a_row_a_rejection_or_passed_over() {
        use Reason::{BadMagic, Truncated, UnexpectedRecord};
        let unexpected = vec![(2, UnexpectedRecord), (5, UnexpectedRecord), (6, Truncated), (7, BadMagic)];
        assert_eq!(routed(&mut charges(Others::DeadLetter)), (vec![1, 3], unexpected, vec![0, 4]));
        let broken = vec![(6, Truncated), (7, BadMagic)];
        assert_eq!(routed(&mut charges(Others::Ignore)), (vec![1, 3], broken, vec![0, 2, 4, 5]));
        assert_eq!(routed(&mut charges(Others::Elsewhere)), (vec![1, 3], vec![(6, Truncated)], vec![0, 2, 4, 5, 7]));
    }

    #[test]
    fn without_a_route_every_record_is_the_sections_own() {
        let (rows, rejected, passed_over) = routed(&mut decoder(None));
        assert!(passed_over.is_empty());
        assert_eq!(rows.len() + rejected.len(), VALUES.len());
        assert!(rejected.iter().all(|(_, reason)| *reason != Reason::UnexpectedRecord), "{rejected:?}");
    }

    #[test]
    fn an_id_that_the_registry_lacks_is_told_by_one_section_and_asked_for_again() {
        for (others, told) in [(Others::DeadLetter, 1), (Others::Elsewhere, 0)] {
            let mut decoder = charges(others);
            decoder.learn_absent(9);
            assert!(decoder.knows(9));
            let value: Option<&[u8]> = Some(&[0, 0, 0, 0, 9, 0]);
            let Routed { decoded, .. } = decoder.decode(&[Record { partition: 0, offset: 0, timestamp_ms: 0, value }]);
            assert_eq!((decoded.rejected.len(), decoder.passes_over(value)), (told, told == 0));
            decoder.forget_refused();
            assert!(!decoder.knows(9) && decoder.knows(2), "what can be told apart stays known");
        }
    }
}

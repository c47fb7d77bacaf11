//! Confluent-framed Avro datums into columns: one columnar decoder per writer-schema id, one reader schema for all.
//!
//! It never talks to the registry: an id that it does not know is the caller's to [`Decoder::learn`] first.

use std::collections::HashMap;

use arrow_array::RecordBatch;
use arrow_avro::{
    reader::{Decoder as ColumnDecoder, DecoderMode, ReaderBuilder},
    schema::{AvroSchema, Fingerprint, FingerprintAlgorithm, SchemaStore},
};
use arrow_schema::SchemaRef;

use crate::{
    reason::{Reason, Rejection},
    record::Record,
    validate::Plan,
    wire,
};

/// Limits that keep a hostile record from costing more than its bytes.
#[derive(Clone, Copy, Debug)]
pub struct DecodeLimits {
    /// Longest value in bytes.
    pub max_value_bytes: usize,
    /// Most array items and map entries in one datum.
    pub max_items: u64,
}

impl Default for DecodeLimits {
    fn default() -> Self {
        // Kafka's own default for the largest record is 1 MiB; ten times that is a topic set up for large ones.
        Self { max_value_bytes: 10 << 20, max_items: 1 << 20 }
    }
}

/// Decodes one topic.
#[derive(Debug)]
pub struct Decoder {
    reader_schema: String,
    columns: SchemaRef,
    limits: DecodeLimits,
    writers: HashMap<u32, Writer>,
}

#[derive(Debug)]
enum Writer {
    Known(Box<KnownWriter>),
    /// Every event of this id is refused, with this reason.
    Refused(Rejection),
}

#[derive(Debug)]
struct KnownWriter {
    id: u32,
    schema: String,
    plan: Plan,
    decoder: ColumnDecoder,
    /// Rows held by `decoder`: positions in the slice of records at hand.
    origin: Vec<u32>,
}

/// Why a schema cannot be used as the reader's.
#[derive(Debug, thiserror::Error)]
#[error("the reader schema cannot be decoded into columns: {0}")]
pub struct ReaderSchemaError(String);

/// A chunk of records as columns.
#[derive(Debug)]
pub struct Decoded {
    /// Columns of the reader schema; one row per readable record.
    pub rows: RecordBatch,
    /// For each row the position of its record in the slice given.
    pub origin: Vec<u32>,
    /// What could not be read, with its position.
    pub rejected: Vec<(u32, Rejection)>,
}

impl Decoder {
    /// A decoder whose rows have the columns of `reader_schema` (Avro JSON, a record).
    ///
    /// # Errors
    /// When the schema is no Avro record or has a type without a column.
    pub fn new(reader_schema: &str, limits: DecodeLimits) -> Result<Self, ReaderSchemaError> {
        Plan::compile(reader_schema, limits.max_items).map_err(|error| ReaderSchemaError(error.to_string()))?;
        let columns = column_decoder(0, reader_schema, reader_schema).map_err(ReaderSchemaError)?.schema();
        Ok(Self { reader_schema: reader_schema.to_owned(), columns, limits, writers: HashMap::new() })
    }

    /// Arrow schema of the decoded rows.
    pub fn columns(&self) -> &SchemaRef {
        &self.columns
    }

    /// Whether records of this writer-schema id can be given to [`Decoder::decode`].
    pub fn knows(&self, schema_id: u32) -> bool {
        self.writers.contains_key(&schema_id)
    }

    /// Takes the writer's schema of an id. One that cannot be read into the reader's schema makes every record of
    /// that id a rejection, not an error here.
    pub fn learn(&mut self, schema_id: u32, writer_schema: &str) {
        let writer = KnownWriter::new(schema_id, writer_schema, &self.reader_schema, self.limits)
            .map_or_else(Writer::Refused, |writer| Writer::Known(Box::new(writer)));
        self.writers.insert(schema_id, writer);
    }

    /// Notes that the registry has no schema of this id: its records are rejected until [`Decoder::forget_refused`].
    pub fn learn_absent(&mut self, schema_id: u32) {
        let detail = format!("the registry has no schema with id {schema_id}");
        self.writers.insert(schema_id, Writer::Refused(Rejection::new(Reason::UnknownSchemaId, detail)));
    }

    /// Forgets the ids that are refused, so that the registry is asked again.
    pub fn forget_refused(&mut self) {
        self.writers.retain(|_, writer| matches!(writer, Writer::Known(_)));
    }

    /// Decodes a chunk. Every record ends up as one row or as one rejection. Records of an id that is not known yet
    /// are rejected with [`Reason::UnknownSchemaId`]: ask [`Decoder::knows`] first.
    pub fn decode(&mut self, records: &[Record<'_>]) -> Decoded {
        let mut pieces = Vec::new();
        let mut rejected = Vec::new();
        for (at, record) in (0u32..).zip(records) {
            if let Err(rejection) = self.decode_one(at, record, records, &mut pieces) {
                rejected.push((at, rejection));
            }
        }
        for writer in self.writers.values_mut() {
            if let Writer::Known(writer) = writer {
                writer.flush(&self.reader_schema, records, &mut pieces, &mut rejected);
            }
        }
        join(&self.columns, pieces, rejected)
    }

    fn decode_one(
        &mut self,
        at: u32,
        record: &Record<'_>,
        records: &[Record<'_>],
        pieces: &mut Vec<Piece>,
    ) -> Result<(), Rejection> {
        let len = record.value.map_or(0, <[u8]>::len);
        if len > self.limits.max_value_bytes {
            let limit = self.limits.max_value_bytes;
            return Err(Rejection::new(Reason::TooLarge, format!("the value has {len} bytes, the limit is {limit}")));
        }
        let (id, datum) = wire::split(record.value)?;
        match self.writers.get_mut(&id) {
            Some(Writer::Known(writer)) => writer.decode_one(at, datum, &self.reader_schema, records, pieces),
            Some(Writer::Refused(rejection)) => Err(rejection.clone()),
            None => Err(Rejection::new(Reason::UnknownSchemaId, format!("schema id {id} was not asked for"))),
        }
    }
}

struct Piece {
    rows: RecordBatch,
    origin: Vec<u32>,
}

impl KnownWriter {
    fn new(id: u32, schema: &str, reader_schema: &str, limits: DecodeLimits) -> Result<Self, Rejection> {
        let refuse = |why: String| Rejection::new(Reason::Unreadable, format!("schema id {id}: {why}"));
        let plan = Plan::compile(schema, limits.max_items).map_err(|error| refuse(error.to_string()))?;
        let decoder = column_decoder(id, schema, reader_schema).map_err(refuse)?;
        Ok(Self { id, schema: schema.to_owned(), plan, decoder, origin: Vec::new() })
    }

    fn decode_one(
        &mut self,
        at: u32,
        datum: &[u8],
        reader_schema: &str,
        records: &[Record<'_>],
        pieces: &mut Vec<Piece>,
    ) -> Result<(), Rejection> {
        self.plan.validate(datum)?;
        match self.decoder.decode(datum) {
            Ok(consumed) if consumed == datum.len() => {
                self.origin.push(at);
                Ok(())
            }
            outcome => {
                // A valid datum of the writer's schema that has no place in the reader's. The decoder may hold half a
                // row now: build it again and give it the rows that it held, each a second time and never a third.
                let why = match outcome {
                    Ok(consumed) => format!("{consumed} of {} bytes were decoded", datum.len()),
                    Err(error) => error.to_string(),
                };
                self.rebuild(reader_schema, records, pieces);
                Err(Rejection::new(Reason::Unreadable, format!("it does not resolve to the reader schema: {why}")))
            }
        }
    }

    /// Replaces the decoder, keeping the rows it held as a piece of their own.
    fn rebuild(&mut self, reader_schema: &str, records: &[Record<'_>], pieces: &mut Vec<Piece>) {
        let origin = std::mem::take(&mut self.origin);
        for singles in [false, true] {
            let Ok(fresh) = column_decoder(self.id, &self.schema, reader_schema) else { return };
            self.decoder = fresh;
            if singles || origin.is_empty() {
                return;
            }
            for at in &origin {
                let datum = wire::split(records[*at as usize].value).map_or(&[][..], |(_, datum)| datum);
                if self.decoder.decode(datum).is_err() {
                    break;
                }
            }
            if let Ok(Some(rows)) = self.decoder.flush()
                && rows.num_rows() == origin.len()
            {
                pieces.push(Piece { rows, origin });
                return;
            }
        }
    }

    fn flush(
        &mut self,
        reader_schema: &str,
        records: &[Record<'_>],
        pieces: &mut Vec<Piece>,
        rejected: &mut Vec<(u32, Rejection)>,
    ) {
        if self.origin.is_empty() {
            return;
        }
        match self.decoder.flush() {
            Ok(Some(rows)) if rows.num_rows() == self.origin.len() => {
                pieces.push(Piece { rows, origin: std::mem::take(&mut self.origin) });
            }
            _ => self.decode_singly(reader_schema, records, pieces, rejected),
        }
    }

    /// The columns do not close although each datum was valid: find the rows that are to blame one by one.
    fn decode_singly(
        &mut self,
        reader_schema: &str,
        records: &[Record<'_>],
        pieces: &mut Vec<Piece>,
        rejected: &mut Vec<(u32, Rejection)>,
    ) {
        for at in std::mem::take(&mut self.origin) {
            let datum = wire::split(records[at as usize].value).map_or(&[][..], |(_, datum)| datum);
            let rows = column_decoder(self.id, &self.schema, reader_schema)
                .and_then(|mut decoder| {
                    decoder.decode(datum).map_err(|error| error.to_string())?;
                    decoder.flush().map_err(|error| error.to_string())
                })
                .and_then(|rows| rows.ok_or_else(|| "no row came of it".to_owned()));
            match rows {
                Ok(rows) => pieces.push(Piece { rows, origin: vec![at] }),
                Err(why) => rejected.push((at, Rejection::new(Reason::Unreadable, why))),
            }
        }
        if let Ok(fresh) = column_decoder(self.id, &self.schema, reader_schema) {
            self.decoder = fresh;
        }
    }
}

/// Rows that one decoder may hold before it is flushed; more than any chunk that is given.
const DECODER_ROWS: usize = 1 << 20;

fn column_decoder(id: u32, writer_schema: &str, reader_schema: &str) -> Result<ColumnDecoder, String> {
    let fingerprint = Fingerprint::Id(id);
    let mut store = SchemaStore::new_with_type(FingerprintAlgorithm::Id);
    store.set(fingerprint, AvroSchema::new(writer_schema.to_owned())).map_err(|error| error.to_string())?;
    ReaderBuilder::new()
        .with_reader_schema(AvroSchema::new(reader_schema.to_owned()))
        .with_writer_schema_store(store)
        .with_active_fingerprint(fingerprint)
        .with_decoder_mode(DecoderMode::UnframedDatum)
        .with_batch_size(DECODER_ROWS)
        .build_decoder()
        .map_err(|error| error.to_string())
}

fn join(columns: &SchemaRef, mut pieces: Vec<Piece>, rejected: Vec<(u32, Rejection)>) -> Decoded {
    if pieces.len() == 1 {
        let Piece { rows, origin } = pieces.remove(0);
        return Decoded { rows, origin, rejected };
    }
    let origin = pieces.iter().flat_map(|piece| piece.origin.iter().copied()).collect();
    let rows = arrow_select::concat::concat_batches(columns, pieces.iter().map(|piece| &piece.rows));
    let Ok(rows) = rows else { unreachable!("every piece has the columns of the one reader schema") };
    Decoded { rows, origin, rejected }
}

#[cfg(test)]
mod tests;

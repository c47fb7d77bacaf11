//! Events to Confluent wire format: a zero byte, the schema id as 4 bytes big-endian, the Avro datum.
//! It never goes through apache-avro's `Value` tree, which costs several times as much.

use std::collections::HashMap;
use std::fmt;
use std::marker::PhantomData;
use std::sync::{Mutex, PoisonError};

use apache_avro::Schema;
use apache_avro::writer::datum::GenericDatumWriter;

use crate::Event;

/// Why an event could not be encoded, or its schema not be read.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct EncodeError(Box<apache_avro::Error>);

impl From<apache_avro::Error> for EncodeError {
    fn from(error: apache_avro::Error) -> Self {
        Self(Box::new(error))
    }
}

/// Encodes events of one type under one schema id.
pub struct Encoder<E> {
    header: [u8; 5],
    writer: &'static GenericDatumWriter<'static>,
    event: PhantomData<fn(&E)>,
}

impl<E: Event> Encoder<E> {
    /// An encoder that puts `schema_id`, the registry's number for `E::SCHEMA`, into the header.
    pub fn new(schema_id: u32) -> Result<Self, EncodeError> {
        let [a, b, c, d] = schema_id.to_be_bytes();
        Ok(Self { header: [0, a, b, c, d], writer: writer_of(E::SCHEMA)?, event: PhantomData })
    }

    /// Appends the encoded event. After an error the buffer holds part of it.
    pub fn encode(&self, event: &E, buffer: &mut Vec<u8>) -> Result<(), EncodeError> {
        buffer.extend_from_slice(&self.header);
        match E::WRITE_AVRO {
            Some(write) => write(event, buffer),
            None => {
                self.writer.write_ser(buffer, event)?;
            }
        }
        Ok(())
    }
}

impl<E> fmt::Debug for Encoder<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encoder").field("header", &self.header).finish()
    }
}

/// The writer borrows its schema, so both are kept for ever, once per schema text of the process.
fn writer_of(text: &'static str) -> Result<&'static GenericDatumWriter<'static>, EncodeError> {
    type Writers = HashMap<&'static str, &'static GenericDatumWriter<'static>>;
    static WRITERS: Mutex<Option<Writers>> = Mutex::new(None);
    let mut writers = WRITERS.lock().unwrap_or_else(PoisonError::into_inner);
    let writers = writers.get_or_insert_default();
    if let Some(writer) = writers.get(text) {
        return Ok(writer);
    }
    let schema: &'static Schema = Box::leak(Box::new(Schema::parse_str(text)?));
    let writer = GenericDatumWriter::builder(schema).human_readable(false).build()?;
    let writer: &'static _ = Box::leak(Box::new(writer));
    writers.insert(text, writer);
    Ok(writer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_schemas::{OrderEvent, golden};

    #[test]
    fn golden_events_encode_to_the_golden_bytes() {
        let encoder = Encoder::<OrderEvent>::new(golden::SCHEMA_ID).unwrap();
        // The other examples are valid but not what this writer would choose.
        for good in golden::good().iter().filter(|g| ["typical", "minimal", "wide"].contains(&g.name)) {
            let mut buffer = Vec::new();
            encoder.encode(&good.event, &mut buffer).unwrap();
            assert_eq!(buffer, good.bytes, "{}", good.name);
        }
    }
}

//! Rows as an Arrow IPC stream: the body of an insert in `FORMAT ArrowStream`.

use arrow_array::RecordBatch;
use arrow_ipc::writer::StreamWriter;
use arrow_schema::ArrowError;

/// The rows as one Arrow IPC stream with one record batch, uncompressed.
///
/// # Errors
/// When a column's type has no place in an IPC stream.
pub fn arrow_stream(rows: &RecordBatch) -> Result<Vec<u8>, ArrowError> {
    let mut writer = StreamWriter::try_new(Vec::with_capacity(rows.get_array_memory_size()), &rows.schema())?;
    writer.write(rows)?;
    writer.into_inner()
}

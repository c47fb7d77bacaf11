//! The two requests of Kafka's protocol that replaying needs, over one plain TCP connection each. They are at versions
//! that brokers from 2.1 to 4.x speak. Layouts: <https://kafka.apache.org/protocol.html>.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::batch::Batch;

const PRODUCE: (i16, i16) = (0, 7);
const FETCH: (i16, i16) = (1, 10);
const CLIENT: &str = "millrace-bench";
/// A broker that says nothing for so long is gone.
const TIMEOUT: Duration = Duration::from_secs(30);
const TIMEOUT_MS: i32 = 30_000;
/// Of one fetch, and of one partition in it.
const FETCH_BYTES: i32 = 4 << 20;

/// A connection to a broker. Answers come in the order of the requests.
pub(super) struct Connection {
    stream: TcpStream,
    request: Vec<u8>,
    answer: Vec<u8>,
}

impl Connection {
    pub(super) fn open(address: &str) -> Result<Self> {
        let stream = TcpStream::connect(address).with_context(|| format!("connect to Kafka at {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        Ok(Self { stream, request: Vec::new(), answer: Vec::new() })
    }

    /// Sends a batch; the broker answers when all in-sync replicas have it.
    pub(super) fn produce(&mut self, topic: &str, partition: i32, batch: &Batch) -> Result<()> {
        self.begin(PRODUCE);
        // No transaction.
        self.i16(-1);
        // acks = all
        self.i16(-1);
        self.i32(TIMEOUT_MS);
        self.i32(1);
        self.string(topic);
        self.i32(1);
        self.i32(partition);
        self.i32(batch.bytes().len() as i32);
        self.request.extend_from_slice(batch.bytes());
        self.send()
    }

    /// Waits for the answer to the oldest produce request without one: partition and offset of its first record.
    pub(super) fn produced(&mut self) -> Result<(i32, i64)> {
        let mut answer = self.receive()?;
        answer.i32()?;
        answer.string()?;
        answer.i32()?;
        let partition = answer.i32()?;
        match answer.i16()? {
            0 => Ok((partition, answer.i64()?)),
            code => bail!("Kafka refuses a batch for partition {partition} with error code {code}"),
        }
    }

    /// Reads on from the offset of each partition.
    pub(super) fn fetch(&mut self, topic: &str, positions: &[(i32, i64)]) -> Result<Vec<(i32, Vec<Batch>)>> {
        self.begin(FETCH);
        // Not a replica; wait up to 500 ms for a byte.
        for number in [-1, 500, 1, FETCH_BYTES] {
            self.i32(number);
        }
        // What is not committed is read too; no fetch session.
        self.request.push(0);
        for number in [0, -1, 1] {
            self.i32(number);
        }
        self.string(topic);
        self.i32(positions.len() as i32);
        for &(partition, offset) in positions {
            self.i32(partition);
            self.i32(-1);
            self.i64(offset);
            self.i64(-1);
            self.i32(FETCH_BYTES);
        }
        self.i32(0);
        self.send()?;

        let mut answer = self.receive()?;
        answer.i32()?;
        let code = answer.i16()?;
        ensure!(code == 0, "Kafka refuses a fetch with error code {code}");
        answer.i32()?;
        let mut fetched = Vec::new();
        for _ in 0..answer.i32()? {
            answer.string()?;
            for _ in 0..answer.i32()? {
                let (partition, code) = (answer.i32()?, answer.i16()?);
                ensure!(code == 0, "Kafka refuses to read partition {partition} with error code {code}");
                // High watermark, last stable offset, first offset; then aborted transactions.
                answer.take(24)?;
                let aborted = answer.i32()?.max(0) as usize;
                answer.take(16 * aborted)?;
                let length = answer.i32()?.max(0) as usize;
                let batches = Batch::split(answer.take(length)?);
                fetched.push((partition, batches.with_context(|| format!("read topic {topic}"))?));
            }
        }
        Ok(fetched)
    }

    fn begin(&mut self, (key, version): (i16, i16)) {
        self.request.clear();
        // Size, to be known at the end.
        self.i32(0);
        self.i16(key);
        self.i16(version);
        // Answers come in order, so that they need no number.
        self.i32(0);
        self.string(CLIENT);
    }

    fn send(&mut self) -> Result<()> {
        let size = self.request.len() as i32 - 4;
        self.request[..4].copy_from_slice(&size.to_be_bytes());
        self.stream.write_all(&self.request).context("send a request to Kafka")
    }

    fn receive(&mut self) -> Result<Answer<'_>> {
        let mut size = [0; 4];
        self.stream.read_exact(&mut size).context("wait for Kafka's answer")?;
        self.answer.resize(u32::from_be_bytes(size) as usize, 0);
        self.stream.read_exact(&mut self.answer).context("read Kafka's answer")?;
        let mut answer = Answer(&self.answer);
        answer.i32()?;
        Ok(answer)
    }

    fn i16(&mut self, number: i16) {
        self.request.extend_from_slice(&number.to_be_bytes());
    }

    fn i32(&mut self, number: i32) {
        self.request.extend_from_slice(&number.to_be_bytes());
    }

    fn i64(&mut self, number: i64) {
        self.request.extend_from_slice(&number.to_be_bytes());
    }

    fn string(&mut self, text: &str) {
        self.i16(text.len() as i16);
        self.request.extend_from_slice(text.as_bytes());
    }
}

/// What is left to read of an answer.
struct Answer<'a>(&'a [u8]);

impl<'a> Answer<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length).context("Kafka's answer ends too early")?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        Ok(self.take(N)?.try_into()?)
    }

    fn i16(&mut self) -> Result<i16> {
        Ok(i16::from_be_bytes(self.array()?))
    }

    fn i32(&mut self) -> Result<i32> {
        Ok(i32::from_be_bytes(self.array()?))
    }

    fn i64(&mut self) -> Result<i64> {
        Ok(i64::from_be_bytes(self.array()?))
    }

    fn string(&mut self) -> Result<()> {
        let length = self.i16()?.max(0) as usize;
        self.take(length)?;
        Ok(())
    }
}

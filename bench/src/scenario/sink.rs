//! A receiver of traces that takes whatever comes: for measuring what it costs to send them. It reads no span.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use anyhow::{Context, Result};

use super::spec::Overrides;

/// Stands in a scenario for the endpoint of a sink.
const NAME: &str = "sink";

/// Requests taken so far. Its thread lasts as long as the process.
pub(crate) struct Sink(Arc<AtomicU64>);

impl Sink {
    /// The settings of a variant, with a sink of its own for the endpoint of traces if they name one.
    ///
    /// # Errors
    /// If there is no port.
    pub(crate) fn started(settings: &Overrides) -> Result<(Option<Self>, Overrides)> {
        let mut settings = settings.clone();
        let endpoint = settings.get_mut("traces").and_then(|traces| traces.get_mut("endpoint"));
        let Some(endpoint) = endpoint.filter(|endpoint| endpoint.as_str() == Some(NAME)) else {
            return Ok((None, settings));
        };
        let listener = TcpListener::bind("127.0.0.1:0").context("listen for traces")?;
        *endpoint = format!("http://{}", listener.local_addr()?).into();
        let requests = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&requests);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let counted = Arc::clone(&counted);
                // Whoever hangs up in the middle has been measured as far as it came.
                thread::spawn(move || _ = serve(stream, &counted));
            }
        });
        Ok((Some(Self(requests)), settings))
    }

    pub(crate) fn requests(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

fn serve(stream: TcpStream, counted: &AtomicU64) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut stream = stream;
    loop {
        let mut length = 0;
        let mut line = String::new();
        while reader.read_line(&mut line)? > 2 {
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().unwrap_or(0);
            }
            line.clear();
        }
        if line.is_empty() {
            return Ok(());
        }
        std::io::copy(&mut (&mut reader).take(length), &mut std::io::sink())?;
        // First: whoever has the answer may look.
        counted.fetch_add(1, Ordering::Relaxed);
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n")?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_on_one_connection_are_taken_one_after_the_other() {
        let settings = toml::from_str("[traces]\nendpoint = \"sink\"\nsample_ratio = 1.0").unwrap();
        let (sink, settings) = Sink::started(&settings).unwrap();
        let sink = sink.unwrap();
        let endpoint = settings["traces"]["endpoint"].as_str().unwrap();
        let agent = ureq::Agent::new_with_defaults();
        for number in 1..=2 {
            assert_eq!(agent.post(format!("{endpoint}/v1/traces")).send("spans").unwrap().status(), 200);
            assert_eq!(sink.requests(), number);
        }
        let (sink, same) = Sink::started(&Overrides::new()).unwrap();
        assert!(sink.is_none() && same.is_empty());
    }
}

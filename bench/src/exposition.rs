//! The publisher's metrics of the load generator, served to Prometheus as a service that embeds `EventPublisher` would do it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use millrace_producers::{DELIVERY_LATENCY, DELIVERY_LATENCY_BUCKETS, describe_metrics};

/// Samples of histograms are folded so often, that memory stays flat when nobody scrapes.
const FOLD: Duration = Duration::from_secs(5);
/// A scraper that says nothing for so long is left.
const PATIENCE: Duration = Duration::from_secs(5);

/// Makes this process's recorder and serves it at `address`, until the process ends; the address, with its port.
///
/// # Errors
/// The address cannot be listened on, or there is a recorder already.
pub fn serve(address: SocketAddr) -> Result<SocketAddr> {
    let listener = TcpListener::bind(address).with_context(|| format!("listen on {address} (--metrics)"))?;
    let address = listener.local_addr().context("tell the address of the metrics")?;
    let builder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Full(DELIVERY_LATENCY.to_owned()), DELIVERY_LATENCY_BUCKETS)?;
    let recorder = builder.build_recorder();
    let (folded, answered) = (recorder.handle(), recorder.handle());
    metrics::set_global_recorder(recorder).context("set up metrics")?;
    describe_metrics();
    thread::spawn(move || {
        loop {
            thread::sleep(FOLD);
            folded.run_upkeep();
        }
    });
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A scraper that goes away has no use for the answer.
            _ = answer(&stream, &answered);
        }
    });
    Ok(address)
}

/// Whatever is asked for is answered with the metrics.
fn answer(mut stream: &TcpStream, metrics: &PrometheusHandle) -> std::io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let request = BufReader::new(stream).lines();
    request.map_while(Result::ok).take_while(|line| !line.is_empty()).for_each(drop);
    let body = metrics.render();
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scraper_gets_the_publishers_metrics_with_buckets() {
        let address = serve("127.0.0.1:0".parse().unwrap()).unwrap();
        metrics::histogram!(DELIVERY_LATENCY, "topic" => "orders").record(0.004);
        let mut body = ureq::get(format!("http://{address}/metrics")).call().unwrap();
        let text = body.body_mut().read_to_string().unwrap();
        assert!(
            text.contains("millrace_producer_delivery_latency_seconds_bucket{topic=\"orders\",le=\"0.005\"} 1"),
            "{text}"
        );
        assert!(text.contains("# HELP millrace_producer_delivery_latency_seconds"), "{text}");
    }
}

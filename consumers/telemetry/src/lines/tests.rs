use std::{
    io,
    sync::{Arc, Mutex},
};

use opentelemetry::trace::{SpanId, TraceFlags, TraceId, TraceState};
use tracing_subscriber::{fmt::MakeWriter, layer::SubscriberExt};

use super::*;

#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl io::Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Written {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

fn written(form: Form, colours: bool, interval_ms: u64, write: impl FnOnce()) -> String {
    let lines = Written::default();
    let layer = tracing_subscriber::fmt::layer()
        .event_format(Lines::new(form, "millrace", interval_ms))
        .with_ansi(colours)
        .with_writer(lines.clone());
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), write);
    let bytes = lines.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

fn json(interval_ms: u64, write: impl FnOnce()) -> Vec<Value> {
    let text = written(Form::Json, false, interval_ms, write);
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_json_line_says_when_who_where_and_what() {
    let lines = json(0, || {
        tracing::info!(
            topic = "orders",
            partition = 3,
            offset = 1234_i64,
            share = 0.5,
            level = "mine",
            "batch \"landed\"\n"
        );
    });
    let [line] = &lines[..] else { panic!("{lines:?}") };
    assert_eq!(
        (&line["level"], &line["message"], &line["service_name"]),
        (&"INFO".into(), &"batch \"landed\"\n".into(), &"millrace".into())
    );
    assert_eq!((&line["topic"], &line["partition"], &line["offset"]), (&"orders".into(), &3.into(), &1234.into()));
    assert!(line["target"].as_str().unwrap().contains("lines") && line["share"] == 0.5);
    let timestamp = line["timestamp"].as_str().unwrap();
    assert!(timestamp.len() == 24 && timestamp.ends_with('Z'), "{timestamp}");
    assert!(line.get("trace_id").is_none() && line.get("repeated").is_none(), "{line}");
}

#[test]
fn a_line_within_a_span_carries_its_trace() {
    let (trace, span) = (TraceId::from(0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736), SpanId::from(0x00f0_67aa_0ba9_02b7));
    let span = SpanContext::new(trace, span, TraceFlags::SAMPLED, true, TraceState::default());
    let lines = json(0, || {
        let _within = Context::new().with_remote_span_context(span).attach();
        tracing::warn!("an insert failed");
    });
    assert_eq!(lines[0]["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!(lines[0]["span_id"], "00f067aa0ba902b7");
}

#[test]
fn a_warning_that_repeats_is_written_once_by_topic_and_partition_and_information_always() {
    let lines = json(60_000, || {
        for (topic, partition) in [("orders", 0), ("orders", 0), ("payments", 0), ("orders", 1), ("orders", 0)] {
            tracing::warn!(topic, partition, attempt = 7, "an insert failed and is tried again");
            tracing::info!(topic, "taken over");
        }
    });
    let told = json(60_000, || {
        for (took, port) in [(0, 1), (17, 1), (3, 2)] {
            tracing::warn!("127.0.0.1:{port}: connection refused (after {took}ms in state CONNECT)");
        }
    });
    assert_eq!(told.len(), 2, "one for each broker: {told:?}");
    let of = |level: &str| lines.iter().filter(|line| line["level"] == level).count();
    assert_eq!((of("WARN"), of("INFO")), (3, 5), "{lines:?}");
}

#[test]
fn the_next_line_tells_how_many_were_left_out() {
    let lines = json(50, || {
        let warn = || tracing::error!(topic = "orders", "ClickHouse refuses the rows");
        (0..4).for_each(|_| warn());
        let begun = Instant::now();
        while begun.elapsed().as_millis() < 60 {
            std::thread::yield_now();
        }
        warn();
    });
    assert_eq!((lines.len(), &lines[1]["repeated"]), (2, &3.into()), "{lines:?}");
}

#[test]
fn text_is_short_aligned_one_line_and_in_colour_only_where_asked() {
    let write = || {
        tracing::info!(topic = "orders", rows = 3, error = "two words", "batch landed");
        tracing::warn!(topic = "orders", "batch was refused");
        tracing::error!("two\nlines \u{1b}[2J");
    };
    let text = written(Form::Text, false, 0, write);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert_eq!(&lines[0][24..], format!(" INFO  {:<44} topic=orders rows=3 error=\"two words\"", "batch landed"));
    assert_eq!(lines[1].find("topic="), lines[0].find("topic="));
    assert_eq!(&lines[2][24..], " ERROR two lines  [2J");
    assert!(chrono::DateTime::parse_from_rfc3339(&lines[0][..24]).is_ok(), "{text}");
    let coloured = written(Form::Text, true, 0, write);
    let time = coloured.strip_prefix("\u{1b}[2m").unwrap().as_bytes();
    assert!(time[2] == b':' && time[5] == b':' && time[8] == b'.', "{coloured}");
    assert!(coloured.contains("\u{1b}[33m WARN "));
}

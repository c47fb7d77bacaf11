//! Certificates that end.

use std::fs;

use millrace_certificates::{Authority, Wanted};

use super::expiry;
use crate::{
    config::{TlsFiles, example},
    telemetry::metrics::CERTIFICATE_EXPIRY,
};

#[test]
fn the_end_of_certificates_is_measured_and_told_before_it_comes() {
    let folder = std::env::temp_dir().join(format!("millrace-expiry-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let ca = Authority::new("ca").unwrap();
    let write = |name: &str, content: &str| {
        fs::write(folder.join(name), content).unwrap();
        folder.join(name)
    };
    let files = |client: &millrace_certificates::Issued| TlsFiles {
        ca: Some(write("ca.pem", &ca.own().unwrap().certificate)),
        client: Some((write("client.pem", &client.certificate), write("client.key", &client.key))),
        key_password: None,
    };
    let soon = ca.issue(&Wanted { until_seconds: 5 * 86_400 + 3_600, ..Wanted::new("client", &[]) }).unwrap();
    let gone = ca.issue(&Wanted::new("client", &[]).expired()).unwrap();
    let mut config = example(|text| text);
    config.clickhouse.tls = files(&soon);
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let days_left = |config: &crate::config::Config, file_kind: &str| {
        metrics::with_local_recorder(&recorder, || expiry::Expiries::of(config).look());
        let text = recorder.handle().render();
        let series = format!("{CERTIFICATE_EXPIRY}{{part=\"clickhouse\",file_kind=\"{file_kind}\"}} ");
        let value = text.lines().find_map(|line| line.strip_prefix(&series)).unwrap_or_else(|| panic!("{text}"));
        (value.parse::<f64>().unwrap() / 86_400.0).round()
    };
    assert_eq!(days_left(&config, "client"), 5.0);
    assert_eq!(days_left(&config, "ca"), 3650.0);
    let [(has_expired, words)] = &expiry::complaints(&config)[..] else { panic!("one certificate ends soon") };
    assert!(!has_expired && words.contains("client.pem: expires in 5 days"), "{words}");

    config.clickhouse.tls = files(&gone);
    assert_eq!(days_left(&config, "client"), -1.0);
    let [(has_expired, words)] = &expiry::complaints(&config)[..] else { panic!("one certificate has ended") };
    assert!(*has_expired && words.contains("has expired"), "{words}");
    fs::remove_dir_all(folder).unwrap();
}

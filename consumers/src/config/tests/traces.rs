//! The section `[traces]`.

use super::super::{DEFAULT, Traces};
use super::{accepted, complaints, default_with_all_keys, with};

fn traces(lines: &str) -> String {
    with("[[topics]]", "").replace("[[topics]]", &format!("[traces]\n{lines}\n[[topics]]"))
}

#[test]
fn traces_are_off_by_default_and_commented_keys_show_their_defaults() {
    let shown = accepted(DEFAULT).traces;
    assert_eq!((&shown.endpoint, shown.headers.len()), (&None, 0));
    let all = default_with_all_keys()
        .replace("headers_file = \"/run/secrets/traces\"", "headers = \"name: value\"")
        .replace("security_protocol = \"plaintext\"", "security_protocol = \"sasl_ssl\"")
        .replace("miss = \"null\"", "miss = \"wait\"");
    let traces = accepted(&all).traces;
    assert_eq!(traces.endpoint.as_deref(), Some("http://localhost:4318"));
    assert_eq!(Traces { endpoint: None, headers: Vec::new(), ca_file: None, ..traces }, shown);
}

#[test]
fn headers_are_a_line_each_and_never_shown() {
    let config = accepted(&traces(
        "endpoint = \"https://otel.example/base/\"\nheaders = \"\"\"\nAuthorization: Bearer a:b=\nx-team:orders\n\n\"\"\"",
    ));
    let headers: Vec<(&str, &str)> =
        config.traces.headers.iter().map(|(name, value)| (name.as_str(), value.expose())).collect();
    assert_eq!(headers, [("Authorization", "Bearer a:b="), ("x-team", "orders")]);
    assert_eq!(config.traces.endpoint.as_deref(), Some("https://otel.example/base"));
    assert!(!format!("{:?}", config.traces).contains("Bearer"), "{:?}", config.traces);
}

#[test]
fn what_is_no_header_no_url_or_no_share_is_told_without_its_text() {
    for (lines, expected) in [
        ("headers = \"hunter2\"", "line 1 is no header; expected `name: value`"),
        ("headers = \"a: b\\nwith space: hunter2\"", "line 2 is no header"),
        ("endpoint = \"http://u:hunter2@otel\"", "traces.endpoint: holds a user or password"),
        ("endpoint = \"localhost:4318\"", "expected a URL such as \"http://localhost:4318\""),
        ("sample_ratio = 2.0", "expected a share from 0.0 to 1.0"),
        ("headers_file = \"missing\"", "traces.headers_file: the file /conf/missing cannot be read"),
    ] {
        let complaints = complaints(&traces(lines));
        assert!(complaints.len() == 1 && complaints[0].contains(expected), "{lines}: {complaints:?}");
        assert!(!complaints[0].contains("hunter2"), "{complaints:?}");
    }
}

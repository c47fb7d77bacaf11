//! Encryption and identity.

use super::{MINIMAL, accepted, complaints, with};
use crate::config::{Credentials, Sasl};

#[test]
fn no_property_of_librdkafka_says_whom_to_trust_or_who_we_are() {
    for name in [
        "ssl.endpoint.identification.algorithm",
        "enable.ssl.certificate.verification",
        "ssl.ca.location",
        "ssl.ca.pem",
        "ssl.ca.certificate.stores",
        "ssl.keystore.location",
        "ssl.engine.location",
        "ssl.providers",
        "ssl.certificate.pem",
        "sasl.mechanism",
        "sasl.mechanisms",
        "sasl.password",
        "sasl.oauthbearer.config",
        "enable.sasl.oauthbearer.unsecure.jwt",
        "https.ca.pem",
        "plugin.library.paths",
    ] {
        let said = complaints(&with("[kafka]", &format!("properties.\"{name}\" = \"hunter2\"")));
        let [said] = &said[..] else { panic!("{name}: {said:?}") };
        assert!(said.contains("may not be set here") && !said.contains("hunter2"), "{said}");
    }
    accepted(&with("[kafka]", "properties.\"ssl.cipher.suites\" = \"ECDHE-ECDSA-AES256-GCM-SHA384\""));
}

#[test]
fn a_token_is_asked_for_with_credentials_that_never_show() {
    let oauth =
        "oauth = {token_url = \"https://issuer.example/token\", client_id = \"c\", client_secret = \"hunter2\"}";
    let sasl = |rest: &str| {
        with("[kafka]", &format!("security_protocol = \"sasl_ssl\"\nsasl = {{mechanism = \"OAUTHBEARER\"{rest}}}"))
    };
    let config = accepted(&sasl(&format!(", {oauth}")));
    let Some(Sasl::Token(source)) = &config.kafka.sasl else { panic!("{:?}", config.kafka.sasl) };
    assert_eq!((source.client_id.as_str(), source.client_secret.expose()), ("c", "hunter2"));
    assert!(!format!("{config:?}").contains("hunter2"));
    let properties = config.kafka.client_properties();
    assert!(properties.contains(&("sasl.mechanism".to_owned(), "OAUTHBEARER".to_owned())));
    assert!(properties.iter().all(|(_, value)| value != "hunter2"));
    assert!(config.warnings.is_empty());

    let open = sasl(&format!(", {}", oauth.replace("https://", "http://")));
    assert!(accepted(&open).warnings[0].contains("kafka.sasl.oauth cross the network unencrypted"));
    for (rest, expected) in [
        ("", "kafka.sasl.oauth.token_url: missing"),
        (
            ", oauth = {token_url = \"https://i/t\", client_id = \"c\"}",
            "client_secret: missing; expected `client_secret_file`",
        ),
        (&*format!(", username = \"u\", {oauth}"), "kafka.sasl.username: not used with OAUTHBEARER"),
    ] {
        let said = complaints(&sasl(rest)).join("\n");
        assert!(said.contains(expected), "{said}");
    }
    let said =
        complaints(&sasl(&format!(", username = \"u\", password = \"p\", {oauth}")).replace("OAUTHBEARER", "PLAIN"));
    assert!(said[0].contains("not used unless kafka.sasl.mechanism is \"OAUTHBEARER\""), "{said:?}");
}

#[test]
fn a_client_certificate_may_stand_for_a_password_of_clickhouse() {
    let pair = "certificate_file = \"c.pem\"\nkey_file = \"c.key\"";
    let text =
        with("[clickhouse]", &format!("url = \"https://ch:8443\"\n{pair}")).replace("password = \"hunter2\"\n", "");
    let config = accepted(&text);
    assert!(config.clickhouse.password.is_none() && config.clickhouse.tls.client.is_some());
    let said = complaints(&text.replace(pair, ""));
    assert!(said[0].contains("or a `certificate_file` by which the user is known"), "{said:?}");
    let said = complaints(&with("[clickhouse]", "certificate_file = \"c.pem\""));
    assert!(said[0].contains("clickhouse.key_file: missing: certificate_file needs it"), "{said:?}");
}

#[test]
fn secrets_in_the_open_and_files_that_are_not_used_are_told() {
    let open = accepted(&with("[clickhouse]", "url = \"http://clickhouse:8123\""));
    assert_eq!(open.warnings, ["clickhouse.url begins with http: secrets of clickhouse cross the network unencrypted"]);
    let unused = accepted(&with("[registry]", "ca_file = \"ca.pem\""));
    assert!(
        unused.warnings[0].contains("registry for TLS are not used, nothing is encrypted"),
        "{:?}",
        unused.warnings
    );
    let hostname = with("[kafka]", "security_protocol = \"ssl\"\ntls = {verify_hostname = false}");
    assert!(accepted(&hostname).warnings[0].starts_with("kafka.tls.verify_hostname is false"));
    let token = accepted(&with("[registry]", "url = \"https://r\"\ntoken_env = \"SET\"")).registry;
    let Some(Credentials::Token(token)) = token.credentials else { panic!("no token") };
    assert_eq!(token.expose(), "from the environment");
    let said = complaints(&with("[registry]", "username = \"u\"\npassword = \"p\"\ntoken = \"t\""));
    assert!(said[0].contains("not used with a token"), "{said:?}");
}

/// Each example of the page, with the sections that it leaves out.
#[test]
fn the_examples_of_the_page_are_configurations() {
    const PAGE: &str = include_str!("../../../../docs/security.md");
    let examples: Vec<&str> = PAGE.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert_eq!(examples.len(), 9);
    for example in examples {
        let mut sections: Vec<String> = MINIMAL.split("\n[").map(str::to_owned).collect();
        let head = example.split(']').next().unwrap().trim_start_matches('[');
        sections.retain(|section| !section.starts_with(&format!("{head}]")));
        let (first, rest) = sections.split_first().unwrap();
        let rest: String = rest.iter().map(|section| format!("\n[{section}")).collect();
        let config = accepted(&format!("{first}\n{example}{rest}"));
        assert!(config.warnings.is_empty(), "{example}{:?}", config.warnings);
    }
}

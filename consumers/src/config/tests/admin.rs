//! The admin API's section.

use std::time::Duration;

use super::{MINIMAL, accepted, complaints};
use crate::config::{Permission, SignatureAlgorithm, TokenType};

const JWT: &str = "[admin.jwt]\nissuer = \"https://id.example.com/realms/shop\"\naudience = \"millrace\"\n";
const ROLES: &str = "[admin.permissions]\nstatus_read = [\"viewer\"]\n";
const TLS: &str = "[admin.tls]\ncertificate_file = \"a.pem\"\nkey_file = \"a.key\"\n";

fn with(keys: &str, sections: &[&str]) -> String {
    // In front of the array of topics, whose tables would take them in.
    let (head, topics) = MINIMAL.split_once("[[topics]]").unwrap();
    format!("{head}[admin]\n{keys}\n{}[[topics]]{topics}", sections.concat())
}

#[test]
fn without_the_section_there_is_no_admin_api_and_with_it_tokens_are_asked_for() {
    assert_eq!(accepted(MINIMAL).admin, None);
    let config = accepted(&with("", &[JWT, ROLES]));
    let admin = config.admin.unwrap();
    assert_eq!((admin.listen.to_string().as_str(), admin.max_connections), ("127.0.0.1:9465", 64));
    let jwt = admin.jwt.unwrap();
    assert_eq!(jwt.algorithms, [SignatureAlgorithm::Rs256, SignatureAlgorithm::Es256]);
    assert_eq!((jwt.token_type, jwt.leeway), (TokenType::Header, Duration::from_secs(30)));
    assert_eq!(jwt.permissions[&Permission::StatusRead], ["viewer"]);
    assert!(jwt.permissions[&Permission::ProcessControl].is_empty() && config.warnings.is_empty());
}

#[test]
fn what_opens_the_door_wider_is_refused_or_told() {
    let everywhere = "listen = \"0.0.0.0:9465\"";
    let refused = [
        (with("auth = \"none\"\nlisten = \"0.0.0.0:9465\"", &[TLS]), "would let all of them command this process"),
        (with(everywhere, &[JWT, ROLES]), "anybody on the way can read tokens and use them"),
        (with("", &[&JWT.replace("https:", "http:"), ROLES]), "admin.jwt.issuer: found \"http://id.example.com"),
        (with("", &[JWT, "jwks_url = \"http://10.0.0.1/keys\"\n", ROLES]), "admin.jwt.jwks_url: found"),
        (with("", &[JWT, "jwks_url = \"https://u:p@id.example.com/keys\"\n", ROLES]), "holds a user"),
        (
            with("", &[JWT, "algorithms = [\"HS256\"]\n", ROLES]),
            "found \"HS256\", expected one of \"RS256\", \"ES256\"",
        ),
        (with("", &[JWT, "algorithms = []\n", ROLES]), "a list in brackets that is not empty"),
        (with("", &[JWT]), "no role has any permission"),
        (with("", &[JWT, ROLES, "topic_control = [\"x\"]\n"]), "did you mean `topics_control`?"),
        (with("", &[ROLES]), "admin.jwt.issuer: missing"),
        (with("auth = \"none\"", &[JWT]), "not used with admin.auth = \"none\""),
        (with("", &[JWT, ROLES, "[admin.tls]\ncertificate_file = \"a.pem\"\n"]), "admin.tls.key_file: missing"),
    ];
    for (text, expected) in refused {
        let said = complaints(&text);
        assert!(said.iter().any(|line| line.contains(expected)), "{expected}: {said:#?} of {text}");
    }
    let told = [
        (with("auth = \"none\"", &[]), "everybody on this machine"),
        (with(&format!("{everywhere}\ninsecure_plaintext = true"), &[JWT, ROLES]), "travel unencrypted"),
        (with("", &[JWT, "token_type = \"claim\"\n", ROLES]), "by their claim typ"),
        (with("", &[JWT, "token_type = \"unmarked\"\n", ROLES]), "would pass for an access token"),
    ];
    for (text, expected) in told {
        let warnings = accepted(&text).warnings;
        assert!(warnings.len() == 1 && warnings[0].contains(expected), "{expected}: {warnings:?}");
    }
    for fine in [
        with(everywhere, &[TLS, JWT, ROLES]),
        with("", &["[admin.jwt]\nissuer = \"http://[::1]:8080/realms/shop\"\naudience = \"millrace\"\n", ROLES]),
        with("", &[JWT, "jwks_url = \"http://localhost:8080/keys\"\n", ROLES]),
    ] {
        assert!(accepted(&fine).warnings.is_empty(), "{fine}");
    }
}

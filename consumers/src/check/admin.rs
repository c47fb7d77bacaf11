//! Looks at what the admin API needs: its certificate and key, and the keys of the issuer of tokens.

use std::time::Duration;

use super::{count, report::Part};
use crate::{admin, config::Admin};

pub(super) async fn check(settings: &Admin, timeout: Duration) -> Part {
    let mut part = Part::new("admin");
    if let Some(tls) = &settings.tls {
        match admin::try_certificate(tls) {
            Ok(()) => part.good(format!("certificate {} and its key", tls.certificate_file.display())),
            Err(error) => part.bad(format!("{error:#}")),
        }
    }
    if let Some(jwt) = &settings.jwt {
        match tokio::time::timeout(timeout, admin::try_issuer(jwt)).await {
            Ok(Ok(keys)) => part.good(format!("issuer {} has {} for signatures", jwt.issuer, count(keys, "key"))),
            Ok(Err(error)) => {
                part.bad(format!("the keys of issuer {} cannot be had: {error:#}; nobody would be let in", jwt.issuer));
            }
            Err(_) => {
                part.bad(format!("issuer {} does not answer within {timeout:?}; nobody would be let in", jwt.issuer))
            }
        }
    }
    part
}

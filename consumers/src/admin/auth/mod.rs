//! Who is let in: reads the token of a request, and tells who it is of and what that one may do.

mod crypto;
mod keys;
mod token;

use std::{collections::BTreeSet, sync::Arc};

use axum::http::{HeaderMap, StatusCode, Uri, header, uri::Authority};
use serde_json::{Map, Value};

use self::{keys::Keys, token::Refused};
use super::problem::Problem;
use crate::config::{Jwt, Permission, is_loopback};

/// Lets callers in.
pub(super) struct Gate {
    /// `None` lets everybody in.
    issuer: Option<(Jwt, Arc<Keys>)>,
}

/// Somebody who was let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Caller {
    /// Claim `sub`, or that nobody was asked.
    pub(super) who: String,
    /// The client that the token was issued to, if it says so.
    pub(super) client: Option<String>,
    permissions: BTreeSet<Permission>,
}

/// Fetches the issuer's keys once; how many of them can be used.
pub(super) async fn count_keys(jwt: &Jwt) -> anyhow::Result<usize> {
    Keys::new(jwt.clone()).count().await
}

impl Gate {
    pub(super) fn new(jwt: Option<Jwt>) -> Self {
        crypto::install();
        Self { issuer: jwt.map(|jwt| (jwt.clone(), Arc::new(Keys::new(jwt)))) }
    }

    /// Whether nobody is let in without a token.
    pub(super) fn wants_tokens(&self) -> bool {
        self.issuer.is_some()
    }

    /// Keeps the issuer's keys fresh, for ever.
    pub(super) async fn keep_fresh(&self) {
        match &self.issuer {
            Some((_, keys)) => keys.keep_fresh().await,
            None => std::future::pending().await,
        }
    }

    /// Who asks, and whether only to read.
    pub(super) async fn caller(&self, headers: &HeaderMap, uri: &Uri, reads: bool) -> Result<Caller, Problem> {
        let Some((jwt, keys)) = &self.issuer else {
            if from_a_page(headers, reads) {
                let detail = "a page in a browser may not command this process; without tokens only programs of this \
                              machine are answered, by its loopback address";
                return Err(Problem::new(StatusCode::FORBIDDEN, "foreign_page", detail));
            }
            let permissions = Permission::ALL.into_iter().collect();
            return Ok(Caller { who: "anonymous".to_owned(), client: None, permissions });
        };
        let token = bearer(headers, uri)?;
        match token::claims(token, jwt, keys).await {
            Ok(claims) => caller(&claims, jwt),
            Err(Refused::Token((code, why))) => Err(Problem::unauthorized(code, why)),
            Err(Refused::KeysUnavailable) => Err(Problem::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "keys_unavailable",
                "the issuer's keys cannot be fetched, so nobody can be let in; see the log of this process",
            )
            .retry_after(10)),
        }
    }
}

impl Caller {
    /// Whether this one may do it.
    pub(super) fn may(&self, permission: Permission) -> bool {
        self.permissions.contains(&permission)
    }
}

/// The token of `Authorization: Bearer`, of which there has to be exactly one.
fn bearer<'h>(headers: &'h HeaderMap, uri: &Uri) -> Result<&'h str, Problem> {
    // URLs end up in logs and histories (RFC 9700, section 2.6).
    let in_query = |pair: &str| pair.split('=').next() == Some("access_token");
    if uri.query().is_some_and(|query| query.split('&').any(in_query)) {
        let detail = "a token in the query string is refused; send it as Authorization: Bearer, and have it revoked";
        return Err(Problem::unauthorized("token_in_query", detail));
    }
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let detail = "expected a header Authorization: Bearer with an access token";
    let Some(value) = values.next() else { return Err(Problem::unauthorized("token_missing", detail)) };
    if values.next().is_some() {
        return Err(Problem::unauthorized("token_twice", "expected one Authorization header, found several"));
    }
    let (scheme, token) = value.to_str().ok().and_then(|text| text.split_once(' ')).unwrap_or_default();
    if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() {
        return Err(Problem::unauthorized("token_missing", detail));
    }
    Ok(token.trim())
}

/// Whether a browser asks on behalf of some site: it says so itself, or it has taken the name of the site for this address
/// (DNS rebinding). With tokens that is no matter, since a site has none. The page that this process serves itself may read: a
/// browser says `same-origin` of no other, and no script can say it.
fn from_a_page(headers: &HeaderMap, reads: bool) -> bool {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()?.parse::<Authority>().ok());
    let ours = host.is_some_and(|host| is_loopback(host.host()));
    let site = headers.get("sec-fetch-site");
    let own = reads && site.is_some_and(|site| site == "same-origin");
    headers.contains_key(header::ORIGIN) || (site.is_some() && !own) || !ours
}

fn caller(claims: &Map<String, Value>, jwt: &Jwt) -> Result<Caller, Problem> {
    let text = |name: &str| claims.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let Some(who) = text("sub") else {
        return Err(Problem::unauthorized("token_claims", "the token lacks sub"));
    };
    let roles = roles(claims, &jwt.roles_claim);
    let has = |(_, of): &(&Permission, &Vec<String>)| of.iter().any(|role| roles.contains(role.as_str()));
    let permissions = jwt.permissions.iter().filter(has).map(|(permission, _)| *permission).collect();
    let client = text("azp").or_else(|| text("client_id")).map(str::to_owned);
    Ok(Caller { who: who.to_owned(), client, permissions })
}

/// The roles of a claim: a list of texts, or one text with spaces.
fn roles<'c>(claims: &'c Map<String, Value>, path: &str) -> BTreeSet<&'c str> {
    let mut steps = path.split('.');
    let by_path = || {
        let first = claims.get(steps.next()?)?;
        steps.try_fold(first, |value, step| value.get(step))
    };
    match claims.get(path).or_else(by_path) {
        Some(Value::Array(roles)) => roles.iter().filter_map(Value::as_str).collect(),
        Some(Value::String(roles)) => roles.split_whitespace().collect(),
        _ => BTreeSet::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn roles_are_found_by_name_or_path_as_list_or_text() {
        let cases = [
            ("roles", json!({"roles": ["a", "b", 3]}), vec!["a", "b"]),
            ("realm_access.roles", json!({"realm_access": {"roles": ["a"]}}), vec!["a"]),
            ("https://x.example/roles", json!({"https://x.example/roles": ["a"]}), vec!["a"]),
            ("scope", json!({"scope": "a  b"}), vec!["a", "b"]),
            ("roles", json!({"roles": {"a": true}}), vec![]),
            ("realm_access.roles", json!({"realm_access": ["a"]}), vec![]),
            ("roles", json!({}), vec![]),
        ];
        for (path, claims, expected) in cases {
            let claims = claims.as_object().unwrap();
            assert_eq!(roles(claims, path).into_iter().collect::<Vec<_>>(), expected, "{path} of {claims:?}");
        }
    }
}

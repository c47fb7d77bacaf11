//! What a token has to be to count: an access token (RFC 9068) of the configured issuer for the configured audience, signed
//! with a pinned algorithm by a key of the issuer, and valid now.

use jsonwebtoken::{Algorithm, Header, Validation, decode, decode_header, errors::ErrorKind};
use serde_json::{Map, Value};

use super::keys::{Keys, NoKey};
use crate::config::{Jwt, SignatureAlgorithm, TokenType};

/// Longest token, in bytes.
pub(super) const LONGEST: usize = 8 << 10;
/// Claims that only ID tokens have (OpenID Connect Core, sections 2 and 3).
const OF_ID_TOKENS: [&str; 4] = ["nonce", "at_hash", "c_hash", "s_hash"];

/// Why a token does not count: a word of a closed list, and a sentence. Nothing of the token is in it.
pub(super) type Refusal = (&'static str, &'static str);

/// Why nobody can be let in now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// The token does not count.
    Token(Refusal),
    /// The issuer's keys are not known.
    KeysUnavailable,
}

/// Claims of a token that counts.
pub(super) async fn claims(token: &str, jwt: &Jwt, keys: &Keys) -> Result<Map<String, Value>, Refused> {
    let refuse = |code, why| Err(Refused::Token((code, why)));
    if token.len() > LONGEST {
        return refuse("token_too_large", "the token is longer than 8 KiB");
    }
    let Ok(header) = decode_header(token) else {
        return refuse("token_malformed", "the token is not a JWT with a known algorithm");
    };
    let Some(algorithm) = pinned(jwt, header.alg) else {
        return refuse("token_algorithm", "the token is signed with an algorithm that does not count here");
    };
    if header.crit.is_some() {
        return refuse("token_malformed", "the token asks for extensions that are not known here");
    }
    let Some(id) = &header.kid else {
        return refuse("token_key_unknown", "the token does not say which key it is signed with (kid)");
    };
    let key = match keys.key(id, algorithm).await {
        Ok(key) => key,
        Err(NoKey::Unknown) => return refuse("token_key_unknown", "the issuer has no key of the token's kid"),
        Err(NoKey::Unavailable) => return Err(Refused::KeysUnavailable),
    };
    let claims = decode::<Map<String, Value>>(token, &key, &validation(jwt, algorithm));
    let claims = claims.map_err(|error| Refused::Token(why(error.kind())))?.claims;
    if let Some(refusal) = wrong_type(&header, &claims, jwt.token_type) {
        return Err(Refused::Token(refusal));
    }
    Ok(claims)
}

fn pinned(jwt: &Jwt, algorithm: Algorithm) -> Option<Algorithm> {
    let counts = |one: &SignatureAlgorithm| match one {
        SignatureAlgorithm::Rs256 => algorithm == Algorithm::RS256,
        SignatureAlgorithm::Es256 => algorithm == Algorithm::ES256,
    };
    jwt.algorithms.iter().any(counts).then_some(algorithm)
}

fn validation(jwt: &Jwt, algorithm: Algorithm) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
    validation.set_issuer(&[&jwt.issuer]);
    validation.set_audience(&[&jwt.audience]);
    validation.leeway = jwt.leeway.as_secs();
    validation.validate_nbf = true;
    validation
}

fn why(error: &ErrorKind) -> Refusal {
    match error {
        ErrorKind::InvalidSignature => ("token_signature", "the token's signature is wrong"),
        ErrorKind::ExpiredSignature => ("token_expired", "the token has expired"),
        ErrorKind::ImmatureSignature => ("token_not_yet_valid", "the token is not valid yet (nbf)"),
        ErrorKind::InvalidIssuer => ("token_issuer", "the token is of another issuer"),
        ErrorKind::InvalidAudience => ("token_audience", "the token is for another audience"),
        ErrorKind::MissingRequiredClaim(claim) if claim == "exp" => ("token_claims", "the token lacks exp"),
        ErrorKind::MissingRequiredClaim(claim) if claim == "aud" => ("token_claims", "the token lacks aud"),
        ErrorKind::MissingRequiredClaim(_) | ErrorKind::InvalidClaimFormat(_) => {
            ("token_claims", "a claim is missing or not of its type; iss, aud, exp and sub are required")
        }
        _ => ("token_malformed", "the token cannot be read"),
    }
}

/// Whether it is something else than an access token.
fn wrong_type(header: &Header, claims: &Map<String, Value>, expected: TokenType) -> Option<Refusal> {
    if OF_ID_TOKENS.iter().any(|claim| claims.contains_key(*claim)) {
        return Some(("token_type", "this is an ID token; an access token is expected"));
    }
    let is_access_token = match expected {
        TokenType::Header => header
            .typ
            .as_deref()
            .is_some_and(|typ| typ.eq_ignore_ascii_case("at+jwt") || typ.eq_ignore_ascii_case("application/at+jwt")),
        TokenType::Claim => claims.get("typ").is_some_and(|typ| typ == "Bearer"),
        TokenType::Unmarked => claims.get("typ").is_none_or(|typ| typ == "Bearer"),
    };
    (!is_access_token)
        .then_some(("token_type", "this is no access token as admin.jwt.token_type of this process expects it"))
}

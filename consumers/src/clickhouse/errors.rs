//! What a ClickHouse error means for the one who sent the request, decided by its code and never by its words.
//!
//! Codes: <https://github.com/ClickHouse/ClickHouse/blob/master/src/Common/ErrorCodes.cpp>.

use clickhouse::error::Error;
use hyper_util::client::legacy;

use super::claims::{ALTERED, TOO_LATE};

/// What to do about an error.
///
/// A failed insert may have landed in some of the table's partitions, whatever its class: it is settled only by sending
/// the identical bytes under the same token until they are accepted, or by reading the ids back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorClass {
    /// The server (or the way to it) is overloaded, read-only, starting or stopping: try again later.
    Retry,
    /// The fence refused: a claimed partition is someone else's now. No row has landed.
    Fenced,
    /// The fence refused, because it comes too late to be known for a repetition or for none. By this attempt no row has
    /// landed.
    TooLate,
    /// The insert refused itself, because the table is not the one that it was made for. By this attempt no row has landed.
    Altered,
    /// Somebody killed the query.
    Cancelled,
    /// The user, the password or a grant is wrong: a person must act.
    Auth,
    /// The same request can never succeed: a missing table or column, a type that does not fit, bad data.
    Permanent,
    /// The request may or may not have been executed.
    UnknownOutcome,
}

/// The database of the connection is not there.
pub const UNKNOWN_DATABASE: u32 = 81;
/// `throwIf` threw.
const FUNCTION_THROW_IF_VALUE_IS_NON_ZERO: u32 = 395;
/// `KILL QUERY`, or the client went away.
const CANCELLED: &[u32] = &[394, 735];
/// `UNKNOWN_STATUS_OF_INSERT`.
const UNKNOWN_STATUS_OF_INSERT: u32 = 319;

const AUTH: &[u32] = &[
    192, // UNKNOWN_USER
    193, // WRONG_PASSWORD
    194, // REQUIRED_PASSWORD
    195, // IP_ADDRESS_NOT_ALLOWED
    497, // ACCESS_DENIED
    516, // AUTHENTICATION_FAILED
];

const RETRY: &[u32] = &[
    75,  // CANNOT_WRITE_TO_FILE_DESCRIPTOR: the disk is full
    159, // TIMEOUT_EXCEEDED
    164, // READONLY: a server or user that is read-only for maintenance; one without the right to write is told by 497
    201, // QUOTA_EXCEEDED
    202, // TOO_MANY_SIMULTANEOUS_QUERIES
    203, // NO_FREE_CONNECTION
    209, // SOCKET_TIMEOUT
    210, // NETWORK_ERROR
    225, // NO_ZOOKEEPER
    236, // ABORTED: the server is shutting down
    241, // MEMORY_LIMIT_EXCEEDED
    242, // TABLE_IS_READ_ONLY
    243, // NOT_ENOUGH_SPACE
    252, // TOO_MANY_PARTS
    279, // ALL_CONNECTION_TRIES_FAILED
    285, // TOO_FEW_LIVE_REPLICAS
    286, // UNSATISFIED_QUORUM_FOR_PREVIOUS_WRITE
    364, // RECEIVED_ERROR_TOO_MANY_REQUESTS
    439, // CANNOT_SCHEDULE_TASK
    473, // DEADLOCK_AVOIDED
    667, // NOT_INITIALIZED
    700, // USER_SESSION_LIMIT_EXCEEDED
    733, // TABLE_IS_BEING_RESTARTED
    745, // SERVER_OVERLOADED
    749, // TCP_CONNECTION_LIMIT_REACHED
    762, // HTTP_CONNECTION_LIMIT_REACHED
    776, // RESOURCE_LIMIT_EXCEEDED
    777, // MEMORY_RESERVATION_KILLED
    778, // MEMORY_RESERVATION_FAILED
    999, // KEEPER_EXCEPTION
];

/// What to do about an error of a request.
pub fn classify(error: &Error) -> ErrorClass {
    match (code(error), error) {
        (Some(FUNCTION_THROW_IF_VALUE_IS_NON_ZERO), _) => ErrorClass::Fenced,
        (Some(TOO_LATE), _) => ErrorClass::TooLate,
        (Some(ALTERED), _) => ErrorClass::Altered,
        (Some(UNKNOWN_STATUS_OF_INSERT), _) => ErrorClass::UnknownOutcome,
        (Some(code), _) if CANCELLED.contains(&code) => ErrorClass::Cancelled,
        (Some(code), _) if AUTH.contains(&code) => ErrorClass::Auth,
        (Some(code), _) if RETRY.contains(&code) => ErrorClass::Retry,
        (Some(_), _) => ErrorClass::Permanent,
        // Nothing can have been executed over a connection that never was.
        (None, error) if is_connect(error) => ErrorClass::Retry,
        (None, Error::BadResponse(text)) => match http_status(text) {
            Some(401 | 403) => ErrorClass::Auth,
            Some(429) => ErrorClass::Retry,
            Some(400..=499) => ErrorClass::Permanent,
            _ => ErrorClass::UnknownOutcome,
        },
        (None, Error::Network(_) | Error::TimedOut | Error::Other(_)) => ErrorClass::UnknownOutcome,
        // The answer came and was not what the request asked for.
        (None, _) => ErrorClass::Permanent,
    }
}

/// The server's own code, if the server answered.
pub fn code(error: &Error) -> Option<u32> {
    match error {
        Error::BadResponse(text) => parse_code(text),
        _ => None,
    }
}

/// Whether the connection could not be made.
pub fn is_connect(error: &Error) -> bool {
    let Error::Network(source) = error else {
        return false;
    };
    source.downcast_ref::<legacy::Error>().is_some_and(legacy::Error::is_connect)
}

/// Value of the `code` label: the server's own code, or how the way to it failed. It takes few values.
pub fn label(error: &Error) -> String {
    match (code(error), error) {
        (Some(code), _) => code.to_string(),
        (None, error) if is_connect(error) => "connect".to_owned(),
        (None, Error::TimedOut) => "timeout".to_owned(),
        (None, Error::Network(_)) => "network".to_owned(),
        (None, Error::BadResponse(_)) => "http".to_owned(),
        (None, _) => "other".to_owned(),
    }
}

/// `Code: 395. DB::Exception: …`, which is how every error of the server begins; the crate keeps the text only.
fn parse_code(text: &str) -> Option<u32> {
    let rest = text.strip_prefix("Code: ")?;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest[..digits].parse().ok()
}

/// `503 Service Unavailable`, which is what the crate says of an answer without a body.
fn http_status(text: &str) -> Option<u16> {
    text.split_once(' ')?.0.parse().ok().filter(|status| (100..600).contains(status))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class_of(text: &str) -> ErrorClass {
        classify(&Error::BadResponse(text.to_owned()))
    }

    #[test]
    fn answers_of_the_server_are_told_apart_by_code() {
        let cases = [
            (
                "Code: 395. DB::Exception: Value passed to 'throwIf' function is non-zero: while executing 'FUNCTION throwIf(greater(__table1.n, 0_UInt8) :: 1) -> throwIf(greater(__table1.n, 0_UInt8)) UInt8 : 2'. (FUNCTION_THROW_IF_VALUE_IS_NON_ZERO) (version 26.7.3.1)",
                ErrorClass::Fenced,
            ),
            (
                "Code: 394. DB::Exception: Query was cancelled. (QUERY_WAS_CANCELLED) (version 26.7.3.1)",
                ErrorClass::Cancelled,
            ),
            (
                "Code: 516. DB::Exception: millrace: Authentication failed: password is incorrect, or there is no user with such name. (AUTHENTICATION_FAILED) (version 26.7.3.1)",
                ErrorClass::Auth,
            ),
            (
                "Code: 497. DB::Exception: millrace: Not enough privileges. To execute this query, it's necessary to have the grant INSERT(event_id) ON millrace.orders. (ACCESS_DENIED) (version 26.7.3.1)",
                ErrorClass::Auth,
            ),
            (
                "Code: 252. DB::Exception: Too many parts (3002 with average size of 1.00 KiB) in table 'millrace.orders'. Merges are processing significantly slower than inserts. (TOO_MANY_PARTS) (version 26.7.3.1)",
                ErrorClass::Retry,
            ),
            (
                "Code: 201. DB::Exception: Quota for user `millrace` for 3600s has been exceeded: queries = 4/3. (QUOTA_EXCEEDED) (version 26.7.3.1)",
                ErrorClass::Retry,
            ),
            (
                "Code: 999. Coordination::Exception: Session expired. (KEEPER_EXCEPTION) (version 26.7.3.1)",
                ErrorClass::Retry,
            ),
            (
                "Code: 319. DB::Exception: Unknown status, client must retry. (UNKNOWN_STATUS_OF_INSERT) (version 26.7.3.1)",
                ErrorClass::UnknownOutcome,
            ),
            (
                "Code: 60. DB::Exception: Table millrace.orders does not exist. (UNKNOWN_TABLE) (version 26.7.3.1)",
                ErrorClass::Permanent,
            ),
            ("Code: 210", ErrorClass::Retry),
            ("503 Service Unavailable", ErrorClass::UnknownOutcome),
            ("404 Not Found", ErrorClass::Permanent),
            ("<html>upstream went away", ErrorClass::UnknownOutcome),
            ("Code: soon", ErrorClass::UnknownOutcome),
        ];
        for (text, class) in cases {
            assert_eq!(class_of(text), class, "{text}");
        }
    }

    #[test]
    fn a_timeout_leaves_the_outcome_unknown() {
        assert_eq!(classify(&Error::TimedOut), ErrorClass::UnknownOutcome);
    }

    #[tokio::test]
    async fn a_refused_connection_is_retried_because_nothing_was_sent() {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let client = clickhouse::Client::default().with_url(format!("http://127.0.0.1:{port}"));
        let error = client.query("SELECT 1").fetch_one::<u8>().await.unwrap_err();
        assert_eq!(classify(&error), ErrorClass::Retry, "{error:?}");
    }

    #[tokio::test]
    async fn a_connection_that_breaks_before_the_answer_leaves_the_outcome_unknown() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = clickhouse::Client::default().with_url(format!("http://{}", listener.local_addr().unwrap()));
        let server = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            stream.readable().await.unwrap();
            drop(stream);
        });
        let error = client.query("SELECT 1").fetch_one::<u8>().await.unwrap_err();
        server.await.unwrap();
        assert_eq!(classify(&error), ErrorClass::UnknownOutcome, "{error:?}");
    }
}

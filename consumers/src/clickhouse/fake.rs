//! A server that answers as a test says, for what the ClickHouse of the tests cannot do: replication, and being away for some.

use std::sync::{Arc, Mutex};

use axum::{Router, body::Bytes, extract::RawQuery, http::StatusCode};
use tokio::net::TcpListener;

/// What it was asked and told.
pub(crate) struct Fake {
    pub(crate) url: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Fake {
    /// Answers each statement with a text, or with the code of an error.
    pub(crate) async fn start(answer: impl Fn(&str) -> Result<String, u32> + Clone + Send + Sync + 'static) -> Self {
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let kept = Arc::clone(&asked);
        let routes = Router::new().fallback(async move |RawQuery(settings): RawQuery, body: Bytes| {
            let sql = String::from_utf8(body.to_vec()).unwrap();
            kept.lock().unwrap().push(format!("{sql} [{}]", settings.unwrap_or_default()));
            match answer(&sql) {
                Ok(text) => (StatusCode::OK, text),
                Err(code) => (StatusCode::INTERNAL_SERVER_ERROR, format!("Code: {code}. DB::Exception: as told.")),
            }
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Self { url, asked }
    }

    /// Each statement with its settings in brackets.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    /// The statements alone.
    pub(crate) fn statements(&self) -> Vec<String> {
        self.asked().iter().map(|asked| asked.split(" [").next().unwrap().to_owned()).collect()
    }
}

//! REST as a client sees it.

use std::time::Duration;

pub use reqwest::Method;
use serde_json::Value;

/// A REST client, anonymous or somebody.
#[derive(Debug, Clone)]
pub struct Rest {
    base: String,
    token: Option<String>,
    http: reqwest::Client,
}

/// What came back.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The media type, without parameters.
    pub content_type: String,
    /// The body; null when it is empty or not JSON.
    pub body: Value,
    /// The body as text.
    pub text: String,
    /// `Retry-After` in seconds.
    pub retry_after_s: Option<u64>,
}

impl Answer {
    /// The body; panics unless the status is `status`.
    #[track_caller]
    pub fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text);
        self.body
    }

    /// The `code` of a refusal.
    pub fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or("")
    }
}

impl Rest {
    /// Nobody, at `http://host:port`.
    pub fn new(base: &str) -> Self {
        Self { base: base.to_owned(), token: None, http: reqwest::Client::new() }
    }

    /// The same place with a token.
    #[must_use]
    pub fn with_token(&self, token: &str) -> Self {
        Self { token: Some(token.to_owned()), ..self.clone() }
    }

    /// GET `path` (from `/` on).
    pub async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path, None).await
    }

    /// POST.
    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.call(Method::POST, path, Some(body.to_string())).await
    }

    /// DELETE.
    pub async fn delete(&self, path: &str) -> Answer {
        self.call(Method::DELETE, path, None).await
    }

    /// Any method with any text as the JSON body.
    pub async fn call(&self, method: Method, path: &str, body: Option<String>) -> Answer {
        let answer = self.try_call(method, path, body, crate::PATIENCE).await;
        answer.unwrap_or_else(|error| panic!("{path}: {error:?}"))
    }

    /// The same, for when there may be no answer, within `limit`.
    pub async fn try_call(
        &self,
        method: Method,
        path: &str,
        body: Option<String>,
        limit: Duration,
    ) -> reqwest::Result<Answer> {
        let mut request = self.http.request(method, format!("{}{path}", self.base)).timeout(limit);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body);
        }
        let answer = request.send().await?;
        let header = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let content_type = header("content-type").unwrap_or_default();
        let retry_after_s = header("retry-after").and_then(|value| value.parse().ok());
        let status = answer.status().as_u16();
        let text = answer.text().await.unwrap_or_default();
        let content_type = content_type.split(';').next().unwrap_or_default().to_owned();
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        Ok(Answer { status, content_type, body, text, retry_after_s })
    }
}

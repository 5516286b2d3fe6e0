//! RabbitMQ's management API: what an operator sees and does.
//!
//! Knows the API and no topology of ours.

use reqwest::{Client, Method};
use serde_json::{Value, json};

/// The API of one virtual host.
#[derive(Debug, Clone)]
pub struct Management {
    base: String,
    vhost: String,
    http: Client,
}

impl Management {
    /// `url` with user and password, as the services print it; `vhost` as it is called.
    pub fn new(url: &str, vhost: &str) -> Self {
        Self { base: format!("{url}/api"), vhost: vhost.replace('/', "%2F"), http: Client::new() }
    }

    /// Creates the virtual host; its creator may do everything in it.
    pub async fn create_vhost(&self) {
        self.call(Method::PUT, &format!("vhosts/{}", self.vhost), Some(json!({}))).await;
    }

    /// The queues as the API describes them.
    pub async fn queues(&self) -> Vec<Value> {
        let queues = self.call(Method::GET, &format!("queues/{}", self.vhost), None).await;
        queues.as_array().cloned().unwrap_or_default()
    }

    /// Up to `count` messages of a queue, headers and all, which stay in it.
    pub async fn look(&self, queue: &str, count: u32) -> Vec<Value> {
        self.get(queue, count, "ack_requeue_true").await
    }

    /// Takes up to `count` messages out of a queue.
    pub async fn take(&self, queue: &str, count: u32) -> Vec<Value> {
        self.get(queue, count, "ack_requeue_false").await
    }

    async fn get(&self, queue: &str, count: u32, ackmode: &str) -> Vec<Value> {
        let ask = json!({"count": count, "ackmode": ackmode, "encoding": "base64"});
        let messages = self.call(Method::POST, &format!("queues/{}/{queue}/get", self.vhost), Some(ask)).await;
        messages.as_array().cloned().unwrap_or_default()
    }

    /// Publishes a message as `look` and `take` return them; false when no queue got it.
    pub async fn publish(&self, exchange: &str, routing_key: &str, properties: &Value, payload_base64: &str) -> bool {
        let message = json!({
            "properties": properties, "routing_key": routing_key, "payload": payload_base64, "payload_encoding": "base64",
        });
        let path = format!("exchanges/{}/{exchange}/publish", self.vhost);
        self.call(Method::POST, &path, Some(message)).await["routed"] == true
    }

    /// Has the broker itself move what lies in `queue` to `exchange` with `routing_key` and then stop.
    pub async fn shovel(&self, queue: &str, exchange: &str, routing_key: &str) {
        let name = format!("move-{}", uuid::Uuid::new_v4().simple());
        let local = format!("amqp:///{}", self.vhost);
        let value = json!({"value": {
            "src-protocol": "amqp091", "src-uri": local, "src-queue": queue, "src-delete-after": "queue-length",
            "dest-protocol": "amqp091", "dest-uri": local, "dest-exchange": exchange, "dest-exchange-key": routing_key,
            "ack-mode": "on-confirm",
        }});
        self.call(Method::PUT, &format!("parameters/shovel/{}/{name}", self.vhost), Some(value)).await;
    }

    async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Value {
        let request = self.http.request(method, format!("{}/{path}", self.base));
        let request = if let Some(body) = body { request.json(&body) } else { request };
        let answer = request.send().await.expect("the management API answers");
        let status = answer.status();
        let text = answer.text().await.expect("an answer has a body");
        assert!(status.is_success(), "{path}: {status} {text}");
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }
}

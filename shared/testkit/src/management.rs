//! RabbitMQ's management API: what an operator sees and does.
//!
//! Knows the API and no topology of ours.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use reqwest::{Client, Method};
use serde_json::{Value, json};

/// How long a broker that answers at all may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// Why the management API gave no answer: the broker is away, still starting, or refuses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoAnswer {
    what: String,
}

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for NoAnswer {}

/// What is in a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QueueDepth {
    /// Messages that wait to be delivered.
    pub messages_ready: u64,
    /// Messages that were delivered and not settled yet.
    pub messages_unacknowledged: u64,
    /// Those who take messages from it, as they were up to five seconds ago.
    pub consumers: u64,
}

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

    /// Creates a durable queue.
    pub async fn create_queue(&self, name: &str) {
        self.call(Method::PUT, &format!("queues/{}/{name}", self.vhost), Some(json!({"durable": true}))).await;
    }

    /// The queues as the API describes them.
    pub async fn queues(&self) -> Vec<Value> {
        let queues = self.call(Method::GET, &format!("queues/{}", self.vhost), None).await;
        queues.as_array().cloned().unwrap_or_default()
    }

    /// What is in each queue. The queues themselves are asked for their messages, so these counts are
    /// of this moment, unlike those of `queues`, which may be five seconds old.
    pub async fn queue_depths(&self) -> BTreeMap<String, QueueDepth> {
        self.try_queue_depths().await.unwrap_or_else(|error| panic!("{error}"))
    }

    /// Like `queue_depths`, for times when the broker may be away.
    pub async fn try_queue_depths(&self) -> Result<BTreeMap<String, QueueDepth>, NoAnswer> {
        let path = format!("queues/{}?disable_stats=true&enable_queue_totals=true", self.vhost);
        let queues = self.ask(Method::GET, &path, None).await?;
        let consumers = self.ask(Method::GET, &format!("consumers/{}", self.vhost), None).await?;
        let mut depths = BTreeMap::new();
        for queue in queues.as_array().into_iter().flatten() {
            // A queue whose process is starting or gone has no counts; it is not empty for that.
            let counted = |name: &str| {
                queue[name].as_u64().ok_or_else(|| NoAnswer { what: format!("{}: no {name}", queue["name"]) })
            };
            let name = queue["name"].as_str().unwrap_or_default();
            let takes = |consumer: &&Value| consumer["queue"]["name"] == name;
            let depth = QueueDepth {
                messages_ready: counted("messages_ready")?,
                messages_unacknowledged: counted("messages_unacknowledged")?,
                consumers: consumers.as_array().into_iter().flatten().filter(takes).count() as u64,
            };
            depths.insert(name.to_owned(), depth);
        }
        Ok(depths)
    }

    /// The resources the broker has run out of (`disk space`, `memory`), now.
    pub async fn alarms(&self) -> Result<BTreeSet<String>, NoAnswer> {
        let (status, text) = self.send(Method::GET, "health/checks/local-alarms", None).await?;
        let answer: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
        let resources = |answer: &Value| {
            let alarms = answer["alarms"].as_array().into_iter().flatten();
            alarms.filter_map(|alarm| Some(alarm["resource"].as_str()?.to_owned())).collect()
        };
        match status {
            200 => Ok(BTreeSet::new()),
            503 if answer["alarms"].is_array() => Ok(resources(&answer)),
            _ => Err(NoAnswer { what: format!("alarms: {status} {text}") }),
        }
    }

    /// The nodes as the API describes them (`disk_free_alarm`, `mem_alarm`, …), up to five seconds old.
    pub async fn try_nodes(&self) -> Result<Vec<Value>, NoAnswer> {
        Ok(self.ask(Method::GET, "nodes", None).await?.as_array().cloned().unwrap_or_default())
    }

    /// Like `look`, for times when the broker may be away.
    pub async fn try_look(&self, queue: &str, count: u32) -> Result<Vec<Value>, NoAnswer> {
        self.try_get(queue, count, "ack_requeue_true").await
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
        self.try_get(queue, count, ackmode).await.unwrap_or_else(|error| panic!("{error}"))
    }

    async fn try_get(&self, queue: &str, count: u32, ackmode: &str) -> Result<Vec<Value>, NoAnswer> {
        let ask = json!({"count": count, "ackmode": ackmode, "encoding": "base64"});
        let messages = self.ask(Method::POST, &format!("queues/{}/{queue}/get", self.vhost), Some(ask)).await?;
        Ok(messages.as_array().cloned().unwrap_or_default())
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
        self.ask(method, path, body).await.unwrap_or_else(|error| panic!("{error}"))
    }

    async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> Result<Value, NoAnswer> {
        let (status, text) = self.send(method, path, body).await?;
        if !(200..300).contains(&status) {
            return Err(NoAnswer { what: format!("{path}: {status} {text}") });
        }
        Ok(serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    async fn send(&self, method: Method, path: &str, body: Option<Value>) -> Result<(u16, String), NoAnswer> {
        let request = self.http.request(method, format!("{}/{path}", self.base)).timeout(ANSWER_LIMIT);
        let request = if let Some(body) = body { request.json(&body) } else { request };
        let failed = |error: reqwest::Error| NoAnswer { what: format!("{path}: {}", error.without_url()) };
        let answer = request.send().await.map_err(failed)?;
        let status = answer.status().as_u16();
        Ok((status, answer.text().await.map_err(failed)?))
    }
}

//! A client that says what no library would: properties of any bytes.

use lapin::uri::AMQPUri;
use testkit::PATIENCE;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
const END: u8 = 0xCE;

/// A connection with one channel on which publishes are confirmed.
pub(crate) struct Raw(TcpStream);

fn short(text: &[u8]) -> Vec<u8> {
    [&[text.len() as u8], text].concat()
}

fn method(class: u16, number: u16, arguments: &[&[u8]]) -> Vec<u8> {
    [&class.to_be_bytes()[..], &number.to_be_bytes(), &arguments.concat()].concat()
}

impl Raw {
    pub(crate) async fn connect(url: &str) -> Self {
        let uri: AMQPUri = url.parse().expect("a URL");
        let (authority, login) = (&uri.authority, &uri.authority.userinfo);
        let socket = TcpStream::connect((authority.host.as_str(), authority.port)).await.expect("connected");
        let mut raw = Self(socket);
        raw.0.write_all(b"AMQP\0\0\x09\x01").await.expect("sent");
        raw.until(10, 10).await;
        let secret = format!("\0{}\0{}", login.username, login.password);
        let secret_size = (secret.len() as u32).to_be_bytes();
        let login = [&[0; 4][..], &short(b"PLAIN"), &secret_size, secret.as_bytes(), &short(b"en_US")];
        raw.say(0, &method(10, 11, &login)).await;
        let limits = raw.until(10, 30).await;
        raw.say(0, &method(10, 31, &[&limits[..6], &[0, 0]])).await;
        raw.say(0, &method(10, 40, &[&short(uri.vhost.as_bytes()), &[0, 0]])).await;
        raw.until(10, 41).await;
        raw.say(1, &method(20, 10, &[&[0]])).await;
        raw.until(20, 11).await;
        raw.say(1, &method(85, 10, &[&[0]])).await;
        raw.until(85, 11).await;
        raw
    }

    /// Publishes a persistent message whose `app_id` is these bytes.
    pub(crate) async fn publish(&mut self, (exchange, key): (&str, &str), app_id: &[u8], body: &[u8]) {
        let target = [&[0, 0][..], &short(exchange.as_bytes()), &short(key.as_bytes()), &[0]];
        self.say(1, &method(60, 40, &target)).await;
        let size = (body.len() as u64).to_be_bytes();
        // Of all properties the delivery mode and the app id.
        let header = [&[0, 60, 0, 0][..], &size, &0x1008_u16.to_be_bytes(), &[2], &short(app_id)].concat();
        self.frame(HEADER, 1, &header).await;
        self.frame(BODY, 1, body).await;
        self.until(60, 80).await;
    }

    async fn say(&mut self, channel: u16, payload: &[u8]) {
        self.frame(METHOD, channel, payload).await;
    }

    async fn frame(&mut self, kind: u8, channel: u16, payload: &[u8]) {
        let size = (payload.len() as u32).to_be_bytes();
        let frame = [&[kind][..], &channel.to_be_bytes(), &size, payload, &[END]].concat();
        self.0.write_all(&frame).await.expect("sent");
    }

    /// The arguments of the next method, which must be this one.
    async fn until(&mut self, class: u16, number: u16) -> Vec<u8> {
        let reading = async {
            let mut head = [0; 7];
            self.0.read_exact(&mut head).await.expect("a frame");
            let size = u32::from_be_bytes([head[3], head[4], head[5], head[6]]) as usize;
            let mut payload = vec![0; size + 1];
            self.0.read_exact(&mut payload).await.expect("its payload");
            payload
        };
        let payload = tokio::time::timeout(PATIENCE, reading).await.expect("an answer");
        assert_eq!(payload[..4], method(class, number, &[])[..], "{}", String::from_utf8_lossy(&payload));
        payload[4..payload.len() - 1].to_vec()
    }
}

//! The first lines on the terminal: where to click and what to paste.

use std::io::{self, Write as _};
use std::net::SocketAddr;

use config::{Engine, Settings};

/// Prints how to try the server that listens on `address`, if anybody reads it.
pub(crate) fn print(settings: &Settings, address: SocketAddr) {
    let mut out = io::stdout().lock();
    if let Err(error) = out.write_all(text(settings, address).as_bytes()).and_then(|()| out.flush()) {
        tracing::debug!(%error, "nobody reads the standard output");
    }
}

fn text(settings: &Settings, address: SocketAddr) -> String {
    let url = if address.ip().is_unspecified() {
        format!("http://localhost:{}", address.port())
    } else {
        format!("http://{address}")
    };
    let engine = match &settings.engine {
        Engine::Embedded { data_dir, .. } => format!("on the embedded engine, data in {}", data_dir.display()),
        Engine::Distributed { .. } => "on Postgres, Redis and RabbitMQ".to_owned(),
    };
    let docs = if settings.environment.is_production() { String::new() } else { format!("  API     {url}/api-docs\n") };
    format!(
        "\
ChatChit is running {engine}

  Click   {url}   (open it in two tabs and be two people)
{docs}
  Paste   curl -s {url}/api/v1/auth/register -H 'content-type: application/json' \\
            -d '{{\"email\":\"ann@example.com\",\"password\":\"correct horse\",\"firstName\":\"Ann\",\"lastName\":\"Lee\"}}'

  With socket.io-client and the accessToken of the answer:
          const socket = io('{url}/chat', {{ transports: ['websocket'], auth: {{ token }} }})
          socket.on('session.ready', console.log).on('message.delivered', console.log)
          socket.emit('message.send', {{ roomId, content: 'hello', clientMsgId: 'm-1' }}, console.log)

  Stop    Ctrl-C
"
    )
}

#[cfg(test)]
mod tests {
    use config::Role;

    use super::*;

    #[test]
    fn it_says_where_to_click_even_on_a_free_port() {
        let settings = Settings::from_pairs(Role::AllInOne, &[]).expect("fine");
        let text = text(&settings, "0.0.0.0:4711".parse().expect("an address"));
        assert!(text.contains("Click   http://localhost:4711 ") && text.contains("/api/v1/auth/register"), "{text}");
    }

    #[test]
    fn it_does_not_name_what_production_lacks() {
        let settings = Settings::from_pairs(Role::AllInOne, &[("APP_ENV", "production")]).expect("fine");
        assert!(!text(&settings, "127.0.0.1:80".parse().expect("an address")).contains("/api-docs"));
    }
}

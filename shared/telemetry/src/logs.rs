//! Logs: one event a line on standard error, pretty for people and JSON for machines.
//!
//! Standard output stays free for what commands print. Knows no other setting than its own. The
//! invariant: whatever happens, a panic included, is one event with fields.

use std::io::{self, IsTerminal as _};
use std::panic::{self, PanicHookInfo};

use config::{LogFormat, LogSettings};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// What libraries say too loudly: the broker's client logs returned messages with their bytes, the
/// database's each notice. A filter that names them says otherwise.
const QUIET: &str = "lapin=off,sqlx=warn,hyper=info,hyper_util=info,tungstenite=info,tokio_tungstenite=info";

/// Starts the logs of this process; the first call counts.
pub fn init(settings: &LogSettings) {
    let filter = format!("{QUIET},{}", settings.filter.as_deref().unwrap_or("info"));
    // `config` has checked the filter; what it lets pass and this does not is left out with a line on standard error.
    let registry = tracing_subscriber::registry().with(EnvFilter::builder().parse_lossy(filter));
    let terminal = io::stderr().is_terminal();
    let format = settings.format.unwrap_or(if terminal { LogFormat::Pretty } else { LogFormat::Json });
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    let first = match format {
        LogFormat::Pretty => registry.with(lines.with_ansi(terminal)).try_init(),
        LogFormat::Json => registry.with(lines.json().flatten_event(true).with_span_list(false)).try_init(),
    };
    if first.is_ok() {
        panic::set_hook(Box::new(log_panic));
    }
}

fn log_panic(info: &PanicHookInfo<'_>) {
    let place = info.location().map(ToString::to_string).unwrap_or_default();
    let payload = info.payload();
    let text = payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    tracing::error!(place, reason = text.unwrap_or("of unknown type"), "panic");
}

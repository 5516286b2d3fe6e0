//! From text to values: pure functions whose error says what a right value would be.
//!
//! No error repeats the text; the caller adds it where that is allowed.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use base64::Engine as _;

use crate::{Environment, IpRange, LogFormat};

/// A key that signs inside the system is at least this long, bytes (RFC 2104 section 3).
const HMAC_KEY_BYTES: usize = 32;
/// No lifetime is longer: what is meant to last for ever is better said in other ways.
const LONGEST: Duration = Duration::from_hours(3650 * 24);

type Parsed<T> = Result<T, String>;

/// One of a few names.
fn one_of<T: Copy>(all: &[T], name: fn(T) -> &'static str, text: &str) -> Parsed<T> {
    all.iter().copied().find(|value| name(*value) == text).ok_or_else(|| {
        let names: Vec<&str> = all.iter().map(|value| name(*value)).collect();
        format!("must be one of {}", names.join(", "))
    })
}

pub(crate) fn environment(text: &str) -> Parsed<Environment> {
    one_of(&Environment::ALL, Environment::as_str, text)
}

pub(crate) fn log_format(text: &str) -> Parsed<LogFormat> {
    one_of(&LogFormat::ALL, LogFormat::as_str, text)
}

/// `full` is true, `normal` is false.
pub(crate) fn sync_full(text: &str) -> Parsed<bool> {
    one_of(&[true, false], |full| if full { "full" } else { "normal" }, text)
}

pub(crate) fn on_or_off(text: &str) -> Parsed<bool> {
    match text {
        "on" | "true" | "1" | "yes" => Ok(true),
        "off" | "false" | "0" | "no" => Ok(false),
        _ => Err("must be on or off".to_owned()),
    }
}

pub(crate) fn host(text: &str) -> Parsed<IpAddr> {
    if text == "localhost" {
        return Ok(Ipv4Addr::LOCALHOST.into());
    }
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    bare.parse().map_err(|_| "must be an IPv4 or IPv6 address".to_owned())
}

pub(crate) fn port(text: &str) -> Parsed<u16> {
    number(text, 0, 65_535).map(|port| port as u16)
}

pub(crate) fn shards(text: &str) -> Parsed<u16> {
    number(text, 1, 64).map(|shards| shards as u16)
}

pub(crate) fn limit(text: &str) -> Parsed<u32> {
    number(text, 0, 1_000_000)
}

fn number(text: &str, least: u32, most: u32) -> Parsed<u32> {
    // `parse` also takes "+5".
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    let value = text.parse().ok().filter(|value| digits && (least..=most).contains(value));
    value.ok_or_else(|| format!("must be a whole number from {least} to {most}"))
}

/// A duration that may be zero.
pub(crate) fn duration(text: &str) -> Parsed<Duration> {
    let units = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
    let form = || "must be a duration: a whole number and one of ms, s, m, h, d".to_owned();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (count, unit) = text.split_at(digits);
    let (_, unit_ms) = units.into_iter().find(|(name, _)| *name == unit).ok_or_else(form)?;
    let count: u64 = count.parse().map_err(|_| form())?;
    let duration = Duration::from_millis(count.checked_mul(unit_ms).ok_or_else(form)?);
    if duration > LONGEST { Err("must be at most 3650d".to_owned()) } else { Ok(duration) }
}

/// A duration that may be zero, of an hour at most.
pub(crate) fn grace(text: &str) -> Parsed<Duration> {
    let duration = duration(text)?;
    if duration > Duration::from_hours(1) { Err("must be at most 1h".to_owned()) } else { Ok(duration) }
}

/// A duration of at least a day, or zero for ever. Shorter, and an outage would make what waited too old.
pub(crate) fn kept(text: &str) -> Parsed<Option<Duration>> {
    match duration(text)? {
        Duration::ZERO => Ok(None),
        kept if kept < Duration::from_hours(24) => Err("must be at least 1d, or 0s for ever".to_owned()),
        kept => Ok(Some(kept)),
    }
}

/// A duration of at least a second.
pub(crate) fn lifetime(text: &str) -> Parsed<Duration> {
    let duration = duration(text)?;
    if duration < Duration::from_secs(1) { Err("must be at least 1s".to_owned()) } else { Ok(duration) }
}

/// A URL with one of `schemes` and a host; what else it may hold, its client decides.
fn url(schemes: &[&str], text: &str) -> Parsed<String> {
    let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
    if !schemes.contains(&scheme) {
        return Err(format!("must start with {}", schemes.map_join(" or ")));
    }
    if rest.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err("must hold no white space".to_owned());
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let hosts = authority.rsplit_once('@').map_or(authority, |(_, after)| after);
    // Only a cluster has several.
    let each: Vec<&str> = if scheme.ends_with("+cluster") { hosts.split(',').collect() } else { vec![hosts] };
    each.into_iter().try_for_each(host_and_port)?;
    Ok(text.to_owned())
}

fn host_and_port(host_port: &str) -> Parsed<()> {
    let (host, port) = match host_port.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, after)) => (host, after.strip_prefix(':')),
        None => host_port.split_once(':').map_or((host_port, None), |(host, port)| (host, Some(port))),
    };
    if host.is_empty() {
        return Err("names no host".to_owned());
    }
    match port.map(self::port) {
        None | Some(Ok(1..)) => Ok(()),
        Some(_) => Err("has a bad port".to_owned()),
    }
}

trait MapJoin {
    fn map_join(&self, between: &str) -> String;
}

impl MapJoin for &[&str] {
    fn map_join(&self, between: &str) -> String {
        self.iter().map(|scheme| format!("{scheme}://")).collect::<Vec<_>>().join(between)
    }
}

pub(crate) fn database_url(text: &str) -> Parsed<String> {
    url(&["postgres", "postgresql"], text)
}

pub(crate) fn redis_url(text: &str) -> Parsed<String> {
    url(&["redis", "rediss", "redis+cluster", "rediss+cluster"], text)
}

pub(crate) fn rabbitmq_url(text: &str) -> Parsed<String> {
    url(&["amqp", "amqps"], text)
}

/// A secret of at least that many bytes.
pub(crate) fn jwt_secret(text: &str, least_bytes: usize) -> Parsed<String> {
    if text.len() < least_bytes { Err(format!("must have at least {least_bytes} bytes")) } else { Ok(text.to_owned()) }
}

/// `kid:base64,kid2:base64`. The text stays as it is: what signs reads it once more.
pub(crate) fn hmac_keys(text: &str) -> Parsed<String> {
    let mut ids: Vec<&str> = Vec::new();
    for (index, entry) in text.split(',').map(str::trim).filter(|entry| !entry.is_empty()).enumerate() {
        let number = index + 1;
        let malformed = || format!("entry {number} is not kid:base64");
        let (id, key) = entry.split_once(':').ok_or_else(malformed)?;
        let plain = id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        if !(1..=64).contains(&id.len()) || !plain {
            return Err(format!("the name of entry {number} must have 1 to 64 letters, digits, '-', '_' or '.'"));
        }
        let key = base64::engine::general_purpose::STANDARD.decode(key.trim()).map_err(|_| malformed())?;
        if key.len() < HMAC_KEY_BYTES {
            return Err(format!("the key of entry {number} is shorter than {HMAC_KEY_BYTES} bytes"));
        }
        if ids.contains(&id) {
            return Err(format!("entry {number} has the name of an earlier one"));
        }
        ids.push(id);
    }
    if ids.is_empty() { Err("names no key".to_owned()) } else { Ok(text.to_owned()) }
}

fn listed(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|entry| !entry.is_empty())
}

pub(crate) fn origins(text: &str) -> Parsed<Vec<String>> {
    let origins: Vec<String> = listed(text).map(str::to_owned).collect();
    let well_formed = |origin: &String| {
        let rest = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
        rest.is_some_and(|rest| {
            !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_graphic() && !b"/?#@*".contains(&b))
        })
    };
    if origins == ["*"] || origins.iter().all(well_formed) {
        Ok(origins)
    } else {
        Err("must be * or origins like https://chat.example.com, without a path".to_owned())
    }
}

pub(crate) fn ranges(text: &str) -> Parsed<Vec<IpRange>> {
    let ranges: Option<Vec<IpRange>> = listed(text).map(IpRange::parse).collect();
    ranges.ok_or_else(|| "must be addresses or CIDR blocks, separated by commas".to_owned())
}

/// Directives of `tracing-subscriber`; those without a level or with spans are taken as they are.
pub(crate) fn log_filter(text: &str) -> Parsed<String> {
    let levels = ["off", "error", "warn", "info", "debug", "trace", "0", "1", "2", "3", "4", "5"];
    let known = |level: &str| levels.contains(&level.to_ascii_lowercase().as_str());
    let target =
        |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_:-".contains(&b));
    let well_formed = |directive: &str| match directive.rsplit_once('=') {
        _ if directive.contains('[') => true,
        Some((name, level)) => target(name) && known(level),
        None => known(directive) || target(directive),
    };
    if listed(text).all(well_formed) {
        Ok(text.to_owned())
    } else {
        Err("must be levels such as info, or module=level, separated by commas".to_owned())
    }
}

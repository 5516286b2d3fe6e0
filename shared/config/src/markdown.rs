//! The documentation of the variables, made from their table.

use std::fmt::Write as _;

use crate::variable::{self, Variable};

const HEAD: &str = "\
# Configuration

<!-- Made by `chatchit checkconfig --markdown`; edit shared/config/src/variable.rs instead. -->

Everything is set by environment variables. Outside production (`APP_ENV`), `.env.local` and then `.env` of the working
directory fill in what the environment does not say; there an empty value means \"not set\". Secrets (marked *secret*) can
also come from a file: `NAME_FILE=/run/secrets/name` instead of `NAME=…`, never both. Durations are a whole number and a
unit: `500ms`, `90s`, `15m`, `12h`, `7d`.

All variables are checked before anything listens. For each wrong one there is one line on standard error, with its name,
what was wrong and a right example, never a secret's value; the exit code is then 2. An unknown or half-set engine is never
replaced by another one. `chatchit checkconfig` checks without starting.

| Variable | What | Default | Zero means | Example |
|---|---|---|---|---|
";

const TAIL: &str = "
## Who needs what

| | `chatchit` (all-in-one) | `gateway` | `api` | `processor` |
|---|---|---|---|---|
| `DATABASE_URL`, `REDIS_URL`, `RABBITMQ_URL` | all three or none | required | required | required |
| `JWT_ACCESS_TOKEN` | made once | required | required | – |
| `HMAC_KEYS` | made once | required | required | required |

What the all-in-one makes lies in `DATA_DIR/secrets` (folder 0700, files 0600) and is never overwritten. Keep it with the data:
without the token secret everybody has to log in again, without the keys events that wait in a queue become dead letters.

## Rotating `HMAC_KEYS`

1. Append the new key on every service: `old:…,new:…` – all services now verify both, and sign with the old one.
2. Put it first: `new:…,old:…` – they sign with the new one.
3. Take the old one away once the queues, the retry queues and the dead letters hold nothing that it signed.
";

/// `docs/CONFIGURATION.md` as a whole.
pub fn markdown() -> String {
    let mut text = HEAD.to_owned();
    for variable in variable::ALL {
        row(&mut text, variable);
    }
    text + TAIL
}

fn row(text: &mut String, variable: &Variable) {
    let secret = if variable.secret { " *secret*" } else { "" };
    let default = match variable.default {
        None => "–".to_owned(),
        Some("") => "empty".to_owned(),
        Some(default) => format!("`{default}`"),
    };
    let zero = variable.zero.unwrap_or("–");
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "| `{}`{secret} | {} | {default} | {zero} | `{}` |",
        variable.name, variable.what, variable.example
    );
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_document_matches_the_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/CONFIGURATION.md");
        let document = std::fs::read_to_string(path).expect("docs/CONFIGURATION.md is there");
        assert!(
            document == super::markdown(),
            "docs/CONFIGURATION.md is old: cargo run -- checkconfig --markdown > docs/CONFIGURATION.md"
        );
    }
}

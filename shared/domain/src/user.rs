//! What an account may be called.

use crate::{Invalid, limits, message::check_text};

/// An e-mail address in the form it is stored and compared in: trimmed, lower case.
///
/// The check is deliberately light (one `@`, a dot in the domain, no white space): only a mail that
/// arrives proves an address.
pub fn normalise_email(text: &str) -> Result<String, Invalid> {
    let email = text.trim().to_lowercase();
    let invalid = || Invalid::new("email", "must be an e-mail address");
    if email.is_empty() {
        return Err(Invalid::new("email", "is required"));
    }
    let (local, host) = email.split_once('@').ok_or_else(invalid)?;
    let plain =
        |c: char| !c.is_whitespace() && !c.is_control() && !matches!(c, '@' | '<' | '>' | '(' | ')' | ',' | ';' | '"');
    let host_ok = host.contains('.') && !host.starts_with('.') && !host.ends_with('.') && !host.contains("..");
    if local.is_empty() || !host_ok || email.chars().count() > limits::EMAIL_CHARS {
        return Err(invalid());
    }
    if local.chars().all(plain) && host.chars().all(plain) { Ok(email) } else { Err(invalid()) }
}

/// A first or last name: 1 to 100 characters on one line.
pub fn check_name(field: &'static str, name: &str) -> Result<(), Invalid> {
    if name.trim().is_empty() {
        return Err(Invalid::new(field, "is required"));
    }
    if name.chars().count() > limits::NAME_CHARS {
        return Err(Invalid::new(field, "must have at most 100 characters"));
    }
    check_text(field, name, false)
}

/// A new password: 8 to 256 characters, whatever they are, in at most 1024 bytes.
pub fn check_password(password: &str) -> Result<(), Invalid> {
    if limits::PASSWORD_CHARS.contains(&password.chars().count()) && password.len() <= limits::PASSWORD_BYTES {
        Ok(())
    } else {
        Err(Invalid::new("password", "must have 8 to 256 characters"))
    }
}

/// A telephone number: digits with the usual marks, at most 32 characters.
pub fn check_phone(phone: &str) -> Result<(), Invalid> {
    let marks = |c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | ' ' | '(' | ')' | '.');
    if (3..=32).contains(&phone.len()) && phone.chars().all(marks) {
        Ok(())
    } else {
        Err(Invalid::new("phone", "must be a telephone number"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_compared_in_lower_case() {
        assert_eq!(normalise_email(" Ann@Example.COM "), Ok("ann@example.com".to_owned()));
    }

    #[test]
    fn passwords_are_counted_in_characters() {
        for good in ["12345678".to_owned(), "пароль12".to_owned(), "x".repeat(256), "👍".repeat(256)] {
            assert_eq!(check_password(&good), Ok(()), "{good}");
        }
        for bad in ["1234567".to_owned(), "пароль".to_owned(), "x".repeat(257), String::new()] {
            assert_eq!(check_password(&bad).expect_err("refused").field, "password", "{bad}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for bad in ["", "ann", "ann@", "@example.com", "a b@example.com", "a@b@c.de", "a@example", "a\0@example.com"] {
            assert!(normalise_email(bad).is_err(), "{bad:?}");
        }
    }
}

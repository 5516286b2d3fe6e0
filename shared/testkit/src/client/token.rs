//! Access tokens (RFC 7519, HS256), made by hand so that wrong ones can be made too.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;

/// Seconds since 1970.
pub fn now_s() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970");
    i64::try_from(since.as_secs()).expect("it is before the year 292 billion")
}

/// A token for `user`, issued now, valid for `lifetime_s` seconds (negative: expired).
pub fn mint(secret: &str, user: &str, lifetime_s: i64) -> String {
    let issued_at = now_s() + lifetime_s.min(0);
    sign(secret, "HS256", &json!({"sub": user, "iat": issued_at, "exp": now_s() + lifetime_s}))
}

/// A token with any claims that names any algorithm; `none` has an empty signature.
pub fn sign(secret: &str, algorithm: &str, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(&json!({"alg": algorithm, "typ": "JWT"})), part(claims));
    if algorithm == "none" {
        return format!("{signed}.");
    }
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("any length is a key");
    mac.update(signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_token_comes_out() {
        // RFC 7515 appendix A.1 has white space in its JSON; this one was made with another library.
        let token = sign("secret", "HS256", &json!({"sub": "u"}));
        assert_eq!(
            token,
            "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJ1In0.D9OYCASOic8f2se0l70pQbnYe4k4FisxamL3OAU6LCc"
        );
    }
}

//! Access tokens: HS256 over the shared secret (RFC 7515, RFC 7519).
//!
//! Reads no clock: whoever asks says what time it is. The invariant: claims exist only of a token
//! that was signed with HS256 under our secret, has a UUID as subject and has not expired.

use std::fmt;
use std::time::Duration;

use domain::{Timestamp, UserId};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};

/// A longer text is not looked at; ours have about 200 bytes.
const TOKEN_BYTES: usize = 8 * 1024;

/// Issues and verifies access tokens. Clones share the keys' values.
#[derive(Clone)]
pub struct Tokens {
    signing: EncodingKey,
    verifying: DecodingKey,
    rules: Validation,
    lifetime: Duration,
}

/// What a genuine, unexpired token says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claims {
    /// Whose token it is (`sub`).
    pub user: UserId,
    /// When it was issued (`iat`, or to the millisecond in our own), if it says so.
    pub issued_at: Option<Timestamp>,
    /// From when on it is void (`exp`).
    pub expires_at: Timestamp,
}

/// Why a token is no good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Genuine, but its time is over.
    #[error("the token has expired")]
    Expired,
    /// Malformed, signed otherwise, not valid yet, or without what is required.
    #[error("the token is not valid")]
    Invalid,
}

impl Claims {
    /// True when the account's tokens were voided after this one was issued. A token that does not
    /// say when it was issued counts as older than any voiding.
    pub fn are_void(&self, tokens_valid_after: Timestamp) -> bool {
        self.issued_at.unwrap_or_default() < tokens_valid_after
    }
}

/// The claims we write. `iatMs` is ours: a login in the same second as a sign-out would otherwise
/// be taken for older than it.
#[derive(Serialize)]
struct Issued {
    sub: UserId,
    iat: i64,
    #[serde(rename = "iatMs")]
    iat_ms: i64,
    exp: i64,
}

/// The claims we read; whatever else a token holds is ignored. Times may have fractions (RFC 7519
/// section 2, `NumericDate`).
#[derive(Deserialize)]
struct Presented {
    sub: String,
    exp: f64,
    iat: Option<f64>,
    #[serde(rename = "iatMs")]
    iat_ms: Option<i64>,
    nbf: Option<f64>,
}

/// How far an issuer's clock may be ahead of ours.
const CLOCK_SKEW: Duration = Duration::from_mins(1);

impl Tokens {
    /// Tokens signed with `secret`'s bytes that live for `lifetime`.
    pub fn new(secret: &SecretString, lifetime: Duration) -> Self {
        let secret = secret.expose_secret().as_bytes();
        let mut rules = Validation::new(Algorithm::HS256);
        // The library would read the system's clock; `verify` judges times itself.
        rules.validate_exp = false;
        rules.validate_nbf = false;
        // One secret, one audience: issuers elsewhere may put in what they like.
        rules.validate_aud = false;
        rules.set_required_spec_claims(&["exp", "sub"]);
        Self { signing: EncodingKey::from_secret(secret), verifying: DecodingKey::from_secret(secret), rules, lifetime }
    }

    /// How long a token lives.
    pub fn lifetime(&self) -> Duration {
        self.lifetime
    }

    /// A token for `user`, and when it will expire (a whole second).
    pub fn issue(&self, user: UserId, now: Timestamp) -> (String, Timestamp) {
        let exp = now.plus(self.lifetime).0.div_euclid(1000);
        let claims = Issued { sub: user, iat: now.0.div_euclid(1000), iat_ms: now.0, exp };
        let token = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &self.signing)
            .expect("an HMAC key signs whatever can be written as JSON");
        (token, Timestamp(exp.saturating_mul(1000)))
    }

    /// The claims of a genuine token at `now`; no leeway.
    pub fn verify(&self, token: &str, now: Timestamp) -> Result<Claims, TokenError> {
        if token.len() > TOKEN_BYTES {
            return Err(TokenError::Invalid);
        }
        let read =
            jsonwebtoken::decode::<Presented>(token, &self.verifying, &self.rules).map_err(|_| TokenError::Invalid)?;
        let claims = read.claims.checked(now)?;
        // RFC 7515 section 4.1.11: extensions that must be understood and are not void the token.
        let has_extensions = read.header.crit.is_some();
        if has_extensions { Err(TokenError::Invalid) } else { Ok(claims) }
    }
}

impl Presented {
    fn checked(self, now: Timestamp) -> Result<Claims, TokenError> {
        let user = UserId::parse("sub", &self.sub).map_err(|_| TokenError::Invalid)?;
        let expires_at = moment(self.exp).ok_or(TokenError::Invalid)?;
        let iat = self.iat.map(|iat| moment(iat).ok_or(TokenError::Invalid)).transpose()?;
        let not_before = self.nbf.map(|nbf| moment(nbf).ok_or(TokenError::Invalid)).transpose()?;
        // A token from the future would outlive every sign-out until then.
        let is_early = iat.is_some_and(|iat| iat > now.plus(CLOCK_SKEW)) || not_before.is_some_and(|nbf| now < nbf);
        if is_early {
            return Err(TokenError::Invalid);
        }
        if now >= expires_at {
            return Err(TokenError::Expired);
        }
        // The finer time counts only if it refines the standard one.
        let finer = self.iat_ms.map(Timestamp);
        let agrees = |at: Timestamp| iat.is_some_and(|iat| at.0.div_euclid(1000) == iat.0.div_euclid(1000));
        let issued_at = finer.filter(|at| agrees(*at)).or(iat);
        Ok(Claims { user, issued_at, expires_at })
    }
}

/// A `NumericDate` in milliseconds; `None` for what is no time of ours.
fn moment(seconds: f64) -> Option<Timestamp> {
    // Up to the year 9999: beyond, times cannot be written down.
    (0.0..=253_402_300_799.0).contains(&seconds).then_some(Timestamp((seconds * 1000.0) as i64))
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").field("lifetime", &self.lifetime).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;

    const ALICE: UserId = UserId(uuid::Uuid::from_u128(0xa));
    const NOW: Timestamp = Timestamp(1_700_000_000_250);
    const NOW_S: i64 = 1_700_000_000;

    fn tokens(secret: &str) -> Tokens {
        Tokens::new(&SecretString::from(secret), Duration::from_mins(1))
    }

    fn signed(algorithm: Algorithm, secret: &str, claims: &Value) -> String {
        let key = EncodingKey::from_secret(secret.as_bytes());
        jsonwebtoken::encode(&Header::new(algorithm), claims, &key).expect("test claims are JSON")
    }

    fn minted(claims: &Value) -> Result<Claims, TokenError> {
        tokens("secret").verify(&signed(Algorithm::HS256, "secret", claims), NOW)
    }

    #[test]
    fn a_token_says_whose_it_is_until_it_expires() {
        let (token, expires_at) = tokens("secret").issue(ALICE, NOW);
        assert_eq!(expires_at, Timestamp((NOW_S + 60) * 1000));
        let claims = tokens("secret").verify(&token, NOW).expect("genuine");
        assert_eq!(claims, Claims { user: ALICE, issued_at: Some(NOW), expires_at });
        let just_before = Timestamp(expires_at.0 - 1);
        assert!(tokens("secret").verify(&token, just_before).is_ok());
        assert_eq!(tokens("secret").verify(&token, expires_at), Err(TokenError::Expired));
    }

    #[test]
    fn another_secret_or_a_changed_byte_voids_a_token() {
        let (token, _) = tokens("secret").issue(ALICE, NOW);
        assert_eq!(tokens("other").verify(&token, NOW), Err(TokenError::Invalid));
        let (head, rest) = token.split_once('.').expect("three parts");
        let (body, signature) = rest.split_once('.').expect("three parts");
        let mut claims: Value = serde_json::from_slice(&BASE64.decode(body).expect("base64")).expect("JSON");
        claims["exp"] = json!(NOW_S + 3600);
        let forged = format!("{head}.{}.{signature}", BASE64.encode(claims.to_string()));
        assert_eq!(tokens("secret").verify(&forged, NOW), Err(TokenError::Invalid));
    }

    #[rstest]
    #[case(r#"{"alg":"none","typ":"JWT"}"#)]
    #[case(r#"{"alg":"None"}"#)]
    #[case(r#"{"typ":"JWT"}"#)]
    fn unsigned_tokens_are_refused(#[case] header: &str) {
        let claims = json!({ "sub": ALICE, "exp": NOW_S + 60 }).to_string();
        let unsigned = format!("{}.{}.", BASE64.encode(header), BASE64.encode(claims));
        assert_eq!(tokens("secret").verify(&unsigned, NOW), Err(TokenError::Invalid));
    }

    #[test]
    fn other_algorithms_are_refused_even_under_our_secret() {
        let claims = json!({ "sub": ALICE, "exp": NOW_S + 60 });
        for algorithm in [Algorithm::HS384, Algorithm::HS512] {
            let token = signed(algorithm, "secret", &claims);
            assert_eq!(tokens("secret").verify(&token, NOW), Err(TokenError::Invalid));
        }
    }

    #[test]
    fn extensions_that_must_be_understood_are_refused() {
        let mut header = Header::new(Algorithm::HS256);
        header.crit = Some(vec!["b64".to_owned()]);
        let claims = json!({ "sub": ALICE, "exp": NOW_S + 60 });
        let token = jsonwebtoken::encode(&header, &claims, &EncodingKey::from_secret(b"secret")).expect("JSON");
        assert_eq!(tokens("secret").verify(&token, NOW), Err(TokenError::Invalid));
    }

    #[rstest]
    #[case(json!({ "sub": ALICE }))]
    #[case(json!({ "exp": NOW_S + 60 }))]
    #[case(json!({ "sub": "admin", "exp": NOW_S + 60 }))]
    #[case(json!({ "sub": 7, "exp": NOW_S + 60 }))]
    #[case(json!({ "sub": ALICE, "exp": "soon" }))]
    #[case(json!({ "sub": ALICE, "exp": -1 }))]
    #[case(json!({ "sub": ALICE, "exp": 1e300 }))]
    #[case(json!({ "sub": ALICE, "exp": NOW_S + 60, "nbf": NOW_S + 1 }))]
    #[case(json!({ "sub": ALICE, "exp": NOW_S + 60, "iat": "now" }))]
    #[case(json!([]))]
    fn claims_that_lack_what_is_required_are_refused(#[case] claims: Value) {
        assert_eq!(minted(&claims), Err(TokenError::Invalid));
    }

    #[rstest]
    #[case(json!({ "sub": ALICE, "exp": NOW_S + 1 }), None)]
    #[case(json!({ "sub": ALICE, "exp": NOW_S + 60, "iat": NOW_S, "aud": "elsewhere", "roles": ["x"] }), Some(NOW_S * 1000))]
    #[case(json!({ "sub": ALICE, "exp": NOW_S as f64 + 60.5, "iat": NOW_S as f64 - 0.5 }), Some(NOW_S * 1000 - 500))]
    #[case(json!({ "sub": ALICE, "exp": NOW_S + 60, "iat": NOW_S, "iatMs": NOW_S * 1000 + 5000 }), Some(NOW_S * 1000))]
    fn tokens_minted_elsewhere_need_only_subject_and_expiry(#[case] claims: Value, #[case] issued_at: Option<i64>) {
        assert_eq!(minted(&claims).map(|c| (c.user, c.issued_at)), Ok((ALICE, issued_at.map(Timestamp))));
    }

    #[rstest]
    #[case("")]
    #[case("..")]
    #[case("a.b.c")]
    #[case("\u{1F600}")]
    fn what_is_no_token_is_refused(#[case] text: &str) {
        assert_eq!(tokens("secret").verify(text, NOW), Err(TokenError::Invalid));
        assert_eq!(tokens("secret").verify(&"x".repeat(TOKEN_BYTES + 1), NOW), Err(TokenError::Invalid));
    }

    #[test]
    fn voiding_spares_what_is_issued_later_in_the_same_second() {
        let voided_at = Timestamp(NOW.0 + 100);
        let claims = |at| {
            let (token, _) = tokens("secret").issue(ALICE, at);
            tokens("secret").verify(&token, at).expect("genuine")
        };
        assert!(claims(NOW).are_void(voided_at));
        assert!(!claims(Timestamp(NOW.0 + 200)).are_void(voided_at));
        assert!(!claims(NOW).are_void(Timestamp::default()), "nothing was ever voided");
        let undated = Claims { issued_at: None, ..claims(NOW) };
        assert!(undated.are_void(voided_at) && !undated.are_void(Timestamp::default()));
    }

    #[test]
    fn the_secret_is_not_shown() {
        assert!(!format!("{:?}", tokens("hush-hush")).contains("hush"));
    }
}

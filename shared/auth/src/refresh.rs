//! Refresh tokens: random, opaque, kept only as their hash.
//!
//! Knows nothing of families and rotation: that is the store's. The invariant: what the store holds
//! cannot be turned back into what a client holds.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand::TryRngCore as _;
use sha2::{Digest as _, Sha256};

/// Random bytes in a refresh token.
const TOKEN_BYTES: usize = 32;

/// A new refresh token for the client (43 characters, base64url) and its hash for the store.
pub fn generate() -> (String, [u8; 32]) {
    let mut bytes = [0u8; TOKEN_BYTES];
    rand::rngs::OsRng.try_fill_bytes(&mut bytes).expect("the operating system's random source works");
    let token = URL_SAFE_NO_PAD.encode(bytes);
    let hash = hash(&token);
    (token, hash)
}

/// The hash under which the store knows a refresh token.
///
/// A plain SHA-256 is enough: 256 random bits cannot be guessed, so nothing has to slow a guess down.
pub fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_found_by_its_hash_and_never_comes_twice() {
        let (one, one_hash) = generate();
        let (other, other_hash) = generate();
        assert_eq!(hash(&one), one_hash);
        assert_ne!((one, one_hash), (other, other_hash));
    }

    #[test]
    fn a_token_is_43_characters_that_need_no_escaping() {
        let (token, _) = generate();
        assert_eq!(token.len(), 43);
        assert!(token.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'));
    }
}

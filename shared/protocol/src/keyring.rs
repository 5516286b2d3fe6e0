//! The keys that sign what travels inside the system: the first signs, all verify.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// A key shorter than this is refused (RFC 2104 section 3 advises the hash's length).
pub const MIN_KEY_BYTES: usize = 32;

/// HMAC-SHA256 keys by id. Cheap to clone; never shows a key.
#[derive(Clone)]
pub struct Keyring {
    keys: Arc<[Key]>,
}

struct Key {
    id: Box<str>,
    mac: Hmac<Sha256>,
}

/// Why a key list was refused; never holds key material.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyringError {
    /// The list is empty.
    #[error("names no key")]
    Empty,
    /// An entry is not `kid:base64`.
    #[error("entry {0} is not kid:base64")]
    Malformed(usize),
    /// A key is shorter than 32 bytes.
    #[error("key {0:?} is shorter than 32 bytes")]
    TooShort(String),
    /// Two keys have the same id.
    #[error("key id {0:?} is there twice")]
    Duplicate(String),
}

impl Keyring {
    /// Reads `kid:base64,kid2:base64`.
    pub fn parse(text: &str) -> Result<Self, KeyringError> {
        let mut keys: Vec<Key> = Vec::new();
        for (index, entry) in text.split(',').map(str::trim).filter(|entry| !entry.is_empty()).enumerate() {
            let (id, encoded) = entry.split_once(':').ok_or(KeyringError::Malformed(index + 1))?;
            let plain = !id.is_empty()
                && id.len() <= 64
                && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
            let secret = base64::engine::general_purpose::STANDARD
                .decode(encoded.trim())
                .ok()
                .filter(|_| plain)
                .ok_or(KeyringError::Malformed(index + 1))?;
            if secret.len() < MIN_KEY_BYTES {
                return Err(KeyringError::TooShort(id.to_owned()));
            }
            if keys.iter().any(|key| &*key.id == id) {
                return Err(KeyringError::Duplicate(id.to_owned()));
            }
            let mac = Hmac::<Sha256>::new_from_slice(&secret).map_err(|_| KeyringError::Malformed(index + 1))?;
            keys.push(Key { id: id.into(), mac });
        }
        if keys.is_empty() { Err(KeyringError::Empty) } else { Ok(Self { keys: keys.into() }) }
    }

    /// The id of the key that signs.
    pub fn signing_id(&self) -> &str {
        &self.keys[0].id
    }

    /// Signs `parts`, each preceded by its length so that no two lists of parts look alike.
    pub fn sign(&self, parts: &[&[u8]]) -> [u8; 32] {
        digest(&self.keys[0].mac, parts).finalize().into_bytes().into()
    }

    /// True when `signature` is that of `parts` under the key `id`; `None` when there is no such
    /// key. Takes the same time wherever the two differ.
    pub fn verify(&self, id: &str, parts: &[&[u8]], signature: &[u8]) -> Option<bool> {
        let key = self.keys.iter().find(|key| &*key.id == id)?;
        Some(digest(&key.mac, parts).verify_slice(signature).is_ok())
    }
}

fn digest(mac: &Hmac<Sha256>, parts: &[&[u8]]) -> Hmac<Sha256> {
    let mut mac = mac.clone();
    for part in parts {
        mac.update(&(part.len() as u64).to_be_bytes());
        mac.update(part);
    }
    mac
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.keys.iter().map(|key| &key.id)).finish()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Two keys of 32 bytes; the first signs.
    pub(crate) fn keyring(ids: &[&str]) -> Keyring {
        let entry = |id: &&str| {
            let secret = base64::engine::general_purpose::STANDARD.encode(format!("{id:-<32}"));
            format!("{id}:{secret}")
        };
        Keyring::parse(&ids.iter().map(entry).collect::<Vec<_>>().join(",")).expect("well-formed")
    }

    #[test]
    fn the_first_key_signs_and_all_verify() {
        let (old, rotated) = (keyring(&["a"]), keyring(&["b", "a"]));
        let signature = old.sign(&[b"body"]);
        assert_eq!(rotated.signing_id(), "b");
        assert_eq!(rotated.verify("a", &[b"body"], &signature), Some(true));
        assert_eq!(rotated.verify("b", &[b"body"], &signature), Some(false));
        assert_eq!(rotated.verify("c", &[b"body"], &signature), None);
    }

    #[test]
    fn parts_cannot_be_shifted_into_one_another() {
        let keys = keyring(&["a"]);
        assert_ne!(keys.sign(&[b"ab", b"c"]), keys.sign(&[b"a", b"bc"]));
    }

    #[test]
    fn bad_lists_are_refused_without_showing_a_key() {
        for bad in ["", "a", "a:!!!", "a:c2hvcnQ=", ":AAAA"] {
            let error = Keyring::parse(bad).expect_err(bad).to_string();
            assert!(!error.contains("c2hvcnQ"), "{error}");
        }
    }

    #[test]
    fn debug_output_names_only_ids() {
        assert_eq!(format!("{:?}", keyring(&["a", "b"])), r#"["a", "b"]"#);
    }
}

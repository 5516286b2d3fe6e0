//! The secrets that the all-in-one makes for itself, once, in a folder that only its user can read.
//!
//! A secret that exists is never overwritten: tokens and queued events would become worthless.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use rand::TryRngCore as _;
use secrecy::SecretString;

use crate::{Problem, Settings, parse};

/// As long as the hash that uses it.
const SECRET_BYTES: usize = 48;
/// The files in `DATA_DIR/secrets`.
pub(crate) const JWT_SECRET_FILE: &str = "jwt_access_token";
pub(crate) const HMAC_KEYS_FILE: &str = "hmac_keys";

impl Settings {
    /// Gives the all-in-one the secrets it was not given: those it made before, or new ones, which
    /// are kept in `DATA_DIR/secrets`. Other programs were refused without them before.
    pub fn make_secrets(&mut self) -> Result<(), Problem> {
        let folder = self.data_dir.join("secrets");
        let failed = |path: &Path, error: &io::Error| {
            let what = format!("secrets cannot be kept in {} ({})", path.display(), error.kind());
            Problem::new("DATA_DIR", what, "./data")
        };
        if self.jwt_secret.is_none() {
            let path = folder.join(JWT_SECRET_FILE);
            let text = kept(&path, random).map_err(|error| failed(&path, &error))?;
            self.jwt_secret = Some(checked(&path, &text, |text| parse::jwt_secret(text, SECRET_BYTES))?);
        }
        if self.hmac_keys.is_none() {
            let path = folder.join(HMAC_KEYS_FILE);
            let text = kept(&path, new_key).map_err(|error| failed(&path, &error))?;
            self.hmac_keys = Some(checked(&path, &text, parse::hmac_keys)?);
        }
        Ok(())
    }
}

fn checked(path: &Path, text: &str, parse: impl Fn(&str) -> Result<String, String>) -> Result<SecretString, Problem> {
    parse(text.trim_end()).map(SecretString::from).map_err(|what| {
        Problem::new("DATA_DIR", format!("{} holds no usable secret: {what}", path.display()), "./data")
    })
}

/// The file's text; if there is no such file, it is made first.
fn kept(path: &Path, make: impl Fn() -> io::Result<String>) -> io::Result<String> {
    loop {
        match fs::read_to_string(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            read => return read,
        }
        match write_new(path, &make()?) {
            // Another process was faster: its secret counts.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            written => written?,
        }
    }
}

/// Writes a file that was not there before, whole or not at all.
fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
    let draft = draft_of(path);
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    file.write_all(text.as_bytes())?;
    file.write_all(b"\n")?;
    file.sync_all()?;
    // Unlike a rename, a link fails if the name is taken.
    let linked = fs::hard_link(&draft, path);
    fs::remove_file(&draft)?;
    fs::File::open(folder)?.sync_all()?;
    linked
}

fn draft_of(path: &Path) -> PathBuf {
    path.with_extension(format!("{}.new", std::process::id()))
}

/// A key whose id no other has: what a lost one signed is told from what somebody forged.
fn new_key() -> io::Result<String> {
    let id: [u8; 4] = random_bytes()?;
    Ok(format!("k{:08x}:{}", u32::from_be_bytes(id), random()?))
}

fn random() -> io::Result<String> {
    Ok(base64::engine::general_purpose::STANDARD.encode(random_bytes::<SECRET_BYTES>()?))
}

fn random_bytes<const COUNT: usize>() -> io::Result<[u8; COUNT]> {
    let mut bytes = [0; COUNT];
    rand::rngs::OsRng.try_fill_bytes(&mut bytes).map_err(io::Error::other)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;
    use crate::Role;

    fn made_in(folder: &Path) -> Settings {
        let data_dir = folder.to_str().expect("UTF-8");
        let mut settings = Settings::from_pairs(Role::AllInOne, &[("DATA_DIR", data_dir)]).expect("fine");
        settings.make_secrets().expect("made");
        settings
    }

    #[test]
    fn secrets_are_made_once_and_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        let (first, second) = (made_in(folder.path()), made_in(folder.path()));
        for (one, other) in [(first.jwt_secret, second.jwt_secret), (first.hmac_keys, second.hmac_keys)] {
            let (one, other) = (one.expect("made"), other.expect("kept"));
            assert!(one.expose_secret().len() >= 48);
            assert_eq!(one.expose_secret(), other.expose_secret());
        }
    }

    #[test]
    fn a_new_key_has_an_id_of_its_own() {
        let folders = [tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder")];
        let ids = folders.each_ref().map(|folder| {
            let keys = made_in(folder.path()).hmac_keys.expect("made");
            keys.expose_secret().split_once(':').expect("an id").0.to_owned()
        });
        assert_ne!(ids[0], ids[1]);
    }

    #[test]
    fn only_their_user_can_read_them() {
        let folder = tempfile::tempdir().expect("a folder");
        made_in(folder.path());
        let secrets = folder.path().join("secrets");
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!(mode(&secrets), 0o700);
        let files: Vec<_> = fs::read_dir(&secrets).expect("there").map(|entry| entry.expect("read").path()).collect();
        assert_eq!(files.len(), 2, "{files:?}");
        assert!(files.iter().all(|path| mode(path) == 0o600));
    }

    #[test]
    fn a_damaged_secret_is_refused_and_not_replaced() {
        let folder = tempfile::tempdir().expect("a folder");
        made_in(folder.path());
        let path = folder.path().join("secrets/hmac_keys");
        fs::write(&path, "k1:c2hvcnQ=\n").expect("written");
        let data_dir = folder.path().to_str().expect("UTF-8");
        let mut settings = Settings::from_pairs(Role::AllInOne, &[("DATA_DIR", data_dir)]).expect("fine");
        let problem = settings.make_secrets().expect_err("damaged");
        assert!(problem.name == "DATA_DIR" && !problem.what.contains("c2hvcnQ"), "{problem}");
        assert_eq!(fs::read_to_string(&path).expect("there"), "k1:c2hvcnQ=\n");
    }
}

//! Brings users and rooms into the store in one transaction: what `seed` and `import` share.
//!
//! Works beside a running server. The invariant: everything or nothing, and the same again changes
//! nothing.

use std::collections::{HashMap, HashSet};
use std::future::ready;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use runtime::Clock;
use store::{ImportCounts, ImportRoom, ImportUser, Store, StoreError};

use crate::line::{RoomLine, UserLine};

/// Rows in one statement's worth.
const CHUNK: usize = 2_000;
/// Passwords hashed at once; `auth` lets no more through anyway.
const HASHES: usize = 2;

/// Why nothing was applied.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApplyError {
    /// The store said no.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A password could not be hashed.
    #[error(transparent)]
    Password(#[from] auth::password::PasswordError),
}

/// Adds what is not there yet; how many were new.
pub(crate) async fn apply(store: &Store, users: &[UserLine], rooms: &[RoomLine]) -> Result<ImportCounts, ApplyError> {
    // Hashing takes seconds where the transaction takes none; so it comes before.
    let hashes = hashes(users).await?;
    let mut import = store.begin_import(Clock::system().now()).await?;
    for chunk in users.chunks(CHUNK) {
        let chunk: Vec<ImportUser> = chunk.iter().map(|user| to_import(user, &hashes)).collect();
        import.users(&chunk).await?;
    }
    for chunk in rooms.chunks(CHUNK) {
        let chunk: Vec<ImportRoom> = chunk.iter().map(to_import_room).collect();
        import.rooms(&chunk).await?;
    }
    Ok(import.commit().await?)
}

/// Each different password's hash; equal ones are hashed once.
async fn hashes(users: &[UserLine]) -> Result<HashMap<String, String>, ApplyError> {
    let passwords: HashSet<&String> = users.iter().filter_map(|user| user.password.as_ref()).collect();
    let hashed = stream::iter(passwords)
        .map(async |password| Ok::<_, ApplyError>((password.clone(), auth::password::hash(password.clone()).await?)));
    hashed
        .buffer_unordered(HASHES)
        .try_fold(HashMap::new(), |mut hashes, (password, hash)| {
            hashes.insert(password, hash);
            ready(Ok(hashes))
        })
        .await
}

fn to_import(user: &UserLine, hashes: &HashMap<String, String>) -> ImportUser {
    ImportUser {
        id: user.id,
        email: user.email.clone(),
        password_hash: user.password.as_ref().and_then(|password| hashes.get(password)).cloned(),
        first_name: user.first_name.clone(),
        last_name: user.last_name.clone(),
    }
}

fn to_import_room(room: &RoomLine) -> ImportRoom {
    ImportRoom { id: room.id, kind: room.kind, title: room.title.clone(), members: room.members.clone() }
}

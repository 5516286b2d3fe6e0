//! The store port: users, rooms, messages and their order, durable in Postgres or `SQLite`.
//!
//! What it knows: SQL and the shapes of what is kept. What it must not know: rights, the broker,
//! sockets, the clock (times come in as arguments). Two databases answer the same calls; one
//! contract suite (`tests/contract.rs`) holds both to it:
//!
//! - **Order.** In each room `seq` and `rev` are given inside the storing transaction, which locks
//!   the room's counter row first; what is committed has neither a gap nor a repeat.
//! - **Once.** The id of a message, and the job id of every other change, is unique in the database.
//!   Storing one twice is a [`StoreError::Conflict`] and nothing of that transaction stays.
//! - **All or nothing.** A [`Batch`] that is dropped leaves no trace.
//! - **What was removed for its age is missing openly.** Of a room's changes a beginning may have gone; whoever
//!   asks for changes from there on gets [`StoreError::TooOld`], never what is left as if it were all.
//! - **Taken back is gone.** After a delete only a tombstone remains, in history, in the timeline
//!   and in the database.
//! - **No endless wait.** Every call but `migrate` ends within seconds. [`StoreError::is_transient`] tells that
//!   the database and not the data was at fault: the same call may be repeated later, and a write
//!   that was answered so may or may not have been stored.
//!
//! The caller's duty: judge rights by what [`Batch::loaded`] says, inside the transaction; give each
//! room's changes consecutive `seq` and `rev` from there; keep batches to some hundred rows.

#[macro_use]
mod rows;
#[macro_use]
mod db;

pub mod batch;
pub mod begun;
pub mod change;
mod checkpoint;
mod departure;
pub mod error;
pub mod import;
mod joined;
pub mod lease;
pub mod member;
pub mod message;
mod migrate;
#[cfg(test)]
mod plans;
mod presence;
mod refused;
pub mod retention;
pub mod room;
pub mod tail;
pub mod timeline;
pub mod token;
pub mod user;
mod write;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

pub use batch::{Batch, Head, Loaded, Receipt, Scope};
pub use change::{ChangeCursor, RoomsOf};
pub use error::StoreError;
pub use import::{ImportCounts, ImportRoom, ImportTx, ImportUser};
pub use lease::{LeaseView, ShardLeases};
pub use member::{ReadMark, Reading, Standing};
pub use message::{MessageRow, Page};
pub use refused::RefusalCursor;
pub use retention::{RoomWalk, Slice};
pub use room::{Created, NewRoom, Room, RoomState};
pub use tail::{Tail, TailCursor};
pub use timeline::RevEntry;
pub use token::{NewRefresh, NextRefresh, Rotation};
pub use user::{Account, Credentials, NewUser, User};
pub use write::{Delete, Edit, NewRoomEvent, Reaction, Refused, Writes};

use db::Db;

/// Which database, and where.
#[derive(Clone)]
pub enum StoreSettings {
    /// A Postgres server, version 14 or newer.
    Postgres {
        /// `postgres://user:password@host:port/database`; a secret.
        url: String,
        /// Connections at most; at least 2.
        max_connections: u32,
    },
    /// One file, made if it is not there.
    Sqlite {
        /// The database file; `-wal` and `-shm` lie beside it.
        path: PathBuf,
        /// True: a commit is on disk when it returns. False: a power cut may undo the last ones.
        sync_full: bool,
    },
}

impl std::fmt::Debug for StoreSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Postgres { max_connections, .. } => {
                f.debug_struct("Postgres").field("max_connections", max_connections).finish_non_exhaustive()
            }
            Self::Sqlite { path, sync_full } => {
                f.debug_struct("Sqlite").field("path", path).field("sync_full", sync_full).finish()
            }
        }
    }
}

/// The store. Clones share its connections.
#[derive(Debug, Clone)]
pub struct Store {
    db: Db,
}

impl Store {
    /// Opens the database and checks that it answers; changes nothing in it.
    pub async fn open(settings: StoreSettings) -> Result<Self, StoreError> {
        let store = Self { db: Db::open(settings).await? };
        store.ping().await?;
        Ok(store)
    }

    /// What the embedded store's file has inside of it to write over, bytes, kept up to date while its disk is
    /// short of room; `None`: it is no file.
    pub fn spare_bytes(&self) -> Option<Arc<AtomicU64>> {
        self.db.spare_bytes()
    }

    /// Whether the schema is what this version needs; an error if there is none.
    pub async fn is_current(&self) -> Result<bool, StoreError> {
        migrate::is_current(&self.db).await
    }

    /// Brings the tables to this version's shape, under a lock, so that any number of services may
    /// do it at once. Migrations only go forward; newer ones than this version knows are left alone.
    /// Has no limit of its own, for an index over a large table takes as long as it takes; a caller
    /// that stops waiting leaves the tables as they were before the unfinished step.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        migrate::run(&self.db).await
    }

    /// Asks the database for a sign of life; at most 2 s.
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.db.ping().await
    }

    /// Whether a batch could be written right now as far as locks and rights go; at most 3 s. Somebody who
    /// holds a whole table (a migration, say) makes it fail; a single row that is held does not.
    pub async fn is_writable(&self) -> Result<(), StoreError> {
        self.db.try_writing().await
    }

    /// Closes all connections, waiting a moment for those in use.
    pub async fn close(&self) {
        self.db.close().await;
    }
}

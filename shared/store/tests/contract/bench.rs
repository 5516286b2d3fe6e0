//! What every test of the suite stands on: a fresh database, people, rooms, short ways to write.

use domain::room::{Role, RoomKind};
use domain::{JobId, MessageId, Rev, RoomId, Seq, Timestamp, UserId};
use prost::Message as _;
use protocol::wire::{self, MessageFailed, ServerEvent};
use protocol::{Code, EventData};
use store::{
    Batch, Created, Head, MessageRow, NewRoom, NewRoomEvent, NewUser, Refused, Room, Scope, Store, StoreError,
    StoreSettings, Writes,
};
use testkit::folder::Folder;
use testkit::services::fresh_postgres;

pub(crate) const NOW: Timestamp = Timestamp(1_800_000_000_000);

/// Declares each test once for both databases.
macro_rules! on_both {
    ($($(#[$attribute:meta])* $name:ident),* $(,)?) => {
        mod postgres {
            $($(#[$attribute])* #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(crate::bench::Bench::postgres().await).await;
            })*
        }
        mod sqlite {
            $($(#[$attribute])* #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(crate::bench::Bench::sqlite().await).await;
            })*
        }
    };
}
pub(crate) use on_both;

/// A fresh database.
pub(crate) struct Bench {
    pub(crate) store: Store,
    pub(crate) settings: StoreSettings,
    _folder: Option<Folder>,
}

impl Bench {
    /// The latest read marks of a room.
    pub(crate) async fn reads(&self, room: RoomId) -> Vec<(UserId, Seq)> {
        self.store.reads_of(&[room], 10).await.expect("reads").remove(&room).unwrap_or_default()
    }

    pub(crate) async fn postgres() -> Self {
        Self::open(StoreSettings::Postgres { url: fresh_postgres().await, max_connections: 6 }, None).await
    }

    pub(crate) async fn sqlite() -> Self {
        let folder = Folder::new();
        let path = folder.path().join("chat.sqlite");
        Self::open(StoreSettings::Sqlite { path, sync_full: true }, Some(folder)).await
    }

    async fn open(settings: StoreSettings, folder: Option<Folder>) -> Self {
        let store = Store::open(settings.clone()).await.expect("opens");
        store.migrate().await.expect("migrates");
        Self { store, settings, _folder: folder }
    }

    /// Another process on the same database.
    pub(crate) async fn second(&self) -> Store {
        Store::open(self.settings.clone()).await.expect("opens a second time")
    }

    pub(crate) async fn user(&self) -> UserId {
        let id = UserId::generate();
        self.store.create_user(&new_user(id, &format!("{id}@example.com"))).await.expect("created").id
    }

    pub(crate) async fn users<const N: usize>(&self) -> [UserId; N] {
        let mut users = [UserId(uuid::Uuid::nil()); N];
        for user in &mut users {
            *user = self.user().await;
        }
        users
    }

    /// A group; the first one owns it.
    pub(crate) async fn group(&self, members: &[UserId]) -> RoomId {
        let id = RoomId::generate();
        match self.store.create_room(&new_group(id, members)).await.expect("created") {
            Created::New(room) => room.id,
            Created::Existing(_) => panic!("the id is new"),
        }
    }

    pub(crate) async fn begin(&self, room: RoomId, actors: &[UserId]) -> Batch {
        begin(&self.store, room, actors).await.expect("begins")
    }

    /// Stores messages of one sender with these contents; their ids.
    pub(crate) async fn say(&self, room: RoomId, sender: UserId, contents: &[&str]) -> Vec<MessageId> {
        let batch = self.begin(room, &[sender]).await;
        let mut draft = Draft::of(&batch, room);
        let ids = contents.iter().map(|content| draft.message(sender, content)).collect();
        batch.commit(draft.finish()).await.expect("commits");
        ids
    }

    pub(crate) async fn message(&self, id: MessageId) -> MessageRow {
        self.store.message(id).await.expect("reads").expect("is there")
    }

    pub(crate) async fn room(&self, id: RoomId) -> Room {
        self.store.room(id).await.expect("reads").expect("is there")
    }

    /// Does what an operator might.
    pub(crate) async fn execute(&self, sql: &'static str) {
        use sqlx::Connection as _;
        match &self.settings {
            StoreSettings::Postgres { url, .. } => {
                let mut conn = sqlx::PgConnection::connect(url).await.expect("connects");
                sqlx::raw_sql(sql).execute(&mut conn).await.expect("done");
            }
            StoreSettings::Sqlite { path, .. } => {
                let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path);
                let mut conn = sqlx::SqliteConnection::connect_with(&options).await.expect("connects");
                sqlx::raw_sql(sql).execute(&mut conn).await.expect("done");
            }
        }
    }

    /// False where a second writer waits until the first one is done.
    pub(crate) fn waits_for_no_writer(&self) -> bool {
        matches!(self.settings, StoreSettings::Postgres { .. })
    }

    /// Voids the user's tokens in a transaction of somebody else's that ends after `meanwhile`.
    pub(crate) async fn late_change(&self, user: UserId, meanwhile: impl AsyncFnOnce()) {
        const CHANGE: &str = "UPDATE users SET tokens_valid_after = 7 WHERE user_id = $1";
        use sqlx::Connection as _;
        match &self.settings {
            StoreSettings::Postgres { url, .. } => {
                let mut conn = sqlx::PgConnection::connect(url).await.expect("connects");
                let mut tx = conn.begin().await.expect("begins");
                sqlx::query(CHANGE).bind(user.0).execute(&mut *tx).await.expect("changes");
                meanwhile().await;
                tx.commit().await.expect("commits");
            }
            StoreSettings::Sqlite { path, .. } => {
                let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path);
                let mut conn = sqlx::SqliteConnection::connect_with(&options).await.expect("connects");
                let mut tx = conn.begin().await.expect("begins");
                sqlx::query(CHANGE).bind(user.0).execute(&mut *tx).await.expect("changes");
                meanwhile().await;
                tx.commit().await.expect("commits");
            }
        }
    }

    /// Everything in the database as one text, bytes as characters: to look for what must be gone.
    pub(crate) async fn dump(&self) -> String {
        const TABLES: [&str; 9] = [
            "users",
            "refresh_families",
            "refresh_tokens",
            "rooms",
            "room_counters",
            "room_members",
            "messages",
            "reactions",
            "room_events",
        ];
        let mut dump = String::new();
        for table in TABLES {
            dump.push_str(&match &self.settings {
                StoreSettings::Postgres { url, .. } => dump_postgres(url, table).await,
                StoreSettings::Sqlite { path, .. } => dump_sqlite(path, table).await,
            });
        }
        dump
    }
}

async fn dump_postgres(url: &str, table: &str) -> String {
    use sqlx::Connection as _;
    let mut conn = sqlx::PgConnection::connect(url).await.expect("connects");
    let sql = format!(
        "SELECT string_agg(convert_from(decode(replace(t::text, '\\', ''), 'escape'), 'latin1'), ' ') FROM {table} t"
    );
    let sql = if table == "room_events" {
        "SELECT string_agg(encode(payload, 'escape'), ' ') FROM room_events".to_owned()
    } else {
        sql
    };
    let text: Option<String> = sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(&mut conn).await.expect("dumps");
    text.unwrap_or_default()
}

async fn dump_sqlite(path: &std::path::Path, table: &str) -> String {
    use sqlx::Connection as _;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path);
    let mut conn = sqlx::SqliteConnection::connect_with(&options).await.expect("connects");
    let columns: Vec<(String,)> = sqlx::query_as("SELECT name FROM pragma_table_info($1)")
        .bind(table.to_owned())
        .fetch_all(&mut conn)
        .await
        .expect("columns");
    let mut dump = String::new();
    for (column,) in columns {
        let sql = format!("SELECT CAST({column} AS BLOB) FROM {table}");
        let values: Vec<(Option<Vec<u8>>,)> =
            sqlx::query_as(sqlx::AssertSqlSafe(sql)).fetch_all(&mut conn).await.expect("dumps");
        for (value,) in values {
            dump.push_str(&String::from_utf8_lossy(&value.unwrap_or_default()));
        }
    }
    dump
}

pub(crate) fn new_user(id: UserId, email: &str) -> NewUser {
    NewUser {
        id,
        email: email.to_owned(),
        password_hash: "$argon2id$…".to_owned(),
        first_name: "Ann".to_owned(),
        last_name: "O'Neil".to_owned(),
        phone: Some("+49 30 1234".to_owned()),
        created_at: NOW,
    }
}

pub(crate) fn new_group(id: RoomId, members: &[UserId]) -> NewRoom {
    let role = |index| if index == 0 { Role::Owner } else { Role::Member };
    let members: Vec<_> = members.iter().enumerate().map(|(index, user)| (*user, role(index))).collect();
    new_room(id, RoomKind::Group, &members)
}

pub(crate) fn new_room(id: RoomId, kind: RoomKind, members: &[(UserId, Role)]) -> NewRoom {
    let created = wire::RoomCreated { room_id: id.to_string(), rev: 1, ..Default::default() };
    NewRoom {
        id,
        kind,
        title: (kind == RoomKind::Group).then(|| "Weekend".to_owned()),
        creator: members[0].0,
        members: members.to_vec(),
        at: NOW,
        payload: ServerEvent::from(EventData::RoomCreated(created)).encode_to_vec(),
    }
}

pub(crate) async fn begin(store: &Store, room: RoomId, actors: &[UserId]) -> Result<Batch, StoreError> {
    let actors = actors.iter().map(|user| (room, *user)).collect();
    store.begin(&Scope { rooms: vec![room], actors, ..Scope::default() }).await
}

/// The writes of a batch in one room, with the next numbers given as the callers of the port do.
pub(crate) struct Draft {
    pub(crate) room: RoomId,
    pub(crate) head: Head,
    pub(crate) writes: Writes,
}

impl Draft {
    pub(crate) fn of(batch: &Batch, room: RoomId) -> Self {
        Self { room, head: batch.loaded.rooms[&room], writes: Writes::default() }
    }

    pub(crate) fn message(&mut self, sender: UserId, content: &str) -> MessageId {
        let row = new_message(self.room, sender, &uuid::Uuid::now_v7().to_string(), content);
        self.row(row)
    }

    /// Stores this row under the next numbers.
    pub(crate) fn row(&mut self, mut row: MessageRow) -> MessageId {
        self.head.last_seq = self.head.last_seq.next();
        row.seq = self.head.last_seq;
        row.rev = self.event(None, Some(row.id), Vec::new());
        let id = row.id;
        self.writes.messages.push(row);
        id
    }

    /// Records another change under the next rev, as the receipt of a new job.
    pub(crate) fn change(&mut self, event: EventData) -> JobId {
        let job = JobId::generate();
        self.event(Some(job), None, ServerEvent::from(event).encode_to_vec());
        job
    }

    pub(crate) fn event(&mut self, job: Option<JobId>, message: Option<MessageId>, payload: Vec<u8>) -> Rev {
        self.head.rev = self.head.rev.next();
        let (room, rev, epoch) = (self.room, self.head.rev, self.head.epoch);
        self.writes.events.push(NewRoomEvent { room, rev, epoch, job, message, payload, at: NOW });
        rev
    }

    pub(crate) fn refuse(&mut self, job: JobId, code: Code) {
        self.refuse_at(UserId::generate(), job, code, NOW);
    }

    pub(crate) fn refuse_at(&mut self, actor: UserId, job: JobId, code: Code, at: Timestamp) {
        let failure = MessageFailed { message_id: job.to_string(), ..MessageFailed::default() };
        self.writes.refused.push(Refused { job, room: self.room, actor, code, at, failure });
    }

    pub(crate) fn finish(mut self) -> Writes {
        self.writes.heads.push((self.room, self.head));
        self.writes
    }
}

pub(crate) fn new_message(room: RoomId, sender: UserId, name: &str, content: &str) -> MessageRow {
    MessageRow {
        id: MessageId::of(sender, name),
        room,
        seq: Seq::ZERO,
        rev: Rev::ZERO,
        sender,
        client_msg_id: name.to_owned(),
        kind: "TEXT".to_owned(),
        content: content.to_owned(),
        reply_to: None,
        mentions: Vec::new(),
        attachments: Vec::new(),
        sent_at: NOW,
        stored_at: NOW,
        edited_at: None,
        deleted_at: None,
        reactions: Vec::new(),
    }
}

/// The event of an edit, as the callers of the port tell it.
pub(crate) fn edited(room: RoomId, message: MessageId, content: &str) -> EventData {
    EventData::MessageEdited(wire::MessageEdited {
        room_id: room.to_string(),
        message_id: message.to_string(),
        rev: 0,
        content: content.to_owned(),
        edited_at: NOW.to_rfc3339(),
    })
}

/// The event of a delete.
pub(crate) fn deleted(room: RoomId, message: MessageId) -> EventData {
    EventData::MessageDeleted(wire::MessageDeleted {
        room_id: room.to_string(),
        message_id: message.to_string(),
        rev: 0,
        deleted_at: NOW.to_rfc3339(),
    })
}

/// Waits until a statement in this database waits for a lock.
pub(crate) async fn until_somebody_waits(watching: &mut sqlx::PgConnection) {
    let waiting = "SELECT COUNT(*) FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event_type = 'Lock'";
    while sqlx::query_scalar::<_, i64>(waiting).fetch_one(&mut *watching).await.expect("an answer") == 0 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

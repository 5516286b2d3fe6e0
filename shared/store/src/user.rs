//! Accounts: who there is, how they sign in, whether they may.
//!
//! It knows no password rules and compares none: hashes go in and out. The invariant: an e-mail
//! address, in the normal form the caller gives it, belongs to at most one account.

use domain::{Membership, Timestamp, UserId};

use crate::rows::{Rows, RowsSql};
use crate::{Store, StoreError};

/// A person as others may see them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Who.
    pub id: UserId,
    /// Normalised address; imported accounts may have none.
    pub email: Option<String>,
    /// First name.
    pub first_name: String,
    /// Last name.
    pub last_name: String,
    /// Telephone number.
    pub phone: Option<String>,
    /// Since when.
    pub created_at: Timestamp,
}

/// An account to be made.
#[derive(Debug, Clone)]
pub struct NewUser {
    /// Who.
    pub id: UserId,
    /// Normalised address.
    pub email: String,
    /// Argon2id hash, PHC string.
    pub password_hash: String,
    /// First name.
    pub first_name: String,
    /// Last name.
    pub last_name: String,
    /// Telephone number.
    pub phone: Option<String>,
    /// Now.
    pub created_at: Timestamp,
}

/// What a login is checked against.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// The account.
    pub user: User,
    /// Argon2id hash, PHC string; `None`: cannot log in with a password.
    pub password_hash: Option<String>,
    /// True: may not log in at all.
    pub blocked: bool,
}

/// What a token is checked against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Account {
    /// Who.
    pub id: UserId,
    /// True: no token counts.
    pub blocked: bool,
    /// A token whose `iat` (whole seconds) lies before this is void.
    pub tokens_valid_after: Timestamp,
    /// The version of the set of its rooms.
    pub membership: Membership,
    /// True: may do what only operators may.
    pub is_admin: bool,
}

macro_rules! user_columns {
    () => {
        "users.user_id, email, first_name, last_name, phone, created_at"
    };
}

const INSERT: &str =
    "INSERT INTO users (user_id, email, password_hash, first_name, last_name, phone, created_at, tokens_valid_after)
    VALUES ($1, $2, $3, $4, $5, $6, $7, 0) ON CONFLICT DO NOTHING";
const CREDENTIALS: &str =
    concat!("SELECT ", user_columns!(), ", password_hash, blocked_at FROM users WHERE email = $1");
const ONE: &str = concat!("SELECT ", user_columns!(), " FROM users WHERE user_id = $1");
const MANY: RowsSql =
    rows_sql!([1 id uuid] concat!("SELECT ", user_columns!(), " FROM given JOIN users ON users.user_id = given.id"));
const ACCOUNT: &str =
    "SELECT user_id, blocked_at, tokens_valid_after, membership, account_role FROM users WHERE user_id = $1";
const VOID: &str = "UPDATE users SET tokens_valid_after = $2 WHERE user_id = $1";
const BLOCK: &str = "UPDATE users SET tokens_valid_after = $2, blocked_at = $3 WHERE user_id = $1";
const SET_ROLE: &str = "UPDATE users SET account_role = $2 WHERE user_id = $1";
const END_FAMILIES: &str = "DELETE FROM refresh_families WHERE user_id = $1";

/// What the role of operators is called in the database; everybody else is a `user`.
const ADMIN: &str = "admin";
const USER: &str = "user";

#[derive(sqlx::FromRow)]
struct UserRecord {
    user_id: uuid::Uuid,
    email: Option<String>,
    first_name: String,
    last_name: String,
    phone: Option<String>,
    created_at: i64,
}

#[derive(sqlx::FromRow)]
struct CredentialsRecord {
    #[sqlx(flatten)]
    user: UserRecord,
    password_hash: Option<String>,
    blocked_at: Option<i64>,
}

#[derive(sqlx::FromRow)]
pub(crate) struct AccountRecord {
    pub(crate) user_id: uuid::Uuid,
    blocked_at: Option<i64>,
    tokens_valid_after: i64,
    membership: i64,
    account_role: String,
}

impl From<AccountRecord> for Account {
    fn from(record: AccountRecord) -> Self {
        Self {
            id: UserId(record.user_id),
            blocked: record.blocked_at.is_some(),
            tokens_valid_after: Timestamp(record.tokens_valid_after),
            membership: Membership(record.membership),
            is_admin: record.account_role == ADMIN,
        }
    }
}

impl From<UserRecord> for User {
    fn from(record: UserRecord) -> Self {
        Self {
            id: UserId(record.user_id),
            email: record.email,
            first_name: record.first_name,
            last_name: record.last_name,
            phone: record.phone,
            created_at: Timestamp(record.created_at),
        }
    }
}

impl Store {
    /// Makes an account; `Conflict("email")` when the address (or the id) is taken.
    pub async fn create_user(&self, new: &NewUser) -> Result<User, StoreError> {
        let mut conn = self.db.write().await?;
        let inserted = run!(
            conn,
            INSERT,
            new.id.0,
            new.email.as_str(),
            new.password_hash.as_str(),
            new.first_name.as_str(),
            new.last_name.as_str(),
            new.phone.as_deref(),
            new.created_at.0,
        )?;
        if inserted == 0 {
            return Err(StoreError::Conflict("email"));
        }
        Ok(User {
            id: new.id,
            email: Some(new.email.clone()),
            first_name: new.first_name.clone(),
            last_name: new.last_name.clone(),
            phone: new.phone.clone(),
            created_at: new.created_at,
        })
    }

    /// The account with that normalised address, for a login.
    pub async fn credentials(&self, email: &str) -> Result<Option<Credentials>, StoreError> {
        let mut conn = self.db.read().await?;
        let found: Option<CredentialsRecord> =
            on!(conn, c => sqlx::query_as(CREDENTIALS).bind(email).fetch_optional(c))?;
        Ok(found.map(|record| Credentials {
            user: record.user.into(),
            password_hash: record.password_hash,
            blocked: record.blocked_at.is_some(),
        }))
    }

    /// One person.
    pub async fn user(&self, id: UserId) -> Result<Option<User>, StoreError> {
        let mut conn = self.db.read().await?;
        let found: Option<UserRecord> = on!(conn, c => sqlx::query_as(ONE).bind(id.0).fetch_optional(c))?;
        Ok(found.map(User::from))
    }

    /// Those of `ids` that exist, in no order; repeats are told once for each.
    pub async fn users(&self, ids: &[UserId]) -> Result<Vec<User>, StoreError> {
        let rows = Rows::new().id(ids.iter().map(|id| id.0));
        let found: Vec<UserRecord> = self.db.read().await?.fetch(&MANY, &rows).await?;
        Ok(found.into_iter().map(User::from).collect())
    }

    /// What a token of `id` is checked against.
    pub async fn account(&self, id: UserId) -> Result<Option<Account>, StoreError> {
        let mut conn = self.db.read().await?;
        let found: Option<AccountRecord> = on!(conn, c => sqlx::query_as(ACCOUNT).bind(id.0).fetch_optional(c))?;
        Ok(found.map(Account::from))
    }

    /// Lets an account do what only operators may, or no more.
    pub async fn set_admin(&self, id: UserId, is_admin: bool) -> Result<(), StoreError> {
        let role = if is_admin { ADMIN } else { USER };
        run!(self.db.write().await?, SET_ROLE, id.0, role).map(drop)
    }

    /// Signs out everywhere: voids every token issued before `now` and ends all refresh families.
    pub async fn void_tokens(&self, id: UserId, now: Timestamp) -> Result<(), StoreError> {
        let mut tx = self.db.begin().await?;
        run!(tx.conn, VOID, id.0, now.0)?;
        run!(tx.conn, END_FAMILIES, id.0)?;
        tx.commit().await
    }

    /// Blocks or unblocks an account; both void its tokens and end all refresh families.
    pub async fn set_blocked(&self, id: UserId, blocked: bool, now: Timestamp) -> Result<(), StoreError> {
        let blocked_at = blocked.then_some(now.0);
        let mut tx = self.db.begin().await?;
        run!(tx.conn, BLOCK, id.0, now.0, blocked_at)?;
        run!(tx.conn, END_FAMILIES, id.0)?;
        tx.commit().await
    }
}

//! Many rows in one statement, with one text: on Postgres as arrays (`UNNEST`), on `SQLite` as one
//! JSON text (`json_each`). Both are constant, so that prepared statements are found again.
//!
//! It knows no table. The invariant: a NUL character, which Postgres cannot hold, goes into neither.

use sqlx::Arguments as _;
use sqlx::postgres::PgArguments;
use sqlx::sqlite::SqliteArguments;
use uuid::Uuid;

use crate::StoreError;

/// One statement over the rows named `given`, in the words of both databases.
pub(crate) struct RowsSql {
    pub(crate) postgres: &'static str,
    pub(crate) sqlite: &'static str,
}

/// `rows_sql!([1 id uuid, 2 at bigint] "UPDATE … FROM given …")`; the types are uuid, bigint, text, bytea.
/// A second text after `postgres` is added there only.
macro_rules! rows_sql {
    ([$n:literal $name:ident $kind:ident $(, $ns:literal $names:ident $kinds:ident)*] $body:expr) => {
        rows_sql!([$n $name $kind $(, $ns $names $kinds)*] $body, postgres "")
    };
    ([$n:literal $name:ident $kind:ident $(, $ns:literal $names:ident $kinds:ident)*] $body:expr, postgres $more:literal) => {
        $crate::rows::RowsSql {
            postgres: concat!(
                "WITH given(", stringify!($name) $(, ", ", stringify!($names))*, ") AS (SELECT * FROM UNNEST(",
                "$", $n, "::", stringify!($kind), "[]" $(, ", $", $ns, "::", stringify!($kinds), "[]")*, ")) ",
                $body, $more
            ),
            sqlite: concat!(
                "WITH given(", stringify!($name) $(, ", ", stringify!($names))*, ") AS (SELECT ",
                rows_sql!(@json $n $kind) $(, ", ", rows_sql!(@json $ns $kinds))*, " FROM json_each($1)) ",
                $body
            ),
        }
    };
    (@json $n:literal uuid) => { concat!("unhex(value ->> ", $n, ")") };
    (@json $n:literal bytea) => { concat!("unhex(value ->> ", $n, ")") };
    (@json $n:literal $kind:ident) => { concat!("value ->> ", $n) };
}

enum Column<'a> {
    Id(Vec<Option<Uuid>>),
    Int(Vec<Option<i64>>),
    Text(Vec<Option<&'a str>>),
    Bytes(Vec<Option<Vec<u8>>>),
}

/// Rows, column by column in the order of the statement's names.
#[derive(Default)]
pub(crate) struct Rows<'a> {
    columns: Vec<Column<'a>>,
}

impl<'a> Rows<'a> {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn id(self, values: impl IntoIterator<Item = Uuid>) -> Self {
        self.maybe_id(values.into_iter().map(Some))
    }

    pub(crate) fn maybe_id(mut self, values: impl IntoIterator<Item = Option<Uuid>>) -> Self {
        self.columns.push(Column::Id(values.into_iter().collect()));
        self
    }

    pub(crate) fn int(self, values: impl IntoIterator<Item = i64>) -> Self {
        self.maybe_int(values.into_iter().map(Some))
    }

    pub(crate) fn maybe_int(mut self, values: impl IntoIterator<Item = Option<i64>>) -> Self {
        self.columns.push(Column::Int(values.into_iter().collect()));
        self
    }

    pub(crate) fn text(self, values: impl IntoIterator<Item = &'a str>) -> Self {
        self.maybe_text(values.into_iter().map(Some))
    }

    pub(crate) fn maybe_text(mut self, values: impl IntoIterator<Item = Option<&'a str>>) -> Self {
        self.columns.push(Column::Text(values.into_iter().collect()));
        self
    }

    pub(crate) fn bytes(self, values: impl IntoIterator<Item = Vec<u8>>) -> Self {
        self.maybe_bytes(values.into_iter().map(Some))
    }

    pub(crate) fn maybe_bytes(mut self, values: impl IntoIterator<Item = Option<Vec<u8>>>) -> Self {
        self.columns.push(Column::Bytes(values.into_iter().collect()));
        self
    }

    /// The columns of another table's rows after these: for a statement over both, on Postgres.
    pub(crate) fn beside(mut self, others: Self) -> Self {
        self.columns.extend(others.columns);
        self
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn len(&self) -> usize {
        self.columns.first().map_or(0, |column| match column {
            Column::Id(values) => values.len(),
            Column::Int(values) => values.len(),
            Column::Text(values) => values.len(),
            Column::Bytes(values) => values.len(),
        })
    }

    fn check_texts(&self) -> Result<(), StoreError> {
        let has_nul = |column: &Column<'_>| match column {
            Column::Text(values) => values.iter().flatten().any(|text| text.contains('\0')),
            _ => false,
        };
        if self.columns.iter().any(has_nul) {
            return Err(StoreError::Rejected("a text holds a NUL character".to_owned()));
        }
        Ok(())
    }

    /// One array for each column.
    pub(crate) fn postgres(&self) -> Result<PgArguments, StoreError> {
        self.check_texts()?;
        let mut arguments = PgArguments::default();
        for column in &self.columns {
            let added = match column {
                Column::Id(values) => arguments.add(values),
                Column::Int(values) => arguments.add(values),
                Column::Text(values) => arguments.add(values),
                Column::Bytes(values) => arguments.add(values),
            };
            added.map_err(|error| StoreError::Rejected(error.to_string()))?;
        }
        Ok(arguments)
    }

    /// `[[0, …], [0, …]]`: the columns' positions begin with 1, as those of parameters do.
    pub(crate) fn sqlite(&self) -> Result<SqliteArguments, StoreError> {
        self.check_texts()?;
        let mut json = Vec::with_capacity(64 * self.columns.len() * self.len());
        json.push(b'[');
        for row in 0..self.len() {
            json.extend_from_slice(if row == 0 { b"[0" } else { b",[0" });
            for column in &self.columns {
                json.push(b',');
                column.write_json(row, &mut json)?;
            }
            json.push(b']');
        }
        json.push(b']');
        let json = String::from_utf8(json).map_err(|error| StoreError::Rejected(error.to_string()))?;
        let mut arguments = SqliteArguments::default();
        arguments.add(json).map_err(|error| StoreError::Rejected(error.to_string()))?;
        Ok(arguments)
    }
}

impl Column<'_> {
    fn write_json(&self, row: usize, json: &mut Vec<u8>) -> Result<(), StoreError> {
        match self {
            Self::Id(values) => match &values[row] {
                Some(id) => write_hex(id.as_bytes(), json),
                None => json.extend_from_slice(b"null"),
            },
            Self::Int(values) => match values[row] {
                Some(number) => json.extend_from_slice(number.to_string().as_bytes()),
                None => json.extend_from_slice(b"null"),
            },
            Self::Text(values) => match values[row] {
                Some(text) => {
                    serde_json::to_writer(&mut *json, text).map_err(|error| StoreError::Rejected(error.to_string()))?;
                }
                None => json.extend_from_slice(b"null"),
            },
            Self::Bytes(values) => match &values[row] {
                Some(bytes) => write_hex(bytes, json),
                None => json.extend_from_slice(b"null"),
            },
        }
        Ok(())
    }
}

fn write_hex(bytes: &[u8], json: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    json.push(b'"');
    for byte in bytes {
        json.push(DIGITS[usize::from(byte >> 4)]);
        json.push(DIGITS[usize::from(byte & 15)]);
    }
    json.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_text_becomes_two() {
        let sql = rows_sql!([1 id uuid, 2 at bigint] "SELECT id, at FROM given", postgres " FOR UPDATE");
        assert_eq!(
            sql.postgres,
            "WITH given(id, at) AS (SELECT * FROM UNNEST($1::uuid[], $2::bigint[])) SELECT id, at FROM given FOR UPDATE"
        );
        assert_eq!(
            sql.sqlite,
            "WITH given(id, at) AS (SELECT unhex(value ->> 1), value ->> 2 FROM json_each($1)) SELECT id, at FROM given"
        );
    }

    #[test]
    fn a_nul_character_is_rejected_for_either_database() {
        let rows = Rows::new().text(["fine", "not\0fine"]);
        assert!(matches!(rows.sqlite(), Err(StoreError::Rejected(_))));
        assert!(matches!(rows.postgres(), Err(StoreError::Rejected(_))));
    }
}

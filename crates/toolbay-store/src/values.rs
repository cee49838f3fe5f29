//! Values on their way into statements and out of rows, alike for both databases. `sqlx::Any` has neither UUIDs nor JSON
//! and would make texts of them in PostgreSQL; so a statement's values are a small enum, and a row is one of two.

use serde_json::Value;
use sqlx::{
    Arguments as _, Decode, Encode, Postgres, Row as _, Sqlite, Type,
    encode::IsNull,
    error::BoxDynError,
    postgres::{PgArgumentBuffer, PgArguments, PgRow, PgTypeInfo, PgValueRef, types::Oid},
    sqlite::{SqliteArguments, SqliteArgumentsBuffer, SqliteRow, SqliteTypeInfo, SqliteValueRef},
};
use toolbay_api::{Limit, ToolError};
use uuid::Uuid;

use crate::fault::{Fault, damaged, invalid};

/// The oid of PostgreSQL's type json, which is the same in every database.
const JSON_OID: Oid = Oid(114);

/// How deep a document may be nested: what is deeper could be written and not read again.
const MAX_DEPTH: usize = 100;

/// A value of a statement.
#[derive(Debug, Clone)]
pub(crate) enum Param {
    Int(Option<i64>),
    Bool(bool),
    Text(Option<String>),
    Bytes(Option<Vec<u8>>),
    Uuid(Option<Uuid>),
    Json(Option<Json>),
}

/// The values of a statement, in the order of their numbers.
macro_rules! params {
    ($($value:expr),* $(,)?) => { vec![$($crate::values::Param::from($value)),*] };
}
pub(crate) use params;

macro_rules! param_from {
    ($($type:ty => |$value:ident| $param:expr),* $(,)?) => {
        $(impl From<$type> for Param {
            fn from($value: $type) -> Self {
                $param
            }
        })*
    };
}

param_from! {
    i64 => |value| Self::Int(Some(value)),
    u32 => |value| Self::Int(Some(value.into())),
    Option<i64> => |value| Self::Int(value),
    bool => |value| Self::Bool(value),
    &str => |value| Self::Text(Some(value.to_owned())),
    &String => |value| Self::Text(Some(value.clone())),
    String => |value| Self::Text(Some(value)),
    Option<String> => |value| Self::Text(value),
    &[u8] => |value| Self::Bytes(Some(value.to_vec())),
    &[u8; 32] => |value| Self::Bytes(Some(value.to_vec())),
    Option<Vec<u8>> => |value| Self::Bytes(value),
    Uuid => |value| Self::Uuid(Some(value)),
    Option<Uuid> => |value| Self::Uuid(value),
    Json => |value| Self::Json(Some(value)),
    Option<Json> => |value| Self::Json(value),
}

/// The number of a `usize` or `u64` as databases know it.
pub(crate) fn int(number: impl TryInto<i64>) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}

pub(crate) fn sqlite_arguments(params: Vec<Param>) -> Result<SqliteArguments, Fault> {
    let mut arguments = SqliteArguments::default();
    for param in params {
        match param {
            Param::Int(value) => arguments.add(value),
            Param::Bool(value) => arguments.add(value),
            Param::Text(value) => arguments.add(checked(value)?),
            Param::Bytes(value) => arguments.add(value),
            Param::Uuid(value) => arguments.add(value),
            Param::Json(value) => arguments.add(value),
        }
        .map_err(sqlx::Error::Encode)?;
    }
    Ok(arguments)
}

pub(crate) fn postgres_arguments(params: Vec<Param>) -> Result<PgArguments, Fault> {
    let mut arguments = PgArguments::default();
    for param in params {
        match param {
            Param::Int(value) => arguments.add(value),
            Param::Bool(value) => arguments.add(value),
            Param::Text(value) => arguments.add(checked(value)?),
            Param::Bytes(value) => arguments.add(value),
            Param::Uuid(value) => arguments.add(value),
            Param::Json(value) => arguments.add(value),
        }
        .map_err(sqlx::Error::Encode)?;
    }
    Ok(arguments)
}

/// PostgreSQL has no zeros in texts; both databases refuse them, so that they do the same.
fn checked(text: Option<String>) -> Result<Option<String>, Fault> {
    match text {
        Some(text) if text.contains('\0') => Err(invalid("a text holds a zero character, which cannot be kept").into()),
        text => Ok(text),
    }
}

/// A JSON document as its compact text. Kept as text, since what is read must equal what was written: the order of keys,
/// and numbers to the bit.
#[derive(Debug, Clone)]
pub(crate) struct Json(String);

impl Json {
    /// `value`, where it is not longer than `max_bytes` and can be read again.
    pub(crate) fn new(value: &Value, max_bytes: usize) -> Result<Self, ToolError> {
        let depth = depth_of(value);
        if depth > MAX_DEPTH {
            return Err(invalid(format!("a value is nested {depth} deep, and {MAX_DEPTH} can be kept")));
        }
        let text = value.to_string();
        if text.len() > max_bytes {
            return Err(ToolError::limit(Limit::Storage, max_bytes as u64, text.len() as u64));
        }
        Ok(Self(text))
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

fn depth_of(value: &Value) -> usize {
    // By a stack of its own: a value that was nested too deep would overflow the thread's.
    let mut deepest = 0;
    let mut open = vec![(value, 1)];
    while let Some((value, depth)) = open.pop() {
        deepest = deepest.max(depth);
        match value {
            Value::Array(items) => open.extend(items.iter().map(|item| (item, depth + 1))),
            Value::Object(fields) => open.extend(fields.values().map(|field| (field, depth + 1))),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    deepest
}

impl Type<Postgres> for Json {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(JSON_OID)
    }

    fn compatible(_: &PgTypeInfo) -> bool {
        true
    }
}

impl Encode<'_, Postgres> for Json {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        <&str as Encode<Postgres>>::encode(&self.0, buffer)
    }
}

impl Decode<'_, Postgres> for Json {
    fn decode(value: PgValueRef<'_>) -> Result<Self, BoxDynError> {
        Ok(Self(<String as Decode<Postgres>>::decode(value)?))
    }
}

impl Type<Sqlite> for Json {
    fn type_info() -> SqliteTypeInfo {
        <String as Type<Sqlite>>::type_info()
    }
}

impl Encode<'_, Sqlite> for Json {
    fn encode_by_ref(&self, buffer: &mut SqliteArgumentsBuffer) -> Result<IsNull, BoxDynError> {
        <String as Encode<Sqlite>>::encode(self.0.clone(), buffer)
    }
}

impl Decode<'_, Sqlite> for Json {
    fn decode(value: SqliteValueRef<'_>) -> Result<Self, BoxDynError> {
        Ok(Self(<String as Decode<Sqlite>>::decode(value)?))
    }
}

/// A row of an answer.
pub(crate) enum Row {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

/// What both databases can give.
pub(crate) trait Column:
    for<'r> Decode<'r, Sqlite> + Type<Sqlite> + for<'r> Decode<'r, Postgres> + Type<Postgres>
{
}

impl<T> Column for T where T: for<'r> Decode<'r, Sqlite> + Type<Sqlite> + for<'r> Decode<'r, Postgres> + Type<Postgres> {}

impl Row {
    /// The column at `index`, from 0.
    pub(crate) fn get<T: Column>(&self, index: usize) -> Result<T, Fault> {
        Ok(match self {
            Self::Sqlite(row) => row.try_get(index)?,
            Self::Postgres(row) => row.try_get(index)?,
        })
    }

    /// The same, as what it is the text of.
    pub(crate) fn parsed<T: std::str::FromStr>(&self, index: usize, what: &str) -> Result<T, Fault> {
        self.get::<String>(index)?.parse().map_err(|_| damaged(what).into())
    }

    /// The same, where it may be missing.
    pub(crate) fn parsed_option<T: std::str::FromStr>(&self, index: usize, what: &str) -> Result<Option<T>, Fault> {
        let text: Option<String> = self.get(index)?;
        text.map(|text| text.parse().map_err(|_| damaged(what).into())).transpose()
    }

    /// 32 bytes.
    pub(crate) fn digest(&self, index: usize) -> Result<[u8; 32], Fault> {
        self.get::<Vec<u8>>(index)?.try_into().map_err(|_| damaged("a digest").into())
    }

    /// A JSON document.
    pub(crate) fn json(&self, index: usize) -> Result<Value, Fault> {
        let text: Json = self.get(index)?;
        serde_json::from_str(&text.0).map_err(|_| damaged("a JSON document").into())
    }

    /// A JSON document that may be missing.
    pub(crate) fn json_option(&self, index: usize) -> Result<Option<Value>, Fault> {
        let text: Option<Json> = self.get(index)?;
        text.map(|text| serde_json::from_str(&text.0).map_err(|_| damaged("a JSON document").into())).transpose()
    }
}

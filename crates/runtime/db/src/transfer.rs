//! All rows of one database into another, whichever the engines: what moves a store, and what backs
//! up a server into one file.
//!
//! Nothing is known here about what the tables mean. The catalog of each side says which tables of
//! [`SCHEMAS`] there are, with their columns and keys; tables, views, indexes and
//! triggers themselves come from the migrations, which both sides must have run up to the same
//! number. The source is read at one instant, in the order of the keys, page by page. Each table's
//! rows make one digest, taken while they are read from the source and again from what the target
//! has stored: a copy is not believed before both agree. Engines do not sort texts alike, so the
//! digest does not depend on the order: it is the SHA-256 of the sum of the rows' own.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest, Sha256};
use watchbell_core::{Expect, Statement, Value};

use crate::database::{Database, Snapshot};
use crate::dialect::SCHEMAS;
use crate::error::DbError;
use crate::row::Row;

/// Rows that are read and written at a time.
const PAGE: usize = 2_000;
/// The record of what was migrated, which each database keeps for itself.
const HISTORY: &str = "ops.migrations";

/// Why rows were not transferred. What reached the target until then stays there: it must not be
/// used.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// The source failed.
    #[error("cannot read the source")]
    Source(#[source] DbError),
    /// The target failed.
    #[error("cannot write to the target")]
    Target(#[source] DbError),
    /// The two sides do not have the same tables.
    #[error(
        "the tables of source and target differ: {0}; bring both up to date with `watchbell db \
         migrate`"
    )]
    Schemas(String),
    /// The target has rows already.
    #[error("the target is not empty: {0} has rows")]
    NotEmpty(String),
    /// The copy is not what was read.
    #[error(
        "the copy of {table} differs: {from_rows} rows with SHA-256 {from_sha256} were read, \
         {to_rows} rows with SHA-256 {to_sha256} are in the target"
    )]
    Differs {
        /// The table.
        table: String,
        /// Rows of the source.
        from_rows: u64,
        /// Their digest.
        from_sha256: String,
        /// Rows of the target.
        to_rows: u64,
        /// Their digest.
        to_sha256: String,
    },
}

/// Rows that belong to the database itself, not to its contents: never copied, never counted.
#[derive(Debug, Clone, Copy)]
pub struct Own {
    /// Their table, as `schema.table`.
    pub table: &'static str,
    /// What is true of them, as a condition in the common form.
    pub rows: &'static str,
}

/// What was transferred of one table, the same on both sides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transferred {
    /// The table, as `schema.table`.
    pub table: String,
    /// Its rows.
    pub rows: u64,
    /// The digest of all of them, in hex.
    pub sha256: String,
}

/// How far a transfer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Rows written and rows compared, over all tables.
    pub done: u64,
    /// The number of both at the end.
    pub of: u64,
}

/// The types that both engines share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Type {
    Int,
    Float,
    Text,
    Json,
    Bytes,
}

impl Type {
    /// The type of a declaration, as the engine's catalog words it.
    fn parse(declared: &str) -> Option<Self> {
        Some(match declared {
            "integer" | "bigint" | "smallint" | "boolean" => Self::Int,
            "real" | "double precision" => Self::Float,
            "text" | "character varying" => Self::Text,
            "json" | "jsonb" => Self::Json,
            "blob" | "bytea" => Self::Bytes,
            _ => return None,
        })
    }

    const fn token(self) -> &'static str {
        match self {
            Self::Int => "i64",
            Self::Float => "f64",
            Self::Text => "text",
            Self::Json => "json",
            Self::Bytes => "bytes",
        }
    }

    /// A value as every engine would give it back: SQLite knows no `-0.0`, and may hold a whole
    /// number where a double is meant.
    fn canonical(self, value: &Value) -> Value {
        match (self, value) {
            (Self::Float, Value::Int(v)) => Value::Float(*v as f64),
            (Self::Float, Value::Float(v)) => Value::Float(*v + 0.0),
            _ => value.clone(),
        }
    }
}

#[derive(Debug, Clone)]
struct Column {
    name: String,
    kind: Type,
    /// Its place in the primary key, from 1.
    key: Option<i64>,
    /// Whether its numbers are given out by the engine.
    counted: bool,
}

/// A table of one side.
#[derive(Debug, Clone)]
struct Table {
    name: String,
    columns: Vec<Column>,
    /// The columns of its key, by their place in `columns`.
    key: Vec<usize>,
}

/// The tables of [`SCHEMAS`] by name, without the history of migrations.
type Catalog = BTreeMap<String, Table>;

const COLUMNS: &str = "
    /*sqlite*/
    select m.name, c.name, lower(c.type), c.pk, c.pk > 0 and lower(m.sql) like '%autoincrement%'
    from sqlite_schema m join pragma_table_info(m.name) c
    where m.type = 'table' and m.name not like 'sqlite%'
    order by m.name, c.cid
    /*end*/
    /*pg*/
    select n.nspname::text || '.' || c.relname::text, a.attname::text,
        format_type(a.atttypid, null),
        coalesce((select k.place from unnest(i.indkey::int2[]) with ordinality as k(att, place)
            where k.att = a.attnum), 0),
        (pg_get_serial_sequence(quote_ident(n.nspname) || '.' || quote_ident(c.relname), a.attname)
            is not null)::int::bigint
    from pg_class c
    join pg_namespace n on n.oid = c.relnamespace
    join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
        and a.attgenerated = ''
    left join pg_index i on i.indrelid = c.oid and i.indisprimary
    where c.relkind in ('r', 'p') and not c.relispartition
        and n.nspname::text in (select s.value from json_array_elements_text($1::json) s)
    order by 1, a.attnum
    /*end*/";

const REFERENCES: &str = "
    /*sqlite*/
    select m.name, r.\"table\"
    from sqlite_schema m join pragma_foreign_key_list(m.name) r where m.type = 'table'
    /*end*/
    /*pg*/
    select n.nspname::text || '.' || c.relname::text, rn.nspname::text || '.' || rc.relname::text
    from pg_constraint f
    join pg_class c on c.oid = f.conrelid join pg_namespace n on n.oid = c.relnamespace
    join pg_class rc on rc.oid = f.confrelid join pg_namespace rn on rn.oid = rc.relnamespace
    where f.contype = 'f' and f.conparentid = 0
    /*end*/";

/// `ops_cycles` and `ops.cycles` as `ops.cycles`; nothing for a table of another schema.
fn common_name(name: &str) -> Option<String> {
    SCHEMAS.iter().find_map(|schema| {
        let table = name.strip_prefix(schema)?.strip_prefix(['.', '_'])?;
        Some(format!("{schema}.{table}"))
    })
}

fn quoted(name: &str) -> String {
    format!("\"{name}\"")
}

async fn catalog(at: &Snapshot) -> Result<Catalog, DbError> {
    let schemas = format!("[\"{}\"]", SCHEMAS.join("\",\""));
    let sql = COLUMNS.replace("$1", &format!("'{schemas}'"));
    let mut tables = Catalog::new();
    for row in at.query(sql, Vec::new()).await? {
        let Some(name) = common_name(row.text(0)?).filter(|n| n != HISTORY) else { continue };
        let column = row.text(1)?.to_owned();
        let declared = row.text(2)?;
        let kind = Type::parse(declared).ok_or_else(|| DbError::Statement {
            target: name.clone(),
            detail: format!("column {column} has the type {declared}, which has no common form"),
            sql: "the catalog".to_owned(),
        })?;
        let key = Some(row.i64(3)?).filter(|place| *place > 0);
        let counted = row.bool(4)?;
        let table = tables.entry(name.clone()).or_insert_with(|| Table {
            name,
            columns: Vec::new(),
            key: Vec::new(),
        });
        table.columns.push(Column { name: column, kind, key, counted });
    }
    for table in tables.values_mut() {
        let mut key: Vec<(i64, usize)> = table
            .columns
            .iter()
            .enumerate()
            .filter_map(|(i, c)| c.key.map(|place| (place, i)))
            .collect();
        key.sort_unstable();
        table.key = key.into_iter().map(|(_, i)| i).collect();
        if table.key.is_empty() {
            return Err(DbError::Statement {
                target: table.name.clone(),
                detail: "it has no primary key, so its rows have no order".to_owned(),
                sql: "the catalog".to_owned(),
            });
        }
    }
    Ok(tables)
}

/// The tables in an order in which each comes after those that it refers to.
async fn in_order(at: &Snapshot, catalog: &Catalog) -> Result<Vec<String>, DbError> {
    let mut needs: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for row in at.query(REFERENCES, Vec::new()).await? {
        let (Some(from), Some(to)) = (common_name(row.text(0)?), common_name(row.text(1)?)) else {
            continue;
        };
        if let Some((from, _)) = catalog.get_key_value(&from).filter(|_| from != to) {
            needs.entry(from).or_default().insert(to);
        }
    }
    let mut order: Vec<String> = Vec::new();
    let mut rest: Vec<&String> = catalog.keys().collect();
    while !rest.is_empty() {
        let ready = |name: &str| {
            needs.get(name).is_none_or(|needs| needs.iter().all(|n| order.contains(n)))
        };
        let (now, later): (Vec<&String>, Vec<&String>) =
            rest.iter().copied().partition(|name| ready(name));
        if now.is_empty() {
            // References in a circle: no order helps, and the engine will say which row it misses.
            order.extend(later.into_iter().cloned());
            break;
        }
        order.extend(now.into_iter().cloned());
        rest = later;
    }
    Ok(order)
}

impl Table {
    fn list(&self, each: impl Fn(usize, &Column) -> String) -> String {
        let columns: Vec<String> =
            self.columns.iter().enumerate().map(|(i, c)| each(i, c)).collect();
        columns.join(", ")
    }

    /// The next page of this side's rows: all columns of `like`, in its order.
    fn page(&self, like: &Self, own: &[Own], after: bool, limit: usize) -> String {
        let key: Vec<String> = self.key.iter().map(|&i| quoted(&self.columns[i].name)).collect();
        let key = key.join(", ");
        let mut conditions: Vec<String> = own
            .iter()
            .filter(|own| own.table == self.name)
            .map(|own| format!("not ({})", own.rows))
            .collect();
        if after {
            let params: Vec<String> = (1..=self.key.len()).map(|n| format!("${n}")).collect();
            conditions.push(format!("({key}) > ({})", params.join(", ")));
        }
        let filter = match conditions.join(" and ") {
            none if none.is_empty() => none,
            some => format!(" where {some}"),
        };
        let columns = like.list(|_, c| quoted(&c.name));
        format!("select {columns} from {}{filter} order by {key} limit {limit}", self.name)
    }

    /// The insertion of rows as [`page`](Self::page) gives them.
    fn insertion(&self, like: &Self) -> String {
        let columns = like.list(|_, c| quoted(&c.name));
        let params = like.list(|i, _| format!("${}", i + 1));
        let types: Vec<&str> = like
            .columns
            .iter()
            .filter_map(|c| self.columns.iter().find(|own| own.name == c.name))
            .map(|own| own.kind.token())
            .collect();
        let types = types.join(",");
        format!(
            "insert into {} ({columns}) /*pg*/ overriding system value \
             select {params} from {{rows:{types}}} /*end*/ /*sqlite*/ values ({params}) /*end*/",
            self.name
        )
    }

    fn key_of(&self, like: &Self, row: &[Value]) -> Vec<Value> {
        let place = |i: usize| like.columns.iter().position(|c| c.name == self.columns[i].name);
        self.key.iter().filter_map(|&i| row.get(place(i)?).cloned()).collect()
    }

    fn canonical(&self, row: &Row) -> Vec<Value> {
        self.columns.iter().zip(row.values()).map(|(c, v)| c.kind.canonical(v)).collect()
    }
}

/// Rows and their digest.
#[derive(Default)]
struct Tally {
    rows: u64,
    /// The sum of the rows' SHA-256, as a number of 256 bits, the lowest 64 first.
    sum: [u64; 4],
}

impl Tally {
    /// Each cell is a letter for its type and its bytes; texts and bytes with their length before
    /// them, so that no two rows look the same.
    fn add(&mut self, row: &[Value]) {
        let mut sha = Sha256::new();
        for value in row {
            match value {
                Value::Null => sha.update(b"n"),
                Value::Int(v) => {
                    sha.update(b"i");
                    sha.update(v.to_be_bytes());
                }
                Value::Float(v) => {
                    sha.update(b"f");
                    sha.update(v.to_bits().to_be_bytes());
                }
                Value::Text(v) => sized(&mut sha, *b"t", v.as_bytes()),
                Value::Bytes(v) => sized(&mut sha, *b"b", v),
            }
        }
        let mut carry = false;
        for (limb, bytes) in self.sum.iter_mut().zip(sha.finalize().as_chunks::<8>().0) {
            let (sum, over) = limb.overflowing_add(u64::from_le_bytes(*bytes));
            let (sum, over_too) = sum.overflowing_add(carry.into());
            (*limb, carry) = (sum, over || over_too);
        }
        self.rows += 1;
    }

    fn finish(&self, table: &str) -> Transferred {
        let mut sha = Sha256::new();
        sha.update(self.rows.to_be_bytes());
        self.sum.iter().for_each(|limb| sha.update(limb.to_le_bytes()));
        let sha256 = sha.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Transferred { table: table.to_owned(), rows: self.rows, sha256 }
    }
}

fn sized(sha: &mut Sha256, kind: [u8; 1], bytes: &[u8]) {
    sha.update(kind);
    sha.update((bytes.len() as u64).to_be_bytes());
    sha.update(bytes);
}

/// Reads a table of one side to its end, in pages of canonical rows.
struct Pages<'a> {
    at: &'a Snapshot,
    table: &'a Table,
    like: &'a Table,
    own: &'a [Own],
    after: Option<Vec<Value>>,
    ended: bool,
}

impl<'a> Pages<'a> {
    const fn new(at: &'a Snapshot, table: &'a Table, like: &'a Table, own: &'a [Own]) -> Self {
        Self { at, table, like, own, after: None, ended: false }
    }

    async fn next(&mut self) -> Result<Vec<Vec<Value>>, DbError> {
        if self.ended {
            return Ok(Vec::new());
        }
        let sql = self.table.page(self.like, self.own, self.after.is_some(), PAGE);
        let rows = self.at.query(sql, self.after.take().unwrap_or_default()).await?;
        self.ended = rows.len() < PAGE;
        self.after = rows.last().map(|row| self.table.key_of(self.like, row.values()));
        Ok(rows.iter().map(|row| self.like.canonical(row)).collect())
    }
}

/// The first table that has rows which are not its database's own; nothing when there is none.
///
/// # Errors
/// The engine fails.
pub async fn occupied(db: &Database, own: &[Own]) -> Result<Option<String>, DbError> {
    let at = db.snapshot().await?;
    for table in catalog(&at).await?.values() {
        let one = at.query(table.page(table, own, false, 1), Vec::new()).await?;
        if !one.is_empty() {
            return Ok(Some(table.name.clone()));
        }
    }
    Ok(None)
}

/// Whether the database has tables of ours at all.
///
/// # Errors
/// The engine fails.
pub async fn is_blank(db: &Database) -> Result<bool, DbError> {
    let at = db.snapshot().await?;
    let rows = at.query(
        "select 1 /*sqlite*/ from sqlite_schema where type = 'table' and name = 'ops_migrations' /*end*/
         /*pg*/ where to_regclass('ops.migrations') is not null /*end*/",
        Vec::new(),
    );
    Ok(rows.await?.is_empty())
}

/// The digest of every table, by name.
///
/// # Errors
/// The engine fails.
pub async fn digest(db: &Database, own: &[Own]) -> Result<Vec<Transferred>, DbError> {
    let at = db.snapshot().await?;
    let mut all = Vec::new();
    for table in catalog(&at).await?.values() {
        all.push(tally(&at, table, table, own, |_| {}).await?);
    }
    Ok(all)
}

async fn count(at: &Snapshot, tables: &Catalog) -> Result<u64, DbError> {
    let mut rows = 0;
    for name in tables.keys() {
        let sql = format!("select count(*) from {name}");
        rows += at.query_one(sql, Vec::new()).await?.i64(0)?.unsigned_abs();
    }
    Ok(rows)
}

/// Deletes every row but the database's own, and lets the numbers go on from where they are. For a
/// copy that was not finished, and for one that is about to be replaced.
///
/// # Errors
/// The engine fails; nothing was deleted then.
pub async fn empty(db: &Database, own: &[Own]) -> Result<(), DbError> {
    let (tables, order) = {
        let at = db.snapshot().await?;
        let tables = catalog(&at).await?;
        let order = in_order(&at, &tables).await?;
        (tables, order)
    };
    let wake = rest_triggers(db, &tables).await?;
    let kept = |name: &str| own.iter().find(|own| own.table == name);
    let plain: Vec<&str> =
        order.iter().map(String::as_str).filter(|name| kept(name).is_none()).collect();
    let mut statements = Vec::new();
    if !plain.is_empty() {
        let sql = format!("/*pg*/ truncate {} /*end*/", plain.join(", "));
        statements.push(Statement::new(sql, Vec::new()));
    }
    for name in order.iter().rev() {
        let sql = match kept(name) {
            Some(own) => format!("delete from {name} where not ({})", own.rows),
            None => format!("/*sqlite*/ delete from {name} /*end*/"),
        };
        statements.push(Statement::new(sql, Vec::new()));
    }
    statements.extend(wake);
    db.apply(statements).await.map(drop)
}

async fn tally(
    at: &Snapshot,
    table: &Table,
    like: &Table,
    own: &[Own],
    mut seen: impl FnMut(u64),
) -> Result<Transferred, DbError> {
    let mut pages = Pages::new(at, table, like, own);
    let mut tally = Tally::default();
    loop {
        let page = pages.next().await?;
        if page.is_empty() {
            return Ok(tally.finish(&table.name));
        }
        page.iter().for_each(|row| tally.add(row));
        seen(page.len() as u64);
    }
}

/// Copies every row of `from`, as of one instant, into `to`, and compares what arrived. Both must be
/// migrated to the same numbers, and `to` must have no rows but its own. The highest number that was
/// ever given out is carried along, so that none is used twice. Triggers, which would write what is
/// copied anyway, rest until all rows are there.
///
/// # Errors
/// See [`TransferError`].
pub async fn transfer(
    from: &Database,
    to: &Database,
    own: &[Own],
    mut report: impl FnMut(Progress),
) -> Result<Vec<Transferred>, TransferError> {
    use TransferError::{Source, Target};
    let source = from.snapshot().await.map_err(Source)?;
    let (from_tables, to_tables) = {
        let target = to.snapshot().await.map_err(Target)?;
        same_history(&source, &target).await?;
        (catalog(&source).await.map_err(Source)?, catalog(&target).await.map_err(Target)?)
    };
    comparable(&from_tables, &to_tables)?;
    if let Some(table) = occupied(to, own).await.map_err(Target)? {
        return Err(TransferError::NotEmpty(table));
    }
    let rows = count(&source, &from_tables).await.map_err(Source)?;
    let mut progress = Progress { done: 0, of: rows * 2 };
    let resting = rest_triggers(to, &to_tables).await.map_err(Target)?;
    let mut copied = Vec::new();
    for name in in_order(&source, &from_tables).await.map_err(Source)? {
        let (Some(table), Some(into)) = (from_tables.get(&name), to_tables.get(&name)) else {
            continue;
        };
        let mut tally = Tally::default();
        let mut pages = Pages::new(&source, table, table, own);
        let insertion = into.insertion(table);
        let mut page = pages.next().await.map_err(Source)?;
        while !page.is_empty() {
            page.iter().for_each(|row| tally.add(row));
            let rows = page.len() as u64;
            let params = page.into_iter().flatten().collect();
            let insert = Statement::bulk(insertion.clone(), table.columns.len(), params)
                .expect(Expect::Exactly(rows));
            // While one page is written the next one is read.
            let (next, written) = tokio::join!(pages.next(), to.apply(vec![insert]));
            written.map_err(Target)?;
            page = next.map_err(Source)?;
            progress.done += rows;
            report(progress);
        }
        for column in into.columns.iter().filter(|c| c.counted) {
            carry_count(&source, to, into, column).await?;
        }
        copied.push(tally.finish(&name));
    }
    drop(source);
    to.apply(resting).await.map_err(Target)?;
    let target = to.snapshot().await.map_err(Target)?;
    for read in &copied {
        let (Some(table), Some(like)) = (to_tables.get(&read.table), from_tables.get(&read.table))
        else {
            continue;
        };
        let name = &read.table;
        let seen = |rows| {
            progress.done += rows;
            report(progress);
        };
        let stored = tally(&target, table, like, own, seen).await.map_err(Target)?;
        if stored != *read {
            return Err(TransferError::Differs {
                table: name.clone(),
                from_rows: read.rows,
                from_sha256: read.sha256.clone(),
                to_rows: stored.rows,
                to_sha256: stored.sha256,
            });
        }
    }
    copied.sort_by(|a, b| a.table.cmp(&b.table));
    Ok(copied)
}

/// Both sides must have run the same migrations.
async fn same_history(source: &Snapshot, target: &Snapshot) -> Result<(), TransferError> {
    const HISTORIES: &str =
        "select line, number, checksum from ops.migrations order by line, number";
    let read = |rows: Vec<Row>| {
        rows.iter()
            .map(|r| Ok((format!("{}/{}", r.text(0)?, r.i64(1)?), r.text(2)?.to_owned())))
            .collect::<Result<BTreeMap<_, _>, DbError>>()
    };
    let rows = source.query(HISTORIES, Vec::new()).await.map_err(TransferError::Source)?;
    let from = read(rows).map_err(TransferError::Source)?;
    let rows = target.query(HISTORIES, Vec::new()).await.map_err(TransferError::Target)?;
    let to = read(rows).map_err(TransferError::Target)?;
    for step in from.keys().chain(to.keys()) {
        let what = match (from.get(step), to.get(step)) {
            (Some(a), Some(b)) if a == b => continue,
            (Some(_), Some(_)) => "has another text in the target",
            (Some(_), None) => "is missing in the target",
            _ => "is missing in the source",
        };
        return Err(TransferError::Schemas(format!("migration {step} {what}")));
    }
    Ok(())
}

/// Each table of the source needs one of the same columns and key in the target.
fn comparable(from: &Catalog, to: &Catalog) -> Result<(), TransferError> {
    for (name, table) in from {
        let Some(into) = to.get(name) else {
            return Err(TransferError::Schemas(format!("the target has no table {name}")));
        };
        let shape = |t: &Table| {
            let key: Vec<&str> = t.key.iter().map(|&i| t.columns[i].name.as_str()).collect();
            let columns: BTreeSet<&str> = t.columns.iter().map(|c| c.name.as_str()).collect();
            (key.join(", "), columns.into_iter().collect::<Vec<_>>().join(", "))
        };
        let ((from_key, from_columns), (to_key, to_columns)) = (shape(table), shape(into));
        if (&from_key, &from_columns) != (&to_key, &to_columns) {
            return Err(TransferError::Schemas(format!(
                "{name} has the columns {from_columns} and the key {from_key} in the source, \
                 {to_columns} and {to_key} in the target"
            )));
        }
    }
    Ok(())
}

/// Lets the triggers of the target rest; returns what wakes them again.
async fn rest_triggers(to: &Database, tables: &Catalog) -> Result<Vec<Statement>, DbError> {
    const TRIGGERS: &str = "select name, sql
        from /*sqlite*/ sqlite_schema where type = 'trigger' /*end*/
        /*pg*/ (select '' as name, '' as sql) t where false /*end*/ order by name";
    let plain = |sql: String| Statement::new(sql, Vec::new());
    let (mut rest, mut wake) = (Vec::new(), Vec::new());
    for row in to.query(TRIGGERS, Vec::new()).await? {
        rest.push(plain(format!("drop trigger {}", quoted(row.text(0)?))));
        wake.push(plain(row.text(1)?.to_owned()));
    }
    for table in tables.keys() {
        let switch = |to| format!("/*pg*/ alter table {table} {to} trigger user /*end*/");
        rest.push(plain(switch("disable")));
        wake.push(plain(switch("enable")));
    }
    to.apply(rest).await?;
    Ok(wake)
}

/// Goes on counting where the source would have.
async fn carry_count(
    source: &Snapshot,
    to: &Database,
    table: &Table,
    column: &Column,
) -> Result<(), TransferError> {
    let (name, key) = (&table.name, &column.name);
    let sqlite_name = name.replacen('.', "_", 1);
    let sequence = format!("pg_get_serial_sequence('{name}', '{key}')::regclass");
    let highest = format!(
        "select /*sqlite*/ max(coalesce((select seq from sqlite_sequence where name = \
         '{sqlite_name}'), 0), coalesce((select max({key}) from {name}), 0)) /*end*/
         /*pg*/ greatest(coalesce(pg_sequence_last_value({sequence}), 0),
         coalesce((select max({key}) from {name}), 0)) /*end*/"
    );
    let highest = source.query_one(highest, Vec::new()).await.and_then(|row| row.i64(0));
    let highest = highest.map_err(TransferError::Source)?;
    if highest < 1 {
        return Ok(());
    }
    let statements = vec![
        Statement::new(
            format!("/*sqlite*/ delete from sqlite_sequence where name = '{sqlite_name}' /*end*/"),
            Vec::new(),
        ),
        Statement::new(
            format!(
                "/*sqlite*/ insert into sqlite_sequence (name, seq) values ('{sqlite_name}', \
                 {highest}) /*end*/ /*pg*/ select setval({sequence}, {highest}) /*end*/"
            ),
            Vec::new(),
        ),
    ];
    to.apply(statements).await.map(drop).map_err(TransferError::Target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_both_engines_become_the_common_one() {
        for (name, common) in [
            ("ops_cycles", Some("ops.cycles")),
            ("ops.cycles", Some("ops.cycles")),
            ("ops_market_sync_log", Some("ops.market_sync_log")),
            ("str_aux_windows", Some("str_aux.windows")),
            ("mea_dynamics.x", Some("mea_dynamics.x")),
            ("opslog", None),
            ("public.cycles", None),
        ] {
            assert_eq!(common_name(name).as_deref(), common, "{name}");
        }
    }

    #[test]
    fn a_digest_tells_rows_apart_that_differ_only_in_where_cells_end() {
        let sha = |rows: &[&[Value]]| {
            let mut tally = Tally::default();
            rows.iter().for_each(|r| tally.add(r));
            tally.finish("t").sha256
        };
        let text = |s: &str| Value::from(s);
        assert_ne!(sha(&[&[text("ab"), text("c")]]), sha(&[&[text("a"), text("bc")]]));
        assert_ne!(sha(&[&[Value::Int(1)]]), sha(&[&[Value::Float(1.0)]]));
        assert_ne!(sha(&[&[Value::Null]]), sha(&[&[text("")]]));
        assert_ne!(sha(&[]), sha(&[&[]]));
        assert_eq!(sha(&[&[text("a")], &[text("b")]]), sha(&[&[text("b")], &[text("a")]]));
        let zero = Type::Float.canonical(&Value::Float(-0.0));
        assert_eq!(sha(&[&[zero]]), sha(&[&[Type::Float.canonical(&Value::Int(0))]]));
    }
}

//! Statements on one connection: prepared when first met, sent without waiting for the answers of
//! those before.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;

use deadpool_postgres::ClientWrapper;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt};
use tokio_postgres::types::Type;
use tokio_postgres::{CancelToken, RowStream, Statement as Prepared};
use watchbell_core::{Expect, Statement, Value};

use super::fault::{Failure, Place, Server};
use super::text::{Probe, Shape, Text, Texts};
use super::value::Param;
use crate::database::{Applied, Durability};
use crate::error::DbError;
use crate::row::{Columns, Row, RowRef};

/// Rows that one set-based statement carries at most.
const SET_ROWS: usize = 5_000;
/// Statements on the way at a time.
const WINDOW: usize = 256;

/// What every session of one database shares.
pub(super) struct Shared {
    pub(super) texts: Texts,
    pub(super) server: Server,
    /// No prepared statements, no settings of the session.
    pub(super) pooler: bool,
}

/// A connection in use.
#[derive(Clone, Copy)]
pub(super) struct Session<'a> {
    pub(super) client: &'a ClientWrapper,
    pub(super) shared: &'a Shared,
    /// A transaction is open on it.
    pub(super) inside: bool,
}

/// How a list is to be run.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct How {
    /// Waits so long for locks instead of the session's own limit.
    pub(super) lock_ms: Option<u64>,
    /// Never many rows in one statement.
    pub(super) row_by_row: bool,
    /// Does not wait for the disk.
    pub(super) unsynced: bool,
}

impl How {
    pub(super) fn of(durability: Durability) -> Self {
        Self { unsynced: durability == Durability::Soon, ..Self::default() }
    }
}

/// Why a transaction came to nothing.
#[derive(Debug)]
pub(super) struct Refusal {
    /// The list that caused it, if one did.
    pub(super) list: Option<usize>,
    pub(super) error: DbError,
    pub(super) again: Again,
}

/// What may help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    /// Nothing that we could do.
    No,
    /// The same once more: a statement had to be prepared anew.
    Same,
    /// Row by row.
    RowByRow,
    /// Preparing each statement after the one before ran.
    StepByStep,
}

/// What one statement did.
struct Answer {
    changed: u64,
    rows: Vec<Row>,
}

/// A request that was sent, unless it failed before.
enum Sent<'f, T> {
    Waiting(BoxFuture<'f, Result<T, Failure>>),
    Done(Result<T, Failure>),
}

/// Polls once, which is what sends it.
fn send<'f, T>(mut pending: BoxFuture<'f, Result<T, Failure>>) -> Sent<'f, T> {
    match pending.as_mut().now_or_never() {
        Some(done) => Sent::Done(done),
        None => Sent::Waiting(pending),
    }
}

impl<T> Sent<'_, T> {
    const fn failed(&self) -> bool {
        matches!(self, Self::Done(Err(_)))
    }

    async fn answer(self) -> Result<T, Failure> {
        match self {
            Self::Waiting(pending) => pending.await,
            Self::Done(done) => done,
        }
    }
}

/// One statement, ready to be sent.
struct Ready<'l> {
    list: usize,
    index: usize,
    text: Arc<Text>,
    shape: Arc<Shape>,
    /// Prepared on this connection; without a pooler.
    prepared: Option<Prepared>,
    /// Many rows at once, or one.
    set: bool,
    width: usize,
    params: &'l [Value],
}

/// Ends the transaction should its caller go away, so that the connection comes back clean.
pub(super) struct Open<'a>(Option<&'a ClientWrapper>);

impl<'a> Open<'a> {
    pub(super) const fn new(client: &'a ClientWrapper) -> Self {
        Self(Some(client))
    }

    pub(super) fn end(&mut self) {
        self.0 = None;
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        if let Some(client) = self.0 {
            rollback(client);
        }
    }
}

/// Sends a rollback without waiting: whatever uses the connection next is sent after it.
pub(super) fn rollback(client: &ClientWrapper) {
    // Its answer says nothing that anyone could act on.
    drop(client.batch_execute("rollback").now_or_never());
}

impl<'a> Session<'a> {
    /// The same with a transaction open on it.
    pub(super) const fn within(self) -> Self {
        Self { inside: true, ..self }
    }

    fn begin(self, how: How) -> String {
        let shared = &self.shared.server;
        let mut begin = match how.lock_ms {
            Some(lock_ms) => format!("begin; set local lock_timeout = {lock_ms}"),
            None if self.shared.pooler => format!(
                "begin; set local lock_timeout = {}; set local statement_timeout = {}",
                shared.lock_timeout_ms, shared.statement_timeout_ms
            ),
            None => "begin".to_owned(),
        };
        if how.unsynced {
            begin.push_str("; set local synchronous_commit = off");
        }
        begin
    }

    /// Runs lists of statements in one transaction. After a refusal nothing of them was stored,
    /// unless the error is [`DbError::AnswerLost`].
    pub(super) async fn transact(
        self,
        lists: &[&[Statement]],
        how: How,
    ) -> Result<Vec<Applied>, Refusal> {
        let mut ready = Vec::new();
        for (list, statements) in lists.iter().enumerate() {
            self.make_ready(list, statements, how, &mut ready).await?;
        }
        let mut applied: Vec<Applied> = lists
            .iter()
            .map(|l| Applied { changed: vec![0; l.len()], rows: vec![Vec::new(); l.len()] })
            .collect();
        if ready.is_empty() {
            check(lists, &applied, self.shared)?;
            return Ok(applied);
        }
        let careless = lists.iter().flat_map(|l| l.iter()).all(|s| s.expect == Expect::Any);
        let plain = how.lock_ms.is_none() && !how.unsynced && !self.shared.pooler;
        if let ([only], true, true) = (&ready[..], careless, plain) {
            // One statement is its own transaction.
            let answer = self.start(only).await.map_err(|e| self.refuse(only, e, true))?;
            take(&mut applied, only, answer);
            return Ok(applied);
        }
        let begin = self.begin(how);
        let mut open = Open::new(self.client);
        let mut begun = Some(send(self.control(&begin)));
        let mut on_the_way: VecDeque<(&Ready<'_>, Sent<'_, Answer>)> = VecDeque::new();
        let mut waiting = ready.iter();
        let mut commit = None;
        loop {
            while on_the_way.len() < WINDOW
                && let Some(next) = waiting.next()
            {
                on_the_way.push_back((next, send(self.start(next))));
            }
            // Where nothing is expected there is nothing to look at before the commit; and should
            // a statement fail, the server makes a rollback of it.
            if careless
                && commit.is_none()
                && waiting.len() == 0
                && !on_the_way.iter().any(|(_, sent)| sent.failed())
            {
                commit = Some(send(self.control("commit")));
                open.end();
            }
            if let Some(begun) = begun.take() {
                begun.answer().await.map_err(|e| self.lost(e, commit.is_some()))?;
            }
            let Some((statement, sent)) = on_the_way.pop_front() else { break };
            match sent.answer().await {
                Ok(answer) => take(&mut applied, statement, answer),
                Err(e) => {
                    // It was sent before the answers to those before it were known: an expectation
                    // that one of them has not met comes first.
                    let (list, index) = (statement.list, statement.index);
                    let mut before = lists[..=list].to_vec();
                    before[list] = &lists[list][..index];
                    if !e.is_silence() {
                        check(&before, &applied, self.shared)?;
                    }
                    return Err(self.refuse(statement, e, commit.is_some()));
                }
            }
        }
        let commit = match commit {
            Some(commit) => commit,
            None => {
                check(lists, &applied, self.shared)?;
                open.end();
                send(self.control("commit"))
            }
        };
        commit.answer().await.map_err(|e| self.commit_refused(lists, e))?;
        Ok(applied)
    }

    /// Runs something that has no parameters and whose rows nobody wants.
    fn control<'f>(self, sql: &'f str) -> BoxFuture<'f, Result<(), Failure>>
    where
        'a: 'f,
    {
        async move { Ok(self.client.batch_execute(sql).await?) }.boxed()
    }

    /// Runs a list whose later statements speak of what earlier ones make.
    pub(super) async fn step_by_step(
        self,
        statements: &[Statement],
        how: How,
    ) -> Result<Applied, Refusal> {
        let mut applied = vec![Applied {
            changed: vec![0; statements.len()],
            rows: vec![Vec::new(); statements.len()],
        }];
        let inside = self.within();
        let mut open = Open::new(self.client);
        self.control(&self.begin(how)).await.map_err(|e| self.lost(e, false))?;
        for (index, statement) in statements.iter().enumerate() {
            let mut ready = Vec::new();
            inside.make_ready_at(0, index, statement, how, &mut ready).await?;
            for statement in &ready {
                match self.start(statement).await {
                    Ok(answer) => take(&mut applied, statement, answer),
                    Err(e) => return Err(self.refuse(statement, e, false)),
                }
            }
            check(&[&statements[..=index]], &applied, self.shared)?;
        }
        open.end();
        let committed = self.control("commit").await;
        committed.map_err(|e| self.commit_refused(&[statements], e))?;
        Ok(applied.pop().unwrap_or_default())
    }

    /// Finds out how each statement of a list is prepared.
    async fn make_ready<'l>(
        self,
        list: usize,
        statements: &'l [Statement],
        how: How,
        ready: &mut Vec<Ready<'l>>,
    ) -> Result<(), Refusal> {
        for (index, statement) in statements.iter().enumerate() {
            let made = self.make_ready_at(list, index, statement, how, ready).await;
            if let Err(mut refusal) = made {
                if refusal.again == Again::StepByStep && statements.len() == 1 {
                    refusal.again = Again::No;
                }
                return Err(refusal);
            }
        }
        Ok(())
    }

    async fn make_ready_at<'l>(
        self,
        list: usize,
        index: usize,
        statement: &'l Statement,
        how: How,
        ready: &mut Vec<Ready<'l>>,
    ) -> Result<(), Refusal> {
        let text = self.shared.texts.get(&statement.sql);
        if text.empty || (statement.width > 0 && statement.params.is_empty()) {
            return Ok(());
        }
        let (params, width) = (&statement.params[..], statement.width);
        let refused = |failure: Failure| {
            let again = if failure.is_undefined() { Again::StepByStep } else { Again::No };
            let error = self.shared.server.refusal(text.place(index), failure);
            Refusal { list: Some(list), error, again }
        };
        let shape = self.shape(&text, params, width).await.map_err(refused)?;
        let set = text.translated.rows || width > 0 && shape.set.is_some() && !how.row_by_row;
        let (sql, pins) = match &shape.set {
            Some(many) if set => (&many.sql, &[][..]),
            _ => (&text.translated.sql, &shape.pins[..]),
        };
        let prepared = if self.shared.pooler {
            None
        } else {
            let prepared = self.client.statement_cache.prepare_typed(self.client, sql, pins).await;
            Some(prepared.map_err(|e| refused(e.into()))?)
        };
        let chunk = match (set, width) {
            (true, 0) => params.len().max(1),
            (true, width) => width * SET_ROWS,
            (false, 0) => params.len().max(1),
            (false, width) => width,
        };
        let mut add = |params: &'l [Value]| {
            let (text, shape, prepared) = (Arc::clone(&text), Arc::clone(&shape), prepared.clone());
            let width = if width == 0 { params.len() } else { width };
            ready.push(Ready { list, index, text, shape, prepared, set, width, params });
        };
        if params.is_empty() {
            add(params);
        } else {
            params.chunks(chunk).for_each(add);
        }
        Ok(())
    }

    async fn shape(
        self,
        text: &Text,
        params: &[Value],
        width: usize,
    ) -> Result<Arc<Shape>, Failure> {
        let given = if width == 0 { params.len() } else { width };
        let passing = self.shared.pooler && !self.inside;
        let probe = Probe { client: self.client, passing };
        let shape = text.shape(probe, params, width).await?;
        if shape.types.len() != given {
            let detail = format!("it has {} parameters, and {given} were given", shape.types.len());
            let (target, sql) = (text.target.clone(), text.common.clone());
            let sql = sql.split_whitespace().collect::<Vec<_>>().join(" ");
            return Err(DbError::Statement { target, detail, sql }.into());
        }
        Ok(shape)
    }

    /// The answer of a statement; it is sent when this is first polled.
    fn start<'f>(self, ready: &'f Ready<'_>) -> BoxFuture<'f, Result<Answer, Failure>>
    where
        'a: 'f,
    {
        async move {
            let (values, width, shape) = (ready.params, ready.width, &*ready.shape);
            let stream = match (&shape.set, &ready.prepared) {
                (Some(set), prepared) if ready.set => {
                    let columns = (0..width).map(|place| Param::Column { values, width, place });
                    self.request(&set.sql, &set.types, prepared.as_ref(), columns).await?
                }
                (_, prepared) => {
                    let sql = &ready.text.translated.sql;
                    let values = values.iter().map(Param::One);
                    self.request(sql, &shape.types, prepared.as_ref(), values).await?
                }
            };
            answer(stream, &shape.columns).await
        }
        .boxed()
    }

    async fn request<'p>(
        self,
        sql: &str,
        types: &[Type],
        prepared: Option<&Prepared>,
        params: impl ExactSizeIterator<Item = Param<'p>>,
    ) -> Result<RowStream, tokio_postgres::Error> {
        match prepared {
            Some(prepared) => self.client.query_raw(prepared, params).await,
            None => {
                let typed: Vec<_> = params.zip(types.iter().cloned()).collect();
                self.client.query_typed_raw(sql, typed).await
            }
        }
    }

    /// The refusal of a statement. With `committing`, the server may have gone on to the commit
    /// should it have fallen silent.
    fn refuse(self, statement: &Ready<'_>, failure: Failure, committing: bool) -> Refusal {
        let (list, text) = (Some(statement.list), &statement.text);
        if failure.is_silence() {
            return self.silence(failure, committing);
        }
        let again = if failure.is_stale() {
            self.client.statement_cache.clear();
            text.forget();
            Again::Same
        } else if statement.set && failure.is_second_change() && !text.translated.rows {
            Again::RowByRow
        } else {
            Again::No
        };
        let error = self.shared.server.refusal(text.place(statement.index), failure);
        Refusal { list, error, again }
    }

    fn silence(self, failure: Failure, committing: bool) -> Refusal {
        let server = &self.shared.server;
        let error = if committing {
            DbError::AnswerLost { server: server.location.clone() }
        } else {
            let place = Place { index: 0, target: "?", sql: "" };
            server.refusal(place, failure)
        };
        Refusal { list: None, error, again: Again::No }
    }

    fn lost(self, failure: Failure, committing: bool) -> Refusal {
        if failure.is_silence() {
            return self.silence(failure, committing);
        }
        let place = Place { index: 0, target: "?", sql: "begin" };
        let error = self.shared.server.refusal(place, failure);
        Refusal { list: None, error, again: Again::No }
    }

    /// The commit itself failed: a rule that is checked only now, or the connection.
    fn commit_refused(self, lists: &[&[Statement]], failure: Failure) -> Refusal {
        if failure.is_silence() {
            return self.silence(failure, true);
        }
        let alone = if let [list] = lists { list.last() } else { None };
        let text = alone.map(|s| self.shared.texts.get(&s.sql));
        let index = lists.first().map_or(0, |l| l.len().saturating_sub(1));
        let place = match &text {
            Some(text) => text.place(index),
            None => Place { index, target: "?", sql: "commit" },
        };
        let error = self.shared.server.refusal(place, failure);
        Refusal { list: None, error, again: Again::No }
    }

    /// The rows of a query.
    pub(super) async fn query(
        self,
        text: &Arc<Text>,
        params: &[Value],
    ) -> Result<Vec<Row>, Failure> {
        if text.empty {
            return Ok(Vec::new());
        }
        let (stream, shape) = self.open(text, params).await?;
        Ok(answer(stream, &shape.columns).await?.rows)
    }

    async fn open(
        self,
        text: &Arc<Text>,
        params: &[Value],
    ) -> Result<(RowStream, Arc<Shape>), Failure> {
        let shape = self.shape(text, params, 0).await?;
        let sql = &text.translated.sql;
        let values = params.iter().map(Param::One);
        let prepared = if self.shared.pooler {
            None
        } else {
            let cache = &self.client.statement_cache;
            Some(cache.prepare_typed(self.client, sql, &shape.pins).await?)
        };
        match self.request(sql, &shape.types, prepared.as_ref(), values).await {
            Ok(stream) => Ok((stream, shape)),
            Err(e) => {
                let failure = Failure::Engine(e);
                if failure.is_stale() {
                    self.client.statement_cache.clear();
                    text.forget();
                }
                Err(failure)
            }
        }
    }

    /// Gives each row to `each`, until it breaks or nobody waits any more. When rows are left, the
    /// token to stop the server is returned.
    pub(super) async fn scan<T>(
        self,
        text: &Arc<Text>,
        params: &[Value],
        mut state: T,
        mut each: impl FnMut(&mut T, &RowRef<'_>) -> Result<ControlFlow<()>, DbError>,
        gone: &dyn Fn() -> bool,
    ) -> (Result<T, Failure>, Option<CancelToken>) {
        let (stream, shape) = match self.open(text, params).await {
            Ok(opened) => opened,
            Err(failure) => return (Err(failure), None),
        };
        let mut stream = std::pin::pin!(stream);
        let mut count = 0_u32;
        let outcome = loop {
            match stream.next().await {
                None => return (Ok(state), None),
                Some(Err(e)) => return (Err(e.into()), None),
                Some(Ok(row)) => match each(&mut state, &RowRef::server(&row, &shape.columns)) {
                    Ok(ControlFlow::Continue(())) => {}
                    Ok(ControlFlow::Break(())) => break Ok(state),
                    Err(error) => break Err(error.into()),
                },
            }
            count = count.wrapping_add(1);
            if count.is_multiple_of(4_096) && gone() {
                break Ok(state);
            }
        };
        (outcome, Some(self.client.cancel_token()))
    }
}

async fn answer(stream: RowStream, columns: &Arc<Columns>) -> Result<Answer, Failure> {
    let mut stream: Pin<&mut RowStream> = std::pin::pin!(stream);
    let mut rows = Vec::new();
    while let Some(row) = stream.next().await {
        rows.push(Row::of_server(&row?, columns)?);
    }
    Ok(Answer { changed: stream.rows_affected().unwrap_or(0), rows })
}

/// Adds an answer to what its list did.
fn take(applied: &mut [Applied], statement: &Ready<'_>, answer: Answer) {
    let list = &mut applied[statement.list];
    list.changed[statement.index] += answer.changed;
    list.rows[statement.index].extend(answer.rows);
}

/// Whether each statement changed what it must.
fn check(lists: &[&[Statement]], applied: &[Applied], shared: &Shared) -> Result<(), Refusal> {
    for (list, (statements, applied)) in lists.iter().zip(applied).enumerate() {
        for (index, (statement, got)) in statements.iter().zip(&applied.changed).enumerate() {
            if statement.expect.holds(*got) || shared.texts.get(&statement.sql).empty {
                continue;
            }
            let error = DbError::Unmet {
                index,
                target: statement.target().to_owned(),
                expected: statement.expect,
                got: *got,
            };
            return Err(Refusal { list: Some(list), error, again: Again::No });
        }
    }
    Ok(())
}

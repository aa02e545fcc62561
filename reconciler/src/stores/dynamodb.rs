//! The ledger in one DynamoDB table with string keys `pk` and `sk`, on demand. `#` parts the keys; it is escaped in
//! names, so two names never make one key.
//!
//! | item | pk | sk |
//! |---|---|---|
//! | a line's newest revision | `L#<workspace>#<day>#<provider>` | `h#<line>` |
//! | an older revision | the same | `r#<line>#<ten digits>` |
//! | a unit that has rows | `T#<workspace>#<month>` | `<day>#<provider>` |
//! | a run; a part of a large state | `R#<run>` | `M`; `S#<token>#<0 or 1>#<part>` |
//! | a number; a mark | `N#<name>`; `K#<name>` | `N`; `K` |
//!
//! A line's newest revision is its head: whoever appends changes that one item on the condition that nobody else has,
//! so the number, the content and the newest pull seen change together without a transaction (which costs double).
//! Before a head is written over, its revision is put aside under its own key, on the condition that there is none:
//! from then on it is never changed. A writer that dies in between has changed nothing; the next one puts aside the
//! same bytes. No item is ever deleted.
//!
//! Every put carries a name of its own. If the answer to it is lost and the SDK sends it again, the condition fails
//! because of ourselves, and the name tells.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::operation::put_item::builders::PutItemFluentBuilder;
use aws_sdk_dynamodb::operation::update_item::builders::UpdateItemFluentBuilder;
use aws_sdk_dynamodb::types::{AttributeValue, ReturnValue};
use tallygate_shared::time::Timestamp;

use super::aws::{Names, failed};
use super::names::{
    check_mark, check_month, check_name, check_page, check_unit, read_json, row_json,
};
use crate::ledger::{LineId, Revision, UnitId};
use crate::ports::{Appended, Lease, LedgerStore, RunId, RunState, StoreError};

mod runs;
#[cfg(test)]
mod tests;

const STORE: &str = "DynamoDB";
/// Turns at an item that others keep changing. Each turn that fails is somebody else's success.
const TURNS: u32 = 500;

type Item = HashMap<String, AttributeValue>;

/// A [`LedgerStore`] in a DynamoDB table.
#[derive(Clone, Debug)]
pub struct DynamoLedger {
    client: Client,
    table: String,
    names: Arc<Names>,
    /// Units that this process has entered into their months.
    entered: Arc<Mutex<HashSet<UnitId>>>,
}

/// Text.
fn s(text: impl Into<String>) -> AttributeValue {
    AttributeValue::S(text.into())
}

/// A number.
fn n(number: impl ToString) -> AttributeValue {
    AttributeValue::N(number.to_string())
}

/// A name as part of a key.
fn escape(name: &str) -> String {
    name.replace('%', "%25").replace('#', "%23")
}

/// The partition of a unit.
fn partition(unit: &UnitId) -> String {
    format!("L#{}#{}#{}", escape(&unit.workspace), unit.day, escape(&unit.provider))
}

fn older(digest: &str, rev: u32) -> String {
    format!("r#{digest}#{rev:010}")
}

fn damaged(key: &str, reason: String) -> StoreError {
    StoreError::Damaged { store: STORE, key: key.to_owned(), reason }
}

/// An attribute that every item of its kind has.
fn text<'a>(item: &'a Item, key: &str, field: &str) -> Result<&'a str, StoreError> {
    match item.get(field) {
        Some(AttributeValue::S(text) | AttributeValue::N(text)) => Ok(text),
        _ => Err(damaged(key, format!("`{field}` is missing"))),
    }
}

fn number<T: std::str::FromStr>(item: &Item, key: &str, field: &str) -> Result<T, StoreError> {
    let text = text(item, key, field)?;
    text.parse().map_err(|_| damaged(key, format!("`{field}` is `{text}`, not a number in range")))
}

/// A head as stored.
struct Head {
    rev: u32,
    seq: u64,
    seen: u64,
    hash: String,
    writer: String,
    body: String,
}

impl Head {
    fn read(item: &Item, key: &str) -> Result<Self, StoreError> {
        Ok(Self {
            rev: number(item, key, "rev_")?,
            seq: number(item, key, "seq_")?,
            seen: number(item, key, "seen_")?,
            hash: text(item, key, "hash_")?.to_owned(),
            writer: text(item, key, "writer_")?.to_owned(),
            body: text(item, key, "body_")?.to_owned(),
        })
    }
}

impl DynamoLedger {
    /// The ledger in `table`, through `client`.
    pub fn new(client: Client, table: &str) -> Self {
        Self {
            client,
            table: table.to_owned(),
            names: Arc::new(Names::new()),
            entered: Arc::default(),
        }
    }

    /// The item as it is after all writes that were answered.
    async fn get(&self, pk: &str, sk: &str) -> Result<Option<Item>, StoreError> {
        let got = self
            .client
            .get_item()
            .table_name(&self.table)
            .key("pk", s(pk))
            .key("sk", s(sk))
            .consistent_read(true)
            .send()
            .await;
        Ok(got.map_err(|error| failed(STORE, "dynamodb:GetItem", &error))?.item)
    }

    /// Items of a partition in the order of their sort keys, all pages of them.
    async fn query(&self, pk: &str, sk_prefix: Option<&str>) -> Result<Vec<Item>, StoreError> {
        let mut query = self
            .client
            .query()
            .table_name(&self.table)
            .consistent_read(true)
            .expression_attribute_values(":pk", s(pk));
        query = match sk_prefix {
            None => query.key_condition_expression("pk = :pk"),
            Some(prefix) => query
                .key_condition_expression("pk = :pk AND begins_with(sk, :sk)")
                .expression_attribute_values(":sk", s(prefix)),
        };
        // Ends with an error if a page leads to itself.
        let items = query.into_paginator().items().send().try_collect().await;
        items.map_err(|error| failed(STORE, "dynamodb:Query", &error))
    }

    fn put(&self, pk: &str, sk: &str) -> PutItemFluentBuilder {
        self.client.put_item().table_name(&self.table).item("pk", s(pk)).item("sk", s(sk))
    }

    fn update(&self, pk: &str, sk: &str) -> UpdateItemFluentBuilder {
        self.client.update_item().table_name(&self.table).key("pk", s(pk)).key("sk", s(sk))
    }

    /// Enters the unit into its month before it has its first row: a unit without rows does no harm, rows that nobody
    /// finds do.
    async fn enter(&self, unit: &UnitId) -> Result<(), StoreError> {
        let known =
            |unit| self.entered.lock().unwrap_or_else(PoisonError::into_inner).contains(unit);
        if known(unit) {
            return Ok(());
        }
        let month = unit.day.get(..7).unwrap_or_default();
        let month = format!("T#{}#{month}", escape(&unit.workspace));
        let put = self
            .put(&month, &format!("{}#{}", unit.day, escape(&unit.provider)))
            .item("day_", s(&unit.day))
            .item("provider_", s(&unit.provider));
        put.send().await.map_err(|error| failed(STORE, "dynamodb:PutItem", &error))?;
        let mut entered = self.entered.lock().unwrap_or_else(PoisonError::into_inner);
        entered.insert(unit.clone());
        Ok(())
    }

    /// Puts a head's revision aside. If the condition fails, it is there already.
    async fn put_aside(&self, pk: &str, digest: &str, head: &Head) -> Result<(), StoreError> {
        let put = self
            .put(pk, &older(digest, head.rev))
            .item("rev_", n(head.rev))
            .item("seq_", n(head.seq))
            .item("hash_", s(&head.hash))
            .item("writer_", s(&head.writer))
            .item("body_", s(&head.body))
            .condition_expression("attribute_not_exists(pk)");
        put_if(put).await?;
        Ok(())
    }

    /// Notes that a newer pull says the same. False when the head has changed meanwhile.
    async fn see(&self, pk: &str, sk: &str, rev: u32, seq: u64) -> Result<bool, StoreError> {
        let update = self
            .update(pk, sk)
            .update_expression("SET seen_ = :seq")
            .condition_expression("rev_ = :rev AND seen_ < :seq")
            .expression_attribute_values(":seq", n(seq))
            .expression_attribute_values(":rev", n(rev));
        Ok(update_if(update).await?.is_some())
    }

    /// The number under which a put of ours landed whose answer we did not get.
    async fn landed(
        &self,
        (pk, digest): (&str, &str),
        head: &Head,
        (writer, rev): (&str, u32),
    ) -> Result<bool, StoreError> {
        if head.rev <= rev {
            return Ok(head.rev == rev && head.writer == writer);
        }
        let sk = older(digest, rev);
        let Some(item) = self.get(pk, &sk).await? else { return Ok(false) };
        Ok(text(&item, &sk, "writer_")? == writer)
    }
}

/// Whether the put's condition held.
async fn put_if(put: PutItemFluentBuilder) -> Result<bool, StoreError> {
    match put.send().await {
        Ok(_) => Ok(true),
        Err(error)
            if error
                .as_service_error()
                .is_some_and(|e| e.is_conditional_check_failed_exception()) =>
        {
            Ok(false)
        }
        Err(error) => Err(failed(STORE, "dynamodb:PutItem", &error)),
    }
}

/// What the item is after the update, if its condition held.
async fn update_if(update: UpdateItemFluentBuilder) -> Result<Option<Item>, StoreError> {
    match update.return_values(ReturnValue::AllNew).send().await {
        Ok(updated) => Ok(Some(updated.attributes.unwrap_or_default())),
        Err(error)
            if error
                .as_service_error()
                .is_some_and(|e| e.is_conditional_check_failed_exception()) =>
        {
            Ok(None)
        }
        Err(error) => Err(failed(STORE, "dynamodb:UpdateItem", &error)),
    }
}

fn contended(key: &str) -> StoreError {
    StoreError::Unavailable {
        store: STORE,
        reason: format!("others changed `{key}` {TURNS} times in a row: try again"),
    }
}

#[async_trait]
impl LedgerStore for DynamoLedger {
    async fn append(&self, row: &Revision) -> Result<Appended, StoreError> {
        check_unit(STORE, &row.unit)?;
        let (digest, hash) = (row.line.digest(), row.content.hash());
        let (pk, sk, writer) = (partition(&row.unit), format!("h#{digest}"), self.names.next());
        let mut tried = None;
        for _ in 0..TURNS {
            let head = self.get(&pk, &sk).await?.map(|item| Head::read(&item, &sk)).transpose()?;
            if let (Some(rev), Some(head)) = (tried, &head)
                && self.landed((&pk, &digest), head, (&writer, rev)).await?
            {
                return Ok(Appended::Written(rev));
            }
            match &head {
                Some(head) if head.hash == hash => {
                    let seen =
                        head.seen >= row.seq || self.see(&pk, &sk, head.rev, row.seq).await?;
                    if seen {
                        return Ok(Appended::Unchanged);
                    }
                    continue;
                }
                Some(head) if head.seen > row.seq => return Ok(Appended::Stale(head.seen)),
                Some(_) | None => {}
            }
            let rev = head.as_ref().map_or(Some(1), |head| head.rev.checked_add(1));
            let rev = rev.ok_or_else(|| damaged(&sk, "no numbers are left".to_owned()))?;
            let mut put = self
                .put(&pk, &sk)
                .item("rev_", n(rev))
                .item("seq_", n(row.seq))
                .item("seen_", n(row.seq))
                .item("hash_", s(&hash))
                .item("writer_", s(&writer))
                .item("body_", s(row_json(STORE, row, rev)?));
            put = match &head {
                None => {
                    self.enter(&row.unit).await?;
                    put.condition_expression("attribute_not_exists(pk)")
                }
                Some(head) => {
                    self.put_aside(&pk, &digest, head).await?;
                    put.condition_expression("rev_ = :rev AND seen_ <= :seq")
                        .expression_attribute_values(":rev", n(head.rev))
                        .expression_attribute_values(":seq", n(row.seq))
                }
            };
            if put_if(put).await? {
                return Ok(Appended::Written(rev));
            }
            tried = Some(rev);
        }
        Err(contended(&sk))
    }

    async fn newest_page(
        &self,
        unit: &UnitId,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Revision>, StoreError> {
        check_page(STORE, unit, after, limit)?;
        // `!` is before all that a digest can go on with, and `~` behind it.
        let from = after.map_or_else(|| "h#".to_owned(), |after| format!("h#{after}!"));
        let query = self
            .client
            .query()
            .table_name(&self.table)
            .consistent_read(true)
            .key_condition_expression("pk = :pk AND sk BETWEEN :from AND :to")
            .expression_attribute_values(":pk", s(partition(unit)))
            .expression_attribute_values(":from", s(from))
            .expression_attribute_values(":to", s("h#~"))
            .limit(i32::try_from(limit).unwrap_or(i32::MAX));
        // An answer ends at 1 MB, with fewer items than were asked for.
        let mut items = query.into_paginator().items().send();
        let mut rows = Vec::new();
        while rows.len() < limit
            && let Some(item) = items.next().await
        {
            let item = item.map_err(|error| failed(STORE, "dynamodb:Query", &error))?;
            rows.push(revision(&item, &unit.to_string())?);
        }
        Ok(rows)
    }

    async fn history(&self, unit: &UnitId, line: &LineId) -> Result<Vec<Revision>, StoreError> {
        check_unit(STORE, unit)?;
        let (pk, digest) = (partition(unit), line.digest());
        // The head first: what was put aside before it was written is then there to be found.
        let sk = format!("h#{digest}");
        let Some(head) = self.get(&pk, &sk).await? else { return Ok(Vec::new()) };
        let head = revision(&head, &sk)?;
        let mut rows = Vec::new();
        for item in self.query(&pk, Some(&format!("r#{digest}#"))).await? {
            let row = revision(&item, &sk)?;
            // Put aside already, and still the head.
            if row.rev < head.rev {
                rows.push(row);
            }
        }
        rows.push(head);
        if let Some((rev, row)) = (1..).zip(&rows).find(|(rev, row)| row.rev != *rev) {
            return Err(damaged(&sk, format!("revision {rev} is missing before {}", row.rev)));
        }
        Ok(rows)
    }

    async fn units(&self, workspace: &str, month: &str) -> Result<Vec<UnitId>, StoreError> {
        check_month(STORE, workspace, month)?;
        let pk = format!("T#{}#{month}", escape(workspace));
        let mut units = Vec::new();
        for item in self.query(&pk, None).await? {
            units.push(UnitId {
                workspace: workspace.to_owned(),
                day: text(&item, &pk, "day_")?.to_owned(),
                provider: text(&item, &pk, "provider_")?.to_owned(),
            });
        }
        units.sort();
        Ok(units)
    }

    async fn next_number(&self, name: &str, at_least: u64) -> Result<u64, StoreError> {
        check_name(STORE, "number", name)?;
        let pk = format!("N#{}", escape(name));
        let least = self
            .update(&pk, "N")
            .update_expression("SET value_ = :least")
            .condition_expression("attribute_not_exists(value_) OR value_ < :least")
            .expression_attribute_values(":least", n(at_least));
        if at_least > 0
            && let Some(item) = update_if(least).await?
        {
            return number(&item, &pk, "value_");
        }
        // Sent twice when its answer is lost: then a number is skipped.
        let update = self
            .update(&pk, "N")
            .update_expression("ADD value_ :one")
            .expression_attribute_values(":one", n(1));
        number(&update_if(update).await?.unwrap_or_default(), &pk, "value_")
    }

    async fn lease(
        &self,
        run: &RunId,
        holder: &str,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<Lease, StoreError> {
        self.take_lease(run, holder, (now, until)).await
    }

    async fn checkpoint(
        &self,
        run: &RunId,
        token: u64,
        until: Timestamp,
        state: &RunState,
    ) -> Result<bool, StoreError> {
        self.note(run, token, state, &runs::Note::Checkpoint(until)).await
    }

    async fn finish(&self, run: &RunId, token: u64, state: &RunState) -> Result<bool, StoreError> {
        self.note(run, token, state, &runs::Note::Finish).await
    }

    async fn release(&self, run: &RunId, token: u64, state: &RunState) -> Result<bool, StoreError> {
        self.note(run, token, state, &runs::Note::Release).await
    }

    async fn reopen(&self, run: &RunId) -> Result<(), StoreError> {
        self.take_up(run).await
    }

    async fn mark(&self, name: &str) -> Result<Option<String>, StoreError> {
        check_name(STORE, "mark", name)?;
        let pk = format!("K#{}", escape(name));
        let item = self.get(&pk, "K").await?;
        item.map(|item| text(&item, &pk, "value_").map(str::to_owned)).transpose()
    }

    async fn set_mark(
        &self,
        name: &str,
        expected: Option<&str>,
        value: &str,
    ) -> Result<bool, StoreError> {
        check_mark(STORE, name, value)?;
        let (pk, writer) = (format!("K#{}", escape(name)), self.names.next());
        let mut put = self.put(&pk, "K").item("value_", s(value)).item("writer_", s(&writer));
        put = match expected {
            None => put.condition_expression("attribute_not_exists(pk)"),
            Some(expected) => put
                .condition_expression("value_ = :expected")
                .expression_attribute_values(":expected", s(expected)),
        };
        if put_if(put).await? {
            return Ok(true);
        }
        let item = self.get(&pk, "K").await?.unwrap_or_default();
        Ok(item.get("writer_") == Some(&s(writer)))
    }
}

fn revision(item: &Item, key: &str) -> Result<Revision, StoreError> {
    read_json(STORE, key, text(item, key, "body_")?)
}

//! Runs: the lease with its fencing token, and the state, which may be larger than an item.

use aws_sdk_dynamodb::operation::update_item::builders::UpdateItemFluentBuilder;
use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;
use tallygate_shared::time::Timestamp;

use super::{
    DynamoLedger, Item, STORE, TURNS, contended, damaged, escape, n, number, put_if, s, text,
    update_if,
};
use crate::ports::{Lease, RunId, RunState, StoreError};
use crate::stores::names::{MAX_STATE, check_name, read_json, state_json};
use crate::stores::sha256;

/// Bytes of a state in one item, below DynamoDB's 400 KB with everything else in it.
const PART: usize = 350 * 1024;

/// What is noted of a run.
pub(super) enum Note {
    Checkpoint(Timestamp),
    Finish,
    Release,
}

/// Where the parts of a large state are: not those that the run's item speaks of now, so that a reader of it finds
/// them whole.
struct Parts {
    token: u64,
    slot: u8,
    count: usize,
}

impl Parts {
    fn key(&self, part: usize) -> String {
        format!("S#{}#{}#{part:04}", self.token, self.slot)
    }
}

fn partition(run: &RunId) -> String {
    format!("R#{}", escape(&run.0))
}

/// A state is mostly hashes in hexadecimal: compressed it takes half the room, and mostly fits into the run's item.
fn pack(text: &str) -> Result<Vec<u8>, StoreError> {
    zstd::bulk::compress(text.as_bytes(), 3)
        .map_err(|error| StoreError::Failed { store: STORE, reason: error.to_string() })
}

fn is_true(item: &Item, field: &str) -> bool {
    item.get(field) == Some(&AttributeValue::Bool(true))
}

impl DynamoLedger {
    pub(super) async fn take_lease(
        &self,
        run: &RunId,
        holder: &str,
        (now, until): (Timestamp, Timestamp),
    ) -> Result<Lease, StoreError> {
        check_name(STORE, "run", &run.0)?;
        let pk = partition(run);
        for _ in 0..TURNS {
            let update = self
                .update(&pk, "M")
                .update_expression(
                    "SET holder_ = :holder, until_ = :until, done_ = :no ADD token_ :one",
                )
                .condition_expression(
                    "attribute_not_exists(pk) OR (done_ = :no AND \
                     (attribute_not_exists(holder_) OR holder_ = :holder OR until_ <= :now))",
                )
                .expression_attribute_values(":holder", s(holder))
                .expression_attribute_values(":until", n(until.ms()))
                .expression_attribute_values(":now", n(now.ms()))
                .expression_attribute_values(":no", AttributeValue::Bool(false))
                .expression_attribute_values(":one", n(1));
            if let Some(item) = update_if(update).await? {
                let token = number(&item, &pk, "token_")?;
                return Ok(Lease::Granted { token, state: self.state(&pk, &item).await? });
            }
            let Some(item) = self.get(&pk, "M").await? else { continue };
            if is_true(&item, "done_") {
                return Ok(Lease::Done(self.state(&pk, &item).await?.unwrap_or_default()));
            }
            let until = Timestamp::from_ms(number(&item, &pk, "until_")?);
            if item.contains_key("holder_") && until > now {
                return Ok(Lease::Held { until });
            }
        }
        Err(contended(&pk))
    }

    pub(super) async fn note(
        &self,
        run: &RunId,
        token: u64,
        state: &RunState,
        note: &Note,
    ) -> Result<bool, StoreError> {
        let text = state_json(STORE, run, state)?;
        let (pk, packed) = (partition(run), pack(&text)?);
        let (set, remove, condition) = match note {
            Note::Checkpoint(_) => ("until_ = :until", "", HELD.to_owned()),
            Note::Finish => (
                "until_ = :until, done_ = :yes",
                ", holder_",
                format!("({HELD} OR done_ = :yes AND sum_ = :sum)"),
            ),
            Note::Release => {
                ("until_ = :until", ", holder_", format!("({HELD} OR done_ = :no AND sum_ = :sum)"))
            }
        };
        let mut update = self
            .update(&pk, "M")
            .condition_expression(format!("token_ = :token AND {condition}"))
            .expression_attribute_values(":token", n(token))
            .expression_attribute_values(":no", AttributeValue::Bool(false))
            .expression_attribute_values(":sum", s(sha256(text.as_bytes())));
        let until = match note {
            Note::Checkpoint(until) => *until,
            Note::Finish | Note::Release => Timestamp::from_ms(0),
        };
        update = update.expression_attribute_values(":until", n(until.ms()));
        if matches!(note, Note::Finish) {
            update = update.expression_attribute_values(":yes", AttributeValue::Bool(true));
        }
        let update = if packed.len() <= PART {
            update
                .update_expression(format!(
                    "SET {set}, sum_ = :sum, state_ = :state REMOVE parts_, slot_, writer_{remove}"
                ))
                .expression_attribute_values(":state", AttributeValue::B(Blob::new(packed)))
        } else {
            let Some(parts) = self.put_parts(&pk, token, &packed).await? else { return Ok(false) };
            parts_of(update, &parts).update_expression(format!(
                "SET {set}, sum_ = :sum, parts_ = :parts, slot_ = :slot, writer_ = :token REMOVE state_{remove}"
            ))
        };
        Ok(update_if(update).await?.is_some())
    }

    /// Writes a large state beside the one that counts now. `None` when `token` is no longer the newest.
    async fn put_parts(
        &self,
        pk: &str,
        token: u64,
        packed: &[u8],
    ) -> Result<Option<Parts>, StoreError> {
        let item = self.get(pk, "M").await?.unwrap_or_default();
        if item.get("token_") != Some(&n(token)) {
            return Ok(None);
        }
        let ours = item.get("writer_") == Some(&n(token));
        let slot = u8::from(ours && item.get("slot_") == Some(&n(0)));
        let parts = Parts { token, slot, count: packed.len().div_ceil(PART) };
        for (part, bytes) in packed.chunks(PART).enumerate() {
            let put =
                self.put(pk, &parts.key(part)).item("part_", AttributeValue::B(Blob::new(bytes)));
            put_if(put).await?;
        }
        Ok(Some(parts))
    }

    /// What was noted of a run, whole or not at all.
    async fn state(&self, pk: &str, item: &Item) -> Result<Option<RunState>, StoreError> {
        let packed = if let Some(AttributeValue::B(state)) = item.get("state_") {
            state.clone().into_inner()
        } else if item.contains_key("parts_") {
            let parts = Parts {
                token: number(item, pk, "writer_")?,
                slot: number(item, pk, "slot_")?,
                count: number(item, pk, "parts_")?,
            };
            self.parts(pk, &parts).await?
        } else {
            return Ok(None);
        };
        let unpacked = zstd::bulk::decompress(&packed, MAX_STATE)
            .map_err(|error| damaged(pk, format!("the run's state: {error}")))?;
        if sha256(&unpacked) != text(item, pk, "sum_")? {
            return Err(damaged(pk, "the run's state is not what was noted".to_owned()));
        }
        let unpacked = String::from_utf8(unpacked)
            .map_err(|error| damaged(pk, format!("the run's state: {error}")))?;
        read_json(STORE, pk, &unpacked).map(Some)
    }

    async fn parts(&self, pk: &str, parts: &Parts) -> Result<Vec<u8>, StoreError> {
        let mut packed = Vec::new();
        for part in 0..parts.count {
            let key = parts.key(part);
            match self.get(pk, &key).await?.unwrap_or_default().remove("part_") {
                Some(AttributeValue::B(bytes)) => packed.extend(bytes.into_inner()),
                _ => return Err(damaged(pk, format!("part `{key}` of the run's state is gone"))),
            }
        }
        Ok(packed)
    }

    pub(super) async fn take_up(&self, run: &RunId) -> Result<(), StoreError> {
        check_name(STORE, "run", &run.0)?;
        let update = self
            .update(&partition(run), "M")
            .update_expression(
                "SET done_ = :no, until_ = :zero REMOVE holder_, state_, sum_, parts_, slot_, writer_ ADD token_ :one",
            )
            .condition_expression("done_ = :yes")
            .expression_attribute_values(":no", AttributeValue::Bool(false))
            .expression_attribute_values(":yes", AttributeValue::Bool(true))
            .expression_attribute_values(":zero", n(0))
            .expression_attribute_values(":one", n(1));
        // Not over, or opened by somebody already: either is what was asked for.
        update_if(update).await?;
        Ok(())
    }
}

/// Who has released or finished a run has no say in it any more.
const HELD: &str = "(done_ = :no AND attribute_exists(holder_))";

fn parts_of(update: UpdateItemFluentBuilder, parts: &Parts) -> UpdateItemFluentBuilder {
    update
        .expression_attribute_values(":parts", n(parts.count))
        .expression_attribute_values(":slot", n(parts.slot))
}

//! `GET /organization/usage/{kind}`: what was used, in counts that OpenAI states as totals with parts inside them. They
//! are taken apart into buckets that do not overlap.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use tallygate_shared::time::{Date, Timestamp};
use tallygate_shared::tokens::{Calls, Tokens};

use super::{Days, NAME, Paged, PullError, RawPage, Reader};
use crate::bill::{Bill, MeasuredUsage};
use crate::connectors::read::UnixSeconds;

/// A kind of use that OpenAI counts apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UsageKind {
    /// Chat completions and responses, in tokens.
    Completions,
    /// Embeddings, in tokens.
    Embeddings,
    /// Moderations, in tokens.
    Moderations,
    /// Images made.
    Images,
    /// Speech made, in characters.
    AudioSpeeches,
    /// Speech heard, in seconds.
    AudioTranscriptions,
    /// Web searches.
    WebSearchCalls,
    /// Searches of files.
    FileSearchCalls,
    /// Sessions of the code interpreter.
    CodeInterpreterSessions,
    /// Bytes in vector stores.
    VectorStores,
    /// Decisions. Their counts are not documented: the answers are kept, and a note says that they are not read.
    Decisions,
}

impl UsageKind {
    const ALL: [Self; 11] = [
        Self::Completions,
        Self::Embeddings,
        Self::Moderations,
        Self::Images,
        Self::AudioSpeeches,
        Self::AudioTranscriptions,
        Self::WebSearchCalls,
        Self::FileSearchCalls,
        Self::CodeInterpreterSessions,
        Self::VectorStores,
        Self::Decisions,
    ];

    /// Every kind whose counts are documented.
    pub fn documented() -> Vec<Self> {
        Self::ALL.into_iter().filter(|kind| *kind != Self::Decisions).collect()
    }

    /// What its pages are kept under, and where they are below `/organization`.
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Completions => "usage/completions",
            Self::Embeddings => "usage/embeddings",
            Self::Moderations => "usage/moderations",
            Self::Images => "usage/images",
            Self::AudioSpeeches => "usage/audio_speeches",
            Self::AudioTranscriptions => "usage/audio_transcriptions",
            Self::WebSearchCalls => "usage/web_search_calls",
            Self::FileSearchCalls => "usage/file_search_calls",
            Self::CodeInterpreterSessions => "usage/code_interpreter_sessions",
            Self::VectorStores => "usage/vector_stores",
            Self::Decisions => "usage/decisions",
        }
    }

    pub(super) fn of_label(label: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.label() == label)
    }

    pub(super) const fn groups(self) -> &'static [&'static str] {
        match self {
            Self::Completions => &["project_id", "api_key_id", "model", "batch", "service_tier"],
            Self::Embeddings
            | Self::Moderations
            | Self::Images
            | Self::AudioSpeeches
            | Self::AudioTranscriptions
            | Self::WebSearchCalls => &["project_id", "api_key_id", "model"],
            Self::FileSearchCalls | Self::CodeInterpreterSessions | Self::VectorStores => {
                &["project_id"]
            }
            Self::Decisions => &[],
        }
    }
}

#[derive(Deserialize)]
struct Page {
    data: Vec<Bucket>,
}

#[derive(Deserialize)]
struct Bucket {
    start_time: UnixSeconds,
    end_time: UnixSeconds,
    #[serde(alias = "result")]
    results: Vec<Counted>,
}

/// One row of any kind. Which counts must be there depends on the kind.
#[derive(Deserialize)]
struct Counted {
    project_id: Option<String>,
    api_key_id: Option<String>,
    model: Option<String>,
    batch: Option<bool>,
    service_tier: Option<String>,
    num_model_requests: Option<u64>,
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    input_cached_tokens: Option<u64>,
    input_cached_audio_tokens: Option<u64>,
    input_cached_image_tokens: Option<u64>,
    input_uncached_tokens: Option<u64>,
    input_cache_write_tokens: Option<u64>,
    input_cache_write_30m_tokens: Option<u64>,
    input_cache_write_12h_tokens: Option<u64>,
    input_audio_tokens: Option<u64>,
    input_image_tokens: Option<u64>,
    output_audio_tokens: Option<u64>,
    output_image_tokens: Option<u64>,
    images: Option<u64>,
    characters: Option<u64>,
    seconds: Option<u64>,
    usage_bytes: Option<u64>,
    num_sessions: Option<u64>,
    num_requests: Option<u64>,
}

/// Where an error is.
struct At<'a> {
    reader: &'a Reader<'a>,
    path: String,
}

impl At<'_> {
    fn must(&self, field: &str, value: Option<u64>) -> Result<u64, PullError> {
        value.ok_or_else(|| self.wrong(field, "is missing, and a count is never guessed"))
    }

    /// `total` without its `parts`. Parts that are more than the whole are an error.
    fn without(&self, field: &str, total: u64, parts: &[Option<u64>]) -> Result<u64, PullError> {
        let rest = parts.iter().try_fold(total, |rest, part| rest.checked_sub(part.unwrap_or(0)));
        rest.ok_or_else(|| {
            self.wrong(field, format!("is {total}, less than what is counted in it"))
        })
    }

    fn wrong(&self, field: &str, reason: impl Into<String>) -> PullError {
        self.reader.wrong(&format!("{}.{field}", self.path), reason)
    }
}

/// What reading the pages of usage remembers from page to page.
#[derive(Default)]
pub(super) struct Usage {
    seen: BTreeSet<(UsageKind, Timestamp)>,
    /// Counts that have no place in a measured usage, by what they are.
    elsewhere: BTreeMap<&'static str, u64>,
    unequal: u64,
    undocumented: u64,
}

impl Usage {
    /// Reads one page, and says whether more follow.
    pub(super) fn page(
        &mut self,
        reader: &Reader<'_>,
        kind: UsageKind,
        days: Days,
        account: &str,
        page: &RawPage,
        bill: &mut Bill,
    ) -> Result<bool, PullError> {
        let paged: Paged = reader.json(&page.body)?;
        let read: Page = reader.json(&page.body)?;
        for (index, bucket) in read.data.into_iter().enumerate() {
            let (start, end) = (bucket.start_time.0, bucket.end_time.0);
            let path = format!("data[{index}]");
            reader.within_a_day(days, start, end, &path)?;
            if !self.seen.insert((kind, start)) {
                let again = format!("has the bucket of {start} a second time");
                return Err(reader.wrong(&path, again));
            }
            for (row, counted) in bucket.results.into_iter().enumerate() {
                let at = At { reader, path: format!("{path}.results[{row}]") };
                let Some((requests, tokens, calls)) = self.counts(kind, &at, &counted)? else {
                    continue;
                };
                let model = counted.model.ok_or_else(|| {
                    at.wrong("model", "is missing, and the answer was asked for by model")
                })?;
                bill.usage.push(MeasuredUsage {
                    provider: NAME.into(),
                    account: account.into(),
                    project: counted.project_id,
                    start,
                    end,
                    model,
                    tier: match counted.batch {
                        Some(true) => Some("batch".into()),
                        Some(false) | None => counted.service_tier,
                    },
                    credential: counted.api_key_id,
                    requests,
                    tokens,
                    calls,
                });
            }
        }
        Ok(paged.next(reader)?.is_some())
    }

    /// Refuses counts of `kind` that lack one of the days: each has a bucket. Of decisions nothing is documented.
    pub(super) fn finish(&self, kind: UsageKind, days: Days) -> Result<(), PullError> {
        if kind == UsageKind::Decisions {
            return Ok(());
        }
        let has = |day: Date| self.seen.contains(&(kind, day.midnight()));
        Reader::new(NAME, kind.label()).each_day(days, has, "data")
    }

    /// Requests, tokens and calls of a row; nothing for kinds that are counted otherwise.
    fn counts(
        &mut self,
        kind: UsageKind,
        at: &At<'_>,
        row: &Counted,
    ) -> Result<Option<(Option<u64>, Tokens, Calls)>, PullError> {
        let (mut tokens, mut calls) = (Tokens::default(), Calls::default());
        let (elsewhere, count) = match kind {
            UsageKind::Completions => {
                tokens = self.completion_tokens(at, row)?;
                ("", 0)
            }
            UsageKind::Embeddings | UsageKind::Moderations => {
                tokens.input = at.must("input_tokens", row.input_tokens)?;
                ("", 0)
            }
            UsageKind::Images => ("images", at.must("images", row.images)?),
            UsageKind::AudioSpeeches => {
                ("characters of speech", at.must("characters", row.characters)?)
            }
            UsageKind::AudioTranscriptions => {
                calls.audio_second = at.must("seconds", row.seconds)?;
                ("", 0)
            }
            UsageKind::WebSearchCalls => {
                // The requests that searched are counted among the completions.
                calls.web_search = at.must("num_requests", row.num_requests)?;
                return Ok(Some((None, tokens, calls)));
            }
            UsageKind::FileSearchCalls => {
                let count = at.must("num_requests", row.num_requests)?;
                self.counted_elsewhere("file searches", count);
                return Ok(None);
            }
            UsageKind::CodeInterpreterSessions => {
                let count = at.must("num_sessions", row.num_sessions)?;
                self.counted_elsewhere("sessions of the code interpreter", count);
                return Ok(None);
            }
            UsageKind::VectorStores => {
                let count = at.must("usage_bytes", row.usage_bytes)?;
                self.counted_elsewhere("bytes in vector stores", count);
                return Ok(None);
            }
            UsageKind::Decisions => {
                self.undocumented = self.undocumented.saturating_add(1);
                return Ok(None);
            }
        };
        self.counted_elsewhere(elsewhere, count);
        let requests = at.must("num_model_requests", row.num_model_requests)?;
        Ok(Some((Some(requests), tokens, calls)))
    }

    fn counted_elsewhere(&mut self, what: &'static str, count: u64) {
        if count > 0 {
            let sum = self.elsewhere.entry(what).or_default();
            *sum = sum.saturating_add(count);
        }
    }

    fn completion_tokens(&mut self, at: &At<'_>, row: &Counted) -> Result<Tokens, PullError> {
        let input = at.must("input_tokens", row.input_tokens)?;
        let output = at.must("output_tokens", row.output_tokens)?;
        let (audio, image) = (row.input_audio_tokens, row.input_image_tokens);
        let (written, for_12h) = (row.input_cache_write_tokens, row.input_cache_write_12h_tokens);
        let uncached = at.without("input_tokens", input, &[row.input_cached_tokens, written])?;
        if row.input_uncached_tokens.is_some_and(|stated| stated != uncached) {
            self.unequal = self.unequal.saturating_add(1);
        }
        let cached = row.input_cached_tokens.unwrap_or(0);
        let cached_parts = [row.input_cached_audio_tokens, row.input_cached_image_tokens];
        // What is written without a stated lifetime lives for 30 minutes, OpenAI's default.
        let for_30m = at.without("input_cache_write_tokens", written.unwrap_or(0), &[for_12h])?;
        if row.input_cache_write_30m_tokens.is_some_and(|stated| stated > for_30m) {
            return Err(at.wrong("input_cache_write_30m_tokens", "is more than all cache writes"));
        }
        Ok(Tokens {
            input: at.without("input_tokens", uncached, &[audio, image])?,
            input_audio: audio.unwrap_or(0),
            input_image: image.unwrap_or(0),
            cache_read: at.without("input_cached_tokens", cached, &cached_parts)?,
            cache_read_audio: row.input_cached_audio_tokens.unwrap_or(0),
            cache_read_image: row.input_cached_image_tokens.unwrap_or(0),
            cache_write_30m: for_30m,
            cache_write_12h: for_12h.unwrap_or(0),
            output: at.without(
                "output_tokens",
                output,
                &[row.output_audio_tokens, row.output_image_tokens],
            )?,
            output_audio: row.output_audio_tokens.unwrap_or(0),
            output_image: row.output_image_tokens.unwrap_or(0),
            ..Tokens::default()
        })
    }

    /// What the measured usage does not say.
    pub(super) fn notes(&self) -> Vec<String> {
        let mut notes: Vec<_> = self
            .elsewhere
            .iter()
            .map(|(what, count)| {
                format!("{NAME}: {count} {what} are billed without tokens or calls")
            })
            .collect();
        if self.undocumented > 0 {
            notes.push(format!(
                "{NAME}: {} rows of decisions are kept and not read: their counts are not documented",
                self.undocumented
            ));
        }
        if self.unequal > 0 {
            notes.push(format!(
                "{NAME}: in {} rows `input_uncached_tokens` is not what the other counts leave; they were used",
                self.unequal
            ));
        }
        notes
    }
}

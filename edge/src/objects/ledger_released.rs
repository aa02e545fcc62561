//! What a Ledger keeps of the events that it lets go: what the outcomes of their requests and sessions cost.
//!
//! Of a request with an outcome its own row is kept, so that it counts once however many outcomes it has. Requests of a
//! session with an outcome that have none themselves are added up by model. What goes while nobody has said anything of
//! it is not kept: an outcome that comes later has no known cost, and that of a session of which a part is gone neither.
//! Requests of 2,000,000 outcomes are 2,000,000 x about 280 bytes with their index = 0.6 GB of an object's 10 GB.

use super::ledger_object::LedgerObject;
use super::sql::{Sql, SqlError};

/// The step of the schema that brings this. `id` is empty in sums of a session. A session that had lost events before is
/// one of which fewer requests are here than were measured.
pub(super) const RELEASED: &str = "
    CREATE TABLE released (
        id TEXT NOT NULL, key TEXT NOT NULL, session TEXT NOT NULL, provider TEXT NOT NULL, model TEXT NOT NULL,
        requests INTEGER NOT NULL, charged_nanos INTEGER NOT NULL, PRIMARY KEY (id, key, session, provider, model)
    ) WITHOUT ROWID, STRICT;
    CREATE INDEX released_by_session ON released (session, key);
    CREATE TABLE cut_sessions (
        session TEXT NOT NULL, key TEXT NOT NULL, PRIMARY KEY (session, key)
    ) WITHOUT ROWID, STRICT;
    INSERT INTO cut_sessions SELECT session, key FROM conversations AS c WHERE requests >
        (SELECT COUNT(*) FROM events AS e WHERE e.session = c.session AND e.key = c.key);
";

/// By the kind of an outcome's subject: the column of events that names it.
const SUBJECTS: [(&str, &str); 2] = [("request", "id"), ("session", "session")];
/// Where events are, and how many requests a row of it stands for.
const PLACES: [(&str, &str); 2] = [("events", "1"), ("released", "e.requests")];
/// Whether a part of an outcome's session is gone.
pub(super) const CUT: &str =
    "EXISTS (SELECT 1 FROM cut_sessions AS c WHERE c.session = o.subject AND c.key = o.key)";

impl<S: Sql> LedgerObject<S> {
    /// Deletes the events that a condition picks, and keeps what outcomes need of them.
    pub(super) fn let_go(&self, which: &str, params: &[Option<&str>]) -> Result<(), SqlError> {
        let [of_request, of_session] = SUBJECTS.map(|(kind, column)| {
            format!(
                "EXISTS (SELECT 1 FROM outcomes AS o WHERE o.subject = events.{column} AND o.key = events.key
                    AND o.kind = '{kind}')"
            )
        });
        let keep = format!(
            "INSERT INTO released (id, key, session, provider, model, requests, charged_nanos)
             SELECT CASE WHEN {of_request} THEN id ELSE '' END, key, COALESCE(session, ''), COALESCE(provider, ''),
                COALESCE(model, ''), COUNT(*), SUM(charged_nanos)
             FROM events WHERE {which} AND ({of_request} OR {of_session}) GROUP BY 1, 2, 3, 4, 5
             ON CONFLICT DO UPDATE SET requests = released.requests + excluded.requests,
                charged_nanos = released.charged_nanos + excluded.charged_nanos"
        );
        self.exec(&keep, params)?;
        let cut = format!(
            "INSERT OR IGNORE INTO cut_sessions SELECT session, key FROM events
             WHERE {which} AND session IS NOT NULL AND NOT ({of_request} OR {of_session})"
        );
        self.exec(&cut, params)?;
        self.exec(&format!("DELETE FROM events WHERE {which}"), params).map(|_| ())
    }
}

/// What is known of a row behind an outcome, as expressions: one request, or one sum of a session's.
pub(super) struct RowBehind {
    /// How many requests it stands for.
    pub(super) requests: &'static str,
    /// What tells it from others: with the key, an id, or the session and the model of a sum.
    pub(super) id: &'static str,
    /// The session of a sum.
    pub(super) session: &'static str,
    /// The provider; empty for none.
    pub(super) provider: &'static str,
    /// The model; empty for none.
    pub(super) model: &'static str,
    /// What it was charged, in nanodollars.
    pub(super) charged: &'static str,
}

/// Selects of the rows behind the outcomes of a table `o`, each by what is picked of it. It is one row by its `id`, `o.key`,
/// `session`, `provider` and `model`, in whichever select it comes.
pub(super) fn rows_behind(picked: impl Fn(RowBehind) -> String) -> Vec<String> {
    let of_request = picked(RowBehind {
        requests: "1",
        id: "o.subject",
        session: "''",
        provider: "o.provider",
        model: "o.model",
        charged: "o.charged_nanos",
    });
    let mut selects = vec![format!(
        "SELECT {of_request} FROM o WHERE o.kind = 'request' AND o.provider IS NOT NULL"
    )];
    for (place, requests) in PLACES {
        let of_session = picked(RowBehind {
            requests,
            id: "e.id",
            session: "IIF(e.id = '', e.session, '')",
            provider: "COALESCE(e.provider, '')",
            model: "COALESCE(e.model, '')",
            charged: "e.charged_nanos",
        });
        // CROSS keeps the order of the join: outcomes lead to their events, of which there may be millions.
        selects.push(format!(
            "SELECT {of_session} FROM o CROSS JOIN {place} AS e ON e.session = o.subject AND e.key = o.key
             WHERE o.kind = 'session' AND NOT {CUT}"
        ));
    }
    selects
}

/// Whether what an outcome `o` cost is not known.
pub(super) fn cost_unknown() -> String {
    let [by_events, by_released] = PLACES.map(|(place, _)| {
        format!("EXISTS (SELECT 1 FROM {place} AS e WHERE e.session = o.subject AND e.key = o.key)")
    });
    format!(
        "CASE o.kind WHEN 'request' THEN o.provider IS NULL ELSE {CUT} OR NOT ({by_events} OR {by_released}) END"
    )
}

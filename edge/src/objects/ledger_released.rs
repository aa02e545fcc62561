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
pub(super) const SUBJECTS: [(&str, &str); 2] = [("request", "id"), ("session", "session")];
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

/// Selects of the rows `e` behind the outcomes of a table `o`. `picked` is what to select, given how many requests a row
/// stands for; it is one request or one sum by its `id, key, session, provider, model`.
pub(super) fn rows_behind(picked: impl Fn(&str) -> String) -> Vec<String> {
    let mut selects = Vec::new();
    for (place, requests) in PLACES {
        for (kind, column) in SUBJECTS {
            // CROSS keeps the order of the join: outcomes lead to their events, of which there may be millions.
            selects.push(format!(
                "SELECT {} FROM o CROSS JOIN {place} AS e ON e.{column} = o.subject AND e.key = o.key
                 WHERE o.kind = '{kind}' AND NOT (o.kind = 'session' AND {CUT})",
                picked(requests)
            ));
        }
    }
    selects
}

/// Whether what an outcome `o` cost is not known.
pub(super) fn cost_unknown() -> String {
    let [by_request, by_session] = SUBJECTS.map(|(_, column)| {
        PLACES
            .map(|(place, _)| {
                format!(
                    "EXISTS (SELECT 1 FROM {place} AS e WHERE e.{column} = o.subject AND e.key = o.key)"
                )
            })
            .join(" OR ")
    });
    format!(
        "CASE o.kind WHEN 'request' THEN NOT ({by_request}) ELSE {CUT} OR NOT ({by_session}) END"
    )
}

//! What is sent about an alert: the body of a Standard Webhooks message, and of a Slack message.

use serde_json::{Value, json};

use super::alert::{Alert, Figure, Notice, Severity};
use crate::time::Timestamp;

/// The most fields of one section of a Slack message.
const SLACK_FIELDS_MAX: usize = 10;

/// The body of a Standard Webhooks message: `type`, `timestamp` and `data`.
pub fn webhook_body(
    workspace: &str,
    notice: Notice,
    alert: &Alert,
    dashboard: Option<&str>,
    now: Timestamp,
) -> String {
    let data = json!({
        "workspace": workspace,
        "alert": {
            "id": alert.id,
            "dedupe_key": alert.dedupe_key,
            "kind": alert.kind,
            "severity": alert.severity,
            "state": alert.status.name(),
            "owner": alert.owner,
            "title": alert.title,
            "evidence": alert.evidence,
            "link": link(alert, dashboard),
            "first_seen": alert.first_seen.to_string(),
            "last_seen": alert.last_seen.to_string(),
            "count": alert.count,
        },
    });
    json!({"type": notice.event_type(), "timestamp": now.to_string(), "data": data}).to_string()
}

/// The body of a Standard Webhooks message that tests a receiver.
pub fn webhook_test_body(workspace: &str, receiver: &str, now: Timestamp) -> String {
    let data = json!({"workspace": workspace, "receiver": receiver});
    json!({"type": "alert.test", "timestamp": now.to_string(), "data": data}).to_string()
}

/// The body for Slack's incoming webhooks: `text` for notifications, `blocks` for the channel.
pub fn slack_body(
    workspace: &str,
    notice: Notice,
    alert: &Alert,
    dashboard: Option<&str>,
) -> String {
    let heading = match notice {
        Notice::Resolved => "Resolved",
        Notice::Opened | Notice::Escalated | Notice::Reopened => match alert.severity {
            Severity::Info => "Info",
            Severity::Warning => "Warning",
            Severity::Critical => "Critical",
        },
    };
    let text = format!("[{heading}] {}", escape(&alert.title));
    let field = |(name, figure): (&String, &Figure)| {
        let figure = match figure {
            Figure::Number(number) => number.to_string(),
            Figure::Text(text) => escape(text),
        };
        json!({"type": "mrkdwn", "text": format!("*{}*\n{figure}", escape(name))})
    };
    let fields: Vec<Value> = alert.evidence.iter().take(SLACK_FIELDS_MAX).map(field).collect();
    let mut blocks = vec![json!({
        "type": "section",
        "text": {"type": "mrkdwn", "text": format!("*[{heading}]* {}", escape(&alert.title))},
    })];
    if !fields.is_empty() {
        blocks.push(json!({"type": "section", "fields": fields}));
    }
    let link = link(alert, dashboard);
    let link = match dashboard {
        Some(_) => format!("<{}|Open>", escape(&link)),
        None => escape(&link),
    };
    let owner = alert.owner.as_deref().map_or("no owner".to_owned(), escape);
    let note = format!("{} | {owner} | seen {} times | {link}", escape(workspace), alert.count);
    blocks.push(json!({"type": "context", "elements": [{"type": "mrkdwn", "text": note}]}));
    json!({"text": text, "blocks": blocks}).to_string()
}

/// The body that tests a Slack receiver.
pub fn slack_test_body(workspace: &str, receiver: &str) -> String {
    let text = format!("Tallygate: a test of receiver {receiver} of workspace {workspace}");
    let section = json!({"type": "section", "text": {"type": "mrkdwn", "text": escape(&text)}});
    json!({"text": escape(&text), "blocks": [section]}).to_string()
}

fn link(alert: &Alert, dashboard: Option<&str>) -> String {
    let root = dashboard.unwrap_or_default().trim_end_matches('/');
    format!("{root}{}", alert.link)
}

/// Slack's three control characters: an owner's name must not call a channel together.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alerts::alert::{AlertKind, Raised};

    fn alert() -> Alert {
        let raised = Raised::new(AlertKind::NewModel, "a/b", Severity::Info, "Model <!here> & co")
            .owner("ann")
            .with("model", "a/b")
            .with("uses", 3);
        Alert::open(raised, Timestamp::from_ms(0))
    }

    #[test]
    fn the_webhook_body_is_unchanged() {
        let body = webhook_body("ws_a", Notice::Opened, &alert(), None, Timestamp::from_ms(1));
        let value: Value = serde_json::from_str(&body).unwrap();
        let expected = json!({
            "type": "alert.opened", "timestamp": "1970-01-01T00:00:00.001Z",
            "data": {"workspace": "ws_a", "alert": {
                "id": alert().id, "dedupe_key": "new_model:a/b", "kind": "new_model",
                "severity": "info", "state": "open", "owner": "ann",
                "title": "Model <!here> & co", "evidence": {"model": "a/b", "uses": 3},
                "link": "/alerts", "first_seen": "1970-01-01T00:00:00.000Z",
                "last_seen": "1970-01-01T00:00:00.000Z", "count": 1,
            }},
        });
        assert_eq!(value, expected);
    }

    #[test]
    fn slack_gets_text_and_blocks_and_no_commands() {
        let dashboard = Some("https://gate.example/dashboard/");
        let body = slack_body("ws_a", Notice::Opened, &alert(), dashboard);
        assert!(!body.contains("<!here>"));
        let value: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(value["text"], "[Info] Model &lt;!here&gt; &amp; co");
        assert_eq!(value["blocks"][1]["fields"][1]["text"], "*uses*\n3");
        let note = value["blocks"][2]["elements"][0]["text"].as_str().unwrap();
        assert!(note.contains("<https://gate.example/dashboard/alerts|Open>"), "{note}");
        let resolved = slack_body("ws_a", Notice::Resolved, &alert(), None);
        assert!(resolved.contains("[Resolved]"));
    }

    #[test]
    fn the_largest_message_is_below_20_kb() {
        let mut raised =
            Raised::new(AlertKind::Pace, &"\u{1}".repeat(999), Severity::Info, &"é".repeat(999))
                .owner(&"\u{1}".repeat(999));
        for number in 0..12 {
            raised = raised.with(&format!("figure_{number}"), "\u{1}".repeat(999).as_str());
        }
        let alert = Alert::open(raised, Timestamp::from_ms(0));
        let body = webhook_body("ws_a", Notice::Opened, &alert, None, Timestamp::from_ms(1));
        assert!(body.len() < 20_000, "{}", body.len());
        assert!(slack_body("ws_a", Notice::Opened, &alert, None).len() < 20_000);
    }
}

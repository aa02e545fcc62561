//! FOCUS exports on their page, and as downloads.

use serde_json::json;

use super::{Browser, token_of};
use crate::objects::sql::Sql;
use crate::objects::test_shell::{NOW_MS, Shell};

/// An export of November that is committed: a file in the bucket, and one that is too large for it.
fn commit_export(shell: &Shell) {
    let name = "focus_1_4-cost_and_usage-2026-11-02.csv";
    let folder = "focus/ws_acme/2026-11/00000000000000000003";
    let object = (format!("{folder}/{name}"), b"a,b\n1,2\n".to_vec());
    shell.bucket.replace(Some([object].into()));
    let file = |name: &str, bytes: u64, uploaded: bool| {
        json!({ "file": name, "focus_version": "1.4", "table": "cost_and_usage", "format": "csv", "day": "2026-11-02",
                "rows": 1, "bytes": bytes, "sha256": "0".repeat(64), "place": "s3://books/large", "uploaded": uploaded })
    };
    let files = [file(name, 8, true), file("large.csv", 91_000_000, false)];
    let export = json!({ "month": "2026-11", "number": 3, "made_at": NOW_MS, "files": files });
    let insert = "INSERT INTO focus_exports (month, number, body) VALUES ('2026-11', 3, ?)";
    shell.workspace_sql("ws_acme").exec(insert, &[Some(&export.to_string())]).unwrap();
}

#[test]
fn exports_are_downloaded_from_their_page_by_those_who_see_it() {
    let (shell, token) = Shell::with_workspace();
    let (finance, _) = token_of(&shell, &token, "finance");
    let mut browser = Browser::signed_in(&shell, &finance);
    let page = browser.get("/dashboard/reconciliation");
    assert!(page.body.contains("No export of these months is committed"), "{}", page.body);
    commit_export(&shell);
    let page = browser.get("/dashboard/reconciliation");
    let file = "/dashboard/focus-exports/2026-11/focus_1_4-cost_and_usage-2026-11-02.csv";
    let link = format!("<a href=\"{file}\">");
    for part in [link.as_str(), "s3://books/large", "91.0 MB", "Cost and Usage"] {
        assert!(page.body.contains(part), "{part} in {}", page.body);
    }
    let table = browser.get("/dashboard/reconciliation?format=csv&table=focus-exports").body;
    assert!(
        table.starts_with("month,day,focus_version,table,format,rows,bytes,file\r\n"),
        "{table}"
    );
    assert!(
        !browser
            .get("/dashboard/reconciliation?until=2026-10-31&from=2026-10-01")
            .body
            .contains(file)
    );
    let download = browser.get(file);
    assert_eq!((download.status, download.body.as_str()), (200, "a,b\n1,2\n"));
    assert_eq!(download.header("content-type"), "text/csv; charset=utf-8");
    // What is not there is a page that says so.
    for (name, word) in
        [("large.csv", "keeps it at s3://books/large"), ("none.csv", "no such file")]
    {
        let page = browser.get(&format!("/dashboard/focus-exports/2026-11/{name}"));
        assert_eq!((page.status, page.body.contains(word)), (404, true), "{}", page.body);
    }
    let mut nobody = Browser::new(&shell);
    assert_eq!(nobody.get(file).status, 303);
    let body = json!({ "name": "dev", "role": "developer", "owner": "ann" });
    let (_, issued) = shell.call("POST", "/workspaces/ws_acme/tokens", &token, &body);
    let mut developer = Browser::signed_in(&shell, issued["token"].as_str().unwrap());
    assert_eq!(developer.get(file).status, 403);
}

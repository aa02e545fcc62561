//! The closing line, and answers that no export can be made of.

use super::*;

fn export() -> Export {
    Export::new(ExportQuery { from_ms: 0, to_ms: 1_000, after: None })
}

#[test]
fn pages_add_up_to_the_whole() {
    let mut export = export();
    export.page(r#"{"lines":"a\n","after":"req_1~k"}"#);
    assert_eq!(export.proceed(), Next::Send { lines: "a\n".to_owned() });
    let asked = r#"{"from_ms":0,"to_ms":1000,"after":"req_1~k"}"#.to_owned();
    assert_eq!(export.proceed(), Next::Ask { payload: asked });
    export.page(r#"{"lines":"b\n","after":null}"#);
    assert_eq!(export.proceed(), Next::Send { lines: "b\n".to_owned() });
    let Next::End { line } = export.proceed() else { panic!("no end") };
    let end: ExportEnd = serde_json::from_str(&line).unwrap();
    assert_eq!(end.lines, 2);
    // printf 'a\nb\n' | sha256sum
    assert_eq!(end.sha256, "911169ddaaf146aff539f58c26c489af3b892dff0fe283c1c264c65ae5aa59a2");
    assert!(line.ends_with('\n'));
}

#[test]
fn an_answer_that_cannot_be_read_ends_without_a_closing_line() {
    for (answer, status) in [("{", 500), (r#"{"pruned":true}"#, 410), (r#"{"what":1}"#, 500)] {
        let mut export = export();
        export.page(answer);
        for _ in 0..2 {
            assert!(
                matches!(export.proceed(), Next::Fail { status: s, .. } if s == status),
                "{answer}"
            );
        }
    }
}

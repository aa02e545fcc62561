//! The checks of [`LedgerStore`]: rows. Runs, numbers and marks are in `runs`.

use std::collections::{BTreeMap, BTreeSet};

use futures::future::join_all;
use tallygate_shared::money::Usd;

use super::{Broken, Report, checks, hold, same};
use crate::bill::{ChargeKind, Meter, Quantity};
use crate::ledger::{Content, LineId, Revision, UnitId};
use crate::ports::{Appended, LedgerStore, StoreError};

pub(super) type Checked = Result<(), Broken>;

/// The store through two handles, as two processes have it.
pub(super) struct Bench<'a> {
    pub(super) one: &'a dyn LedgerStore,
    pub(super) other: &'a dyn LedgerStore,
    scope: &'a str,
    /// This check alone.
    pub(super) only: Option<&'a str>,
}

impl Bench<'_> {
    pub(super) fn store(&self) -> &dyn LedgerStore {
        self.one
    }

    pub(super) fn any(&self, number: usize) -> &dyn LedgerStore {
        if number.is_multiple_of(2) { self.one } else { self.other }
    }

    pub(super) fn name(&self, name: &str) -> String {
        format!("{}/{name}", self.scope)
    }

    fn unit(&self, name: &str) -> UnitId {
        UnitId { workspace: self.name(name), day: "2026-11-20".into(), provider: "openai".into() }
    }
}

/// Puts a store to the proof, through two handles on it. `scope` begins every name that is written, at most 100
/// bytes; nothing was ever written with it.
pub async fn ledger(one: &dyn LedgerStore, other: &dyn LedgerStore, scope: &str) -> Report {
    check(&Bench { one, other, scope, only: None }).await
}

/// One check alone.
#[cfg(test)]
pub(super) async fn one_check(store: &dyn LedgerStore, name: &str) -> Report {
    check(&Bench { one: store, other: store, scope: "scope", only: Some(name) }).await
}

async fn check(bench: &Bench<'_>) -> Report {
    let mut report = checks!(
        bench,
        [
            revisions_are_numbered_without_gaps,
            the_same_again_writes_nothing,
            an_older_pull_never_overrules_a_newer_one,
            an_unchanged_newer_pull_protects_too,
            a_newer_pull_wins_its_race,
            of_racing_writers_with_one_content_one_writes,
            racing_writers_with_other_contents_all_land,
            racing_pulls_end_with_the_newest,
            newest_is_one_row_for_each_line,
            pages_come_in_the_order_of_digests,
            many_large_rows_are_all_read,
            rows_are_kept_to_the_letter,
            what_is_not_there_is_empty,
            units_are_those_of_the_month,
            units_that_read_alike_are_two,
            nonsense_is_refused,
        ]
    );
    report.checks.extend(super::runs::runs(bench).await.checks);
    report
}

fn line(name: &str) -> LineId {
    LineId {
        account: "org-1".into(),
        model: "gpt-5".into(),
        meter: Meter::Output,
        tier: "standard".into(),
        kind: ChargeKind::Usage,
        owner: BTreeMap::from([("team".to_owned(), name.to_owned())]),
    }
}

fn row(unit: &UnitId, name: &str, cents: i128, seq: u64) -> Revision {
    Revision {
        unit: unit.clone(),
        line: line(name),
        rev: 0,
        seq,
        cause: "bill_changed".into(),
        run: format!("night#{seq}"),
        booked_in: None,
        content: Content {
            estimated: Usd::from_pico(1),
            metered: Quantity::whole(7),
            requests: 3,
            billed: Some(Usd::from_pico(cents * 10_000_000_000)),
            billed_quantity: None,
            list: Some(Usd::from_pico(cents * 11_000_000_000)),
            quantity_variance: Usd::from_pico(-1),
            price_variance: Usd::from_pico(2),
            provisional: false,
            price_version: "v1".into(),
            source: "raw/v1/x".into(),
            method: "proportional".into(),
        },
    }
}

/// What a line's revisions say, oldest first; numbered from 1 without gaps, or the check fails.
async fn said(bench: &Bench<'_>, unit: &UnitId, name: &str) -> Result<Vec<Content>, Broken> {
    let rows = bench.store().history(unit, &line(name)).await?;
    let numbers: Vec<u32> = rows.iter().map(|row| row.rev).collect();
    same!(numbers, (1..).take(rows.len()).collect::<Vec<u32>>(), "the numbers of revisions");
    Ok(rows.into_iter().map(|row| row.content).collect())
}

fn contents(unit: &UnitId, cents: &[i128]) -> Vec<Content> {
    cents.iter().map(|cents| row(unit, "", *cents, 0).content).collect()
}

async fn revisions_are_numbered_without_gaps(bench: &Bench<'_>) -> Checked {
    let unit = bench.unit("numbers");
    // Past 9, where texts are ordered otherwise than numbers; a content may come back.
    let cents: Vec<i128> = (0..12).map(|number| number % 5).collect();
    for (number, cents) in (1..).zip(&cents) {
        let given = Revision { rev: 99, ..row(&unit, "a", *cents, number) };
        let appended = bench.any(number as usize).append(&given).await?;
        same!(appended, Appended::Written(number as u32), "append {number}");
    }
    same!(said(bench, &unit, "a").await?, contents(&unit, &cents), "the history");
    let newest = bench.store().newest(&unit).await?;
    same!(newest, [Revision { rev: 12, ..row(&unit, "a", 1, 12) }], "the newest");
    Ok(())
}

async fn the_same_again_writes_nothing(bench: &Bench<'_>) -> Checked {
    let unit = bench.unit("same");
    same!(bench.store().append(&row(&unit, "a", 1, 5)).await?, Appended::Written(1), "first");
    for seq in [5, 4, 6] {
        let again = Revision {
            run: "another".into(),
            cause: "usage_changed".into(),
            ..row(&unit, "a", 1, seq)
        };
        same!(bench.store().append(&again).await?, Appended::Unchanged, "again, by pull {seq}");
    }
    same!(bench.store().newest(&unit).await?, [Revision { rev: 1, ..row(&unit, "a", 1, 5) }], "it");
    Ok(())
}

async fn an_older_pull_never_overrules_a_newer_one(bench: &Bench<'_>) -> Checked {
    let unit = bench.unit("stale");
    bench.store().append(&row(&unit, "a", 1, 8)).await?;
    for seq in [0, 7] {
        let appended = bench.store().append(&row(&unit, "a", 2, seq)).await?;
        same!(appended, Appended::Stale(8), "pull {seq} after pull 8");
    }
    let appended = bench.store().append(&row(&unit, "a", 2, 8)).await?;
    same!(appended, Appended::Written(2), "the same pull, read otherwise");
    let appended = bench.store().append(&row(&unit, "b", 2, 7)).await?;
    same!(appended, Appended::Written(1), "another line, which pull 8 did not write");
    let appended = bench.store().append(&row(&unit, "a", 3, u64::MAX)).await?;
    same!(appended, Appended::Written(3), "the largest number");
    let appended = bench.store().append(&row(&unit, "a", 4, u64::MAX - 1)).await?;
    same!(appended, Appended::Stale(u64::MAX), "the one before");
    same!(said(bench, &unit, "a").await?, contents(&unit, &[1, 2, 3]), "the history");
    Ok(())
}

async fn an_unchanged_newer_pull_protects_too(bench: &Bench<'_>) -> Checked {
    let unit = bench.unit("seen");
    bench.store().append(&row(&unit, "a", 1, 5)).await?;
    same!(bench.store().append(&row(&unit, "a", 1, 9)).await?, Appended::Unchanged, "pull 9");
    same!(bench.store().append(&row(&unit, "a", 1, 7)).await?, Appended::Unchanged, "pull 7");
    let older = bench.other.append(&row(&unit, "a", 2, 8)).await?;
    same!(older, Appended::Stale(9), "pull 8 with other content, after pull 9 said the same");
    same!(
        bench.store().append(&row(&unit, "a", 2, 9)).await?,
        Appended::Written(2),
        "pull 9 again"
    );
    same!(said(bench, &unit, "a").await?, contents(&unit, &[1, 2]), "the history");
    Ok(())
}

async fn a_newer_pull_wins_its_race(bench: &Bench<'_>) -> Checked {
    for round in 0..8 {
        let unit = bench.unit(&format!("seen-{round}"));
        bench.store().append(&row(&unit, "a", 1, 1)).await?;
        let (same_content, other) = (row(&unit, "a", 1, 9), row(&unit, "a", 2, 5));
        let racers = [&same_content, &other, &same_content, &other].into_iter().enumerate();
        for appended in join_all(racers.map(|(number, row)| bench.any(number).append(row))).await {
            appended?;
        }
        let newest = bench.store().newest(&unit).await?;
        let billed: Vec<_> = newest.iter().map(|row| row.content.billed).collect();
        same!(billed, [same_content.content.billed], "what pull 9 said, in round {round}");
    }
    Ok(())
}

async fn of_racing_writers_with_one_content_one_writes(bench: &Bench<'_>) -> Checked {
    let unit = bench.unit("race-same");
    for rev in 1..=3 {
        let row = row(&unit, "a", i128::from(rev), 1);
        let appends = (0..16).map(|number| bench.any(number).append(&row));
        let mut written = Vec::new();
        for appended in join_all(appends).await {
            match appended? {
                Appended::Written(rev) => written.push(rev),
                Appended::Unchanged => {}
                stale => hold!(false, "a racer with the same content: got {stale:?}"),
            }
        }
        same!(written, [rev], "what the racers wrote");
    }
    same!(said(bench, &unit, "a").await?, contents(&unit, &[1, 2, 3]), "the history");
    Ok(())
}

async fn racing_writers_with_other_contents_all_land(bench: &Bench<'_>) -> Checked {
    let unit = bench.unit("race-other");
    let rows: Vec<Revision> = (0..12).map(|cents| row(&unit, "a", cents, 4)).collect();
    let appends = rows.iter().enumerate().map(|(number, row)| bench.any(number).append(row));
    let mut written = BTreeMap::new();
    for (row, appended) in rows.iter().zip(join_all(appends).await) {
        match appended? {
            Appended::Written(rev) => written.insert(rev, row.content.clone()),
            other => return Err(Broken(format!("a racer with other content: got {other:?}"))),
        };
    }
    same!(
        written.keys().copied().collect::<Vec<_>>(),
        (1..=12).collect::<Vec<_>>(),
        "numbers given"
    );
    let told: Vec<Content> = written.into_values().collect();
    same!(said(bench, &unit, "a").await?, told, "the history");
    Ok(())
}

async fn racing_pulls_end_with_the_newest(bench: &Bench<'_>) -> Checked {
    let unit = bench.unit("race-pulls");
    let rows: Vec<Revision> = (1..=12).map(|seq| row(&unit, "a", i128::from(seq), seq)).collect();
    let appends = rows.iter().enumerate().map(|(number, row)| bench.any(number).append(row));
    let mut written = BTreeMap::new();
    for (row, appended) in rows.iter().zip(join_all(appends).await) {
        match appended? {
            Appended::Written(rev) => {
                written.insert(rev, row.content.clone());
            }
            Appended::Stale(newer) => hold!(newer > row.seq, "{} is stale after {newer}", row.seq),
            Appended::Unchanged => hold!(false, "pull {} is new, not unchanged", row.seq),
        }
    }
    let told: Vec<Content> = written.into_values().collect();
    same!(said(bench, &unit, "a").await?, told, "the history");
    let seqs: Vec<u64> =
        bench.store().history(&unit, &line("a")).await?.iter().map(|row| row.seq).collect();
    hold!(
        seqs.is_sorted() && seqs.last() == Some(&12),
        "the pulls in order, to the 12th: {seqs:?}"
    );
    Ok(())
}

async fn newest_is_one_row_for_each_line(bench: &Bench<'_>) -> Checked {
    let (unit, neighbour) = (bench.unit("newest"), bench.unit("newest2"));
    let names: Vec<String> = (0..30).rev().map(|number| format!("team-{number:02}")).collect();
    for (number, name) in names.iter().enumerate() {
        bench.store().append(&row(&unit, name, 1, 1)).await?;
        if number.is_multiple_of(2) {
            bench.store().append(&row(&unit, name, 2, 2)).await?;
        }
    }
    bench.store().append(&row(&neighbour, "x", 1, 1)).await?;
    let newest = bench.store().newest(&unit).await?;
    let mut want: Vec<Revision> = (names.iter().enumerate())
        .map(|(number, name)| match number % 2 {
            0 => Revision { rev: 2, ..row(&unit, name, 2, 2) },
            _ => Revision { rev: 1, ..row(&unit, name, 1, 1) },
        })
        .collect();
    want.sort_by(|left, right| left.line.cmp(&right.line));
    same!(newest, want, "the newest in the order of their lines");
    Ok(())
}

async fn pages_come_in_the_order_of_digests(bench: &Bench<'_>) -> Checked {
    let (unit, neighbour) = (bench.unit("paged"), bench.unit("paged2"));
    let mut want = Vec::new();
    for number in 0..12 {
        let name = format!("team-{number:02}");
        bench.any(number).append(&row(&unit, &name, 1, 1)).await?;
        bench.any(number).append(&row(&neighbour, &name, 1, 1)).await?;
        let newest = if number.is_multiple_of(3) {
            bench.store().append(&row(&unit, &name, 2, 2)).await?;
            Revision { rev: 2, ..row(&unit, &name, 2, 2) }
        } else {
            Revision { rev: 1, ..row(&unit, &name, 1, 1) }
        };
        want.push(newest);
    }
    want.sort_by_key(|row| row.line.digest());
    for limit in [1, 5, 12, 1000] {
        let (mut found, mut after) = (Vec::new(), None);
        for _ in 0..=want.len() {
            let page = bench.other.newest_page(&unit, after.as_deref(), limit).await?;
            hold!(page.len() <= limit, "a page of {limit} has {} rows", page.len());
            let last = page.len() < limit;
            after = page.last().map(|row| row.line.digest());
            found.extend(page);
            if last {
                break;
            }
            hold!(found.len() <= want.len(), "pages of {limit} show more rows than there are");
        }
        same!(found, want, "all pages of {limit}");
    }
    let behind = bench.store().newest_page(&unit, Some(&"f".repeat(32)), 5).await?;
    same!(behind, [], "behind the last digest");
    for (after, limit) in [(None, 0), (None, 1001), (Some("team-01"), 5)] {
        let page = bench.store().newest_page(&unit, after, limit).await;
        hold!(page.is_err(), "a page of {limit} rows after {after:?} is refused");
    }
    Ok(())
}

async fn many_large_rows_are_all_read(bench: &Bench<'_>) -> Checked {
    let unit = bench.unit("pages");
    // 3 MB: more than one answer of a database holds.
    let large = |number: i128| {
        let mut row = row(&unit, "a", number, 1);
        row.content.method = format!("{number}").repeat(100_000);
        row
    };
    for number in 0..15 {
        bench.store().append(&large(number)).await?;
    }
    let told = said(bench, &unit, "a").await?;
    hold!(told == (0..15).map(|number| large(number).content).collect::<Vec<_>>(), "the history");
    let lines: Vec<Revision> = (0..15)
        .map(|number| Revision { line: line(&format!("{number:02}")), rev: 1, ..large(number) })
        .collect();
    for row in &lines {
        bench.store().append(row).await?;
    }
    let newest = bench.store().newest(&unit).await?;
    hold!(newest.get(..15) == Some(&lines[..]), "the newest of 15 lines");
    same!(newest.len(), 16, "lines");
    Ok(())
}

async fn rows_are_kept_to_the_letter(bench: &Bench<'_>) -> Checked {
    let unit = UnitId { provider: "größe \u{0}\"'\\ #%23 😀".into(), ..bench.unit("letter") };
    let mut given = row(&unit, "数据 \u{1}\n", 1, 1);
    given.booked_in = Some("2026-12".into());
    // 38 digits, the most that can be read.
    given.content.billed = Some(Usd::from_pico(10_i128.pow(38) - 1));
    given.content.estimated = Usd::from_pico(1 - 10_i128.pow(38));
    given.content.metered = Quantity::parse("0.000000000001").unwrap_or_default();
    given.content.requests = u64::MAX;
    given.content.price_version = String::new();
    same!(bench.store().append(&given).await?, Appended::Written(1), "odd but possible");
    same!(bench.store().newest(&unit).await?, [Revision { rev: 1, ..given.clone() }], "newest");
    let estimate = Revision {
        content: Content { billed: None, ..given.content.clone() },
        booked_in: None,
        ..given.clone()
    };
    bench.store().append(&estimate).await?;
    let want = [Revision { rev: 1, ..given.clone() }, Revision { rev: 2, ..estimate }];
    same!(bench.store().history(&unit, &given.line).await?, want, "history");
    let mut largest = given;
    largest.content.method = "m".repeat(250 * 1024);
    same!(bench.store().append(&largest).await?, Appended::Written(3), "a very large row");
    let newest = bench.store().newest(&unit).await?;
    hold!(newest == [Revision { rev: 3, ..largest }], "the very large row");
    Ok(())
}

async fn what_is_not_there_is_empty(bench: &Bench<'_>) -> Checked {
    let unit = bench.unit("nothing");
    same!(bench.store().newest(&unit).await?, [], "newest");
    same!(bench.store().history(&unit, &line("a")).await?, [], "history");
    same!(bench.store().units(&unit.workspace, "2026-11").await?, [], "units");
    bench.store().append(&row(&unit, "a", 1, 1)).await?;
    same!(bench.store().history(&unit, &line("b")).await?, [], "history of another line");
    Ok(())
}

async fn units_are_those_of_the_month(bench: &Bench<'_>) -> Checked {
    let workspace = bench.name("units");
    let mut want = Vec::new();
    for day in ["2026-11-30", "2026-11-01", "2026-10-31", "2026-12-01", "2025-11-01"] {
        for provider in ["openai", "a#b", "anthropic"] {
            let unit =
                UnitId { workspace: workspace.clone(), day: day.into(), provider: provider.into() };
            for name in ["a", "b"] {
                bench.store().append(&row(&unit, name, 1, 1)).await?;
                bench.other.append(&row(&unit, name, 2, 1)).await?;
            }
            want.push(unit);
        }
    }
    let longer = UnitId { workspace: format!("{workspace}2"), ..bench.unit("") };
    bench.store().append(&row(&longer, "a", 1, 1)).await?;
    want.retain(|unit| unit.day.starts_with("2026-11"));
    want.sort();
    same!(bench.store().units(&workspace, "2026-11").await?, want, "units");
    same!(bench.store().units(&workspace, "2026-09").await?, [], "a month without rows");
    Ok(())
}

async fn units_that_read_alike_are_two(bench: &Bench<'_>) -> Checked {
    let day = "2026-11-20";
    let alike = [
        (bench.name("w"), format!("p#{day}#q")),
        (format!("{}#{day}#p", bench.name("w")), "q".to_owned()),
        (bench.name("w#"), "q".to_owned()),
        (bench.name("w%23"), "q".to_owned()),
        (bench.name("w%2523"), "q".to_owned()),
        (bench.name("w"), "Q".to_owned()),
        (bench.name("w"), "q".to_owned()),
    ];
    let units: Vec<UnitId> = (alike.into_iter())
        .map(|(workspace, provider)| UnitId { workspace, day: day.into(), provider })
        .collect();
    for (cents, unit) in (0..).zip(&units) {
        same!(
            bench.store().append(&row(unit, "a", cents, 1)).await?,
            Appended::Written(1),
            "{unit}"
        );
    }
    for (cents, unit) in (0..).zip(&units) {
        let want = [Revision { rev: 1, ..row(unit, "a", cents, 1) }];
        same!(bench.store().newest(unit).await?, want, "{unit}");
        let listed: BTreeSet<_> =
            bench.store().units(&unit.workspace, "2026-11").await?.into_iter().collect();
        let want = units.iter().filter(|other| other.workspace == unit.workspace).cloned();
        same!(listed, want.collect::<BTreeSet<_>>(), "the units of {}", unit.workspace);
    }
    Ok(())
}

async fn nonsense_is_refused(bench: &Bench<'_>) -> Checked {
    let unit = bench.unit("nonsense");
    for day in ["2026-11-31", "2026-11", "yesterday", ""] {
        let unit = UnitId { day: day.into(), ..unit.clone() };
        let appended = bench.store().append(&row(&unit, "a", 1, 1)).await;
        hold!(matches!(appended, Err(StoreError::Failed { .. })), "day `{day}`: got {appended:?}");
    }
    let long = UnitId { provider: "p".repeat(201), ..unit.clone() };
    let appended = bench.store().append(&row(&long, "a", 1, 1)).await;
    hold!(appended.is_err(), "a provider of 201 bytes: got {appended:?}");
    let mut large = row(&unit, "a", 1, 1);
    large.content.method = "m".repeat(256 * 1024);
    let appended = bench.store().append(&large).await;
    hold!(appended.is_err(), "a row of more than 256 KiB: got {appended:?}");
    let mut unreadable = row(&unit, "a", 1, 1);
    unreadable.content.estimated = Usd::from_pico(i128::MAX);
    let appended = bench.store().append(&unreadable).await;
    hold!(appended.is_err(), "an amount that cannot be read back: got {appended:?}");
    same!(bench.store().newest(&unit).await?, [], "rows after refusals");
    let units = bench.store().units(&unit.workspace, "2026-11-20").await;
    hold!(units.is_err(), "a day for a month: got {units:?}");
    Ok(())
}

//! The checks of [`LedgerStore`](crate::ports::LedgerStore): runs, numbers and marks.

use std::collections::BTreeSet;

use futures::future::join_all;
use tallygate_shared::time::Timestamp;

use super::ledger::{Bench, Checked};
use super::{Broken, Report, checks, hold, same};
use crate::ports::{Lease, RunId, RunState};
use crate::stores::sha256;

const NOW: Timestamp = Timestamp::from_ms(1_795_000_000_000);

fn at(seconds: i64) -> Timestamp {
    NOW.plus_ms(seconds * 1000)
}

pub(super) async fn runs(bench: &Bench<'_>) -> Report {
    checks!(
        bench,
        [
            numbers_only_grow,
            a_lease_has_one_holder,
            a_lease_that_ran_out_is_taken_over,
            a_holder_asks_again,
            of_racing_holders_one_is_granted,
            a_run_that_is_over_stays_so_until_reopened,
            a_released_run_is_gone_on_with,
            large_states_are_kept,
            marks_are_compared_and_set,
            of_racing_marks_one_is_set,
            marks_keep_to_their_limits,
            names_that_read_alike_are_two,
        ]
    )
}

fn state(text: &str) -> RunState {
    RunState {
        done: [(format!("ws#2026-11-20#{text}"), sha256(text.as_bytes()))].into(),
        report: Some(format!("{{\"at\":\"{text}\"}}")),
    }
}

/// The token of a lease that must be granted, and the state it came with.
async fn granted(
    bench: &Bench<'_>,
    run: &RunId,
    holder: &str,
    now: i64,
) -> Result<(u64, Option<RunState>), Broken> {
    match bench.store().lease(run, holder, at(now), at(now + 60)).await? {
        Lease::Granted { token, state } => Ok((token, state)),
        other => Err(Broken(format!("a free lease for {holder}: got {other:?}"))),
    }
}

async fn numbers_only_grow(bench: &Bench<'_>) -> Checked {
    let name = bench.name("pull");
    let tasks = (0..16).map(|number| {
        let name = &name;
        async move {
            let mut given = Vec::new();
            for _ in 0..5 {
                given.push(bench.any(number).next_number(name, 0).await?);
            }
            Ok::<_, Broken>(given)
        }
    });
    let mut all = BTreeSet::new();
    for given in join_all(tasks).await {
        let given = given?;
        hold!(given.is_sorted(), "one task got {given:?}");
        all.extend(given);
    }
    // A store may skip a number, but gives none twice.
    same!(all.len(), 80, "different numbers");
    hold!(all.first().is_some_and(|first| *first >= 1), "the first is {:?}", all.first());
    let next = bench.store().next_number(&name, 0).await?;
    hold!(all.last().is_some_and(|last| *last < next), "{next} after {:?}", all.last());
    let other = bench.store().next_number(&bench.name("other pull"), 0).await?;
    hold!((1..10).contains(&other), "another name begins with {other}");
    let least = 1_795_000_000_000;
    let asked = (0..16).map(|number| bench.any(number).next_number(&name, least));
    let given: BTreeSet<u64> = join_all(asked).await.into_iter().collect::<Result<_, _>>()?;
    same!(given.len(), 16, "different numbers that are not below another");
    hold!(given.first() >= Some(&least), "{:?} is below {least}", given.first());
    let next = bench.store().next_number(&name, 7).await?;
    hold!(given.last().is_some_and(|last| *last < next), "{next} after {:?}", given.last());
    Ok(())
}

async fn a_lease_has_one_holder(bench: &Bench<'_>) -> Checked {
    let run = RunId(bench.name("night#held"));
    let (token, found) = granted(bench, &run, "a", 0).await?;
    same!(found, None, "the state of a new run");
    hold!(token >= 1, "the first token is {token}");
    for now in [0, 59] {
        let lease = bench.other.lease(&run, "b", at(now), at(now + 60)).await?;
        same!(lease, Lease::Held { until: at(60) }, "b after {now} s");
    }
    hold!(bench.store().checkpoint(&run, token, at(120), &state("1")).await?, "a's checkpoint");
    let lease = bench.other.lease(&run, "b", at(119), at(200)).await?;
    same!(lease, Lease::Held { until: at(120) }, "b after a's checkpoint");
    for wrong in [0, token + 1, u64::MAX >> 1] {
        hold!(!bench.store().checkpoint(&run, wrong, at(900), &state("x")).await?, "{wrong} wrote");
        hold!(!bench.store().finish(&run, wrong, &state("x")).await?, "{wrong} finished");
        hold!(!bench.store().release(&run, wrong, &state("x")).await?, "{wrong} released");
    }
    let nobody = RunId(bench.name("night#nobody"));
    hold!(!bench.store().checkpoint(&nobody, 1, at(900), &state("x")).await?, "no run, no note");
    hold!(!bench.store().finish(&nobody, 1, &state("x")).await?, "no run, no end");
    Ok(())
}

async fn a_lease_that_ran_out_is_taken_over(bench: &Bench<'_>) -> Checked {
    let run = RunId(bench.name("night#expired"));
    let (zombie, _) = granted(bench, &run, "a", 0).await?;
    hold!(bench.store().checkpoint(&run, zombie, at(60), &state("1")).await?, "a's checkpoint");
    // The very moment it ends, it is free.
    let (token, found) = granted(bench, &run, "b", 60).await?;
    same!(found, Some(state("1")), "what a had noted");
    hold!(token > zombie, "b's token {token} after a's {zombie}");
    hold!(!bench.other.checkpoint(&run, zombie, at(999), &state("z")).await?, "the zombie noted");
    hold!(!bench.other.finish(&run, zombie, &state("z")).await?, "the zombie finished");
    hold!(!bench.other.release(&run, zombie, &state("z")).await?, "the zombie released");
    hold!(bench.store().checkpoint(&run, token, at(180), &state("2")).await?, "b's checkpoint");
    let (third, found) = granted(bench, &run, "c", 180).await?;
    same!(found, Some(state("2")), "what b had noted, and not the zombie");
    hold!(third > token, "c's token {third} after b's {token}");
    // Late, but nobody else has come: still the newest.
    hold!(bench.store().checkpoint(&run, third, at(300), &state("3")).await?, "c, late");
    Ok(())
}

async fn a_holder_asks_again(bench: &Bench<'_>) -> Checked {
    let run = RunId(bench.name("night#again"));
    let (first, _) = granted(bench, &run, "a", 0).await?;
    hold!(bench.store().checkpoint(&run, first, at(60), &state("1")).await?, "the first");
    let (second, found) = granted(bench, &run, "a", 10).await?;
    same!(found, Some(state("1")), "its own notes");
    hold!(second > first, "a new token: {second} after {first}");
    hold!(!bench.store().checkpoint(&run, first, at(99), &state("x")).await?, "the old token");
    hold!(bench.store().checkpoint(&run, second, at(99), &state("2")).await?, "the new token");
    Ok(())
}

async fn of_racing_holders_one_is_granted(bench: &Bench<'_>) -> Checked {
    let run = RunId(bench.name("night#race"));
    let mut tokens = BTreeSet::new();
    for round in 0..3 {
        let holders: Vec<String> = (0..16).map(|number| format!("h{round}-{number}")).collect();
        let now = round * 60;
        let leases = holders
            .iter()
            .enumerate()
            .map(|(number, holder)| bench.any(number).lease(&run, holder, at(now), at(now + 60)));
        let mut winners = 0;
        for lease in join_all(leases).await {
            match lease? {
                Lease::Granted { token, .. } => {
                    winners += 1;
                    hold!(tokens.insert(token), "token {token} was given before");
                }
                other => same!(other, Lease::Held { until: at(now + 60) }, "a loser"),
            }
        }
        same!(winners, 1, "holders in round {round}");
    }
    Ok(())
}

async fn a_run_that_is_over_stays_so_until_reopened(bench: &Bench<'_>) -> Checked {
    let run = RunId(bench.name("night#done"));
    bench.store().reopen(&run).await?;
    let (token, found) = granted(bench, &run, "a", 0).await?;
    same!(found, None, "reopening what never was makes nothing");
    bench.store().reopen(&run).await?;
    hold!(
        bench.store().checkpoint(&run, token, at(60), &state("1")).await?,
        "reopening a run that goes on does nothing"
    );
    hold!(bench.store().finish(&run, token, &state("end")).await?, "finish");
    hold!(
        bench.store().finish(&run, token, &state("end")).await?,
        "finish, when the answer was lost"
    );
    for (holder, now) in [("a", 1), ("b", 1), ("b", 9999)] {
        let lease = bench.any(1).lease(&run, holder, at(now), at(now + 60)).await?;
        same!(lease, Lease::Done(state("end")), "{holder} after {now} s");
    }
    hold!(
        !bench.store().checkpoint(&run, token, at(60), &state("x")).await?,
        "a note after the end"
    );
    hold!(!bench.store().release(&run, token, &state("x")).await?, "a release after the end");
    hold!(!bench.store().finish(&run, token, &state("x")).await?, "another end");
    bench.store().reopen(&run).await?;
    hold!(!bench.store().checkpoint(&run, token, at(60), &state("x")).await?, "the old token");
    let (again, found) = granted(bench, &run, "b", 2).await?;
    hold!(again > token, "the token after reopening: {again} after {token}");
    hold!(found.is_none_or(|found| found.done.is_empty()), "no units are done");
    hold!(!bench.store().finish(&run, token, &state("end")).await?, "the old end");
    Ok(())
}

async fn a_released_run_is_gone_on_with(bench: &Bench<'_>) -> Checked {
    let run = RunId(bench.name("night#released"));
    let (first, _) = granted(bench, &run, "a", 0).await?;
    hold!(bench.store().release(&run, first, &state("half")).await?, "release");
    hold!(
        bench.store().release(&run, first, &state("half")).await?,
        "release, when the answer was lost"
    );
    hold!(!bench.store().checkpoint(&run, first, at(900), &state("x")).await?, "a note afterwards");
    let (second, found) = granted(bench, &run, "b", 1).await?;
    same!(found, Some(state("half")), "what was noted");
    hold!(second > first, "b's token {second} after a's {first}");
    hold!(!bench.store().release(&run, first, &state("half")).await?, "a frees what is b's");
    let lease = bench.store().lease(&run, "a", at(2), at(62)).await?;
    same!(lease, Lease::Held { until: at(61) }, "a, while b holds it");
    Ok(())
}

async fn large_states_are_kept(bench: &Bench<'_>) -> Checked {
    let run = RunId(bench.name("backfill#large"));
    let large = |units: usize| RunState {
        done: (0..units)
            .map(|number| {
                (format!("workspace-{number}#2026-11-20#openai"), sha256(&number.to_be_bytes()))
            })
            .collect(),
        report: Some("r".repeat(1000)),
    };
    let (token, _) = granted(bench, &run, "a", 0).await?;
    // As a run goes on: larger each time, past what one item of DynamoDB holds.
    for units in [100, 3_000, 12_000, 12_001] {
        let noted = bench.store().checkpoint(&run, token, at(60), &large(units)).await?;
        hold!(noted, "{units} units");
    }
    let (token, found) = granted(bench, &run, "b", 60).await?;
    hold!(found == Some(large(12_001)), "a state of 12,001 units is not what was noted");
    hold!(bench.store().finish(&run, token, &large(12_002)).await?, "its end");
    let lease = bench.store().lease(&run, "c", at(61), at(99)).await?;
    hold!(lease == Lease::Done(large(12_002)), "its end is not what was noted");
    let too_large = RunState { report: Some("r".repeat(8 * 1024 * 1024)), ..RunState::default() };
    let other = RunId(bench.name("backfill#too large"));
    let (token, _) = granted(bench, &other, "a", 0).await?;
    let noted = bench.store().checkpoint(&other, token, at(60), &too_large).await;
    hold!(noted.is_err(), "a state of more than 8 MiB: got {noted:?}");
    Ok(())
}

async fn marks_are_compared_and_set(bench: &Bench<'_>) -> Checked {
    let (store, name) = (bench.store(), bench.name("cursor"));
    same!(store.mark(&name).await?, None, "no mark");
    hold!(!store.set_mark(&name, Some(""), "x").await?, "`` is not nothing");
    hold!(store.set_mark(&name, None, "").await?, "the first, an empty one");
    same!(store.mark(&name).await?, Some(String::new()), "an empty mark");
    hold!(!store.set_mark(&name, None, "x").await?, "there is one");
    hold!(store.set_mark(&name, Some(""), "one").await?, "from `` to one");
    hold!(!bench.other.set_mark(&name, Some("two"), "x").await?, "it is not two");
    hold!(bench.other.set_mark(&name, Some("one"), "größe \u{0} #😀").await?, "from one");
    hold!(store.set_mark(&name, Some("größe \u{0} #😀"), "one").await?, "and back");
    hold!(store.set_mark(&name, Some("one"), "one").await?, "to the same");
    same!(store.mark(&name).await?.as_deref(), Some("one"), "the mark");
    Ok(())
}

async fn of_racing_marks_one_is_set(bench: &Bench<'_>) -> Checked {
    let name = bench.name("race");
    let mut expected: Option<String> = None;
    for round in 0..3 {
        let values: Vec<String> = (0..16).map(|number| format!("{round}-{number}")).collect();
        let sets = values
            .iter()
            .enumerate()
            .map(|(number, value)| bench.any(number).set_mark(&name, expected.as_deref(), value));
        let mut winners = Vec::new();
        for (value, set) in values.iter().zip(join_all(sets).await) {
            if set? {
                winners.push(value.clone());
            }
        }
        same!(winners.len(), 1, "racers that set the mark in round {round}");
        expected = winners.pop();
        same!(bench.store().mark(&name).await?, expected, "the winner's mark");
    }
    Ok(())
}

async fn marks_keep_to_their_limits(bench: &Bench<'_>) -> Checked {
    let (store, name) = (bench.store(), bench.name("limit"));
    let largest = "ä".repeat(32 * 1024);
    hold!(store.set_mark(&name, None, &largest).await?, "64 KiB");
    hold!(store.set_mark(&name, Some(&largest), &largest).await?, "64 KiB compared");
    hold!(store.mark(&name).await? == Some(largest.clone()), "64 KiB read back");
    let set = store.set_mark(&name, Some(&largest), &format!("{largest}a")).await;
    hold!(set.is_err(), "more than 64 KiB: got {set:?}");
    hold!(store.mark("").await.is_err(), "a mark without a name");
    let name = "n".repeat(601);
    hold!(store.mark(&name).await.is_err(), "a mark's name of 601 bytes");
    hold!(store.next_number(&name, 0).await.is_err(), "a number's name of 601 bytes");
    hold!(store.lease(&RunId(name), "a", at(0), at(1)).await.is_err(), "a run's name of 601 bytes");
    let longest = format!("{}{}", bench.name("#"), "#".repeat(500));
    hold!(store.set_mark(&longest, None, "x").await?, "a long name with signs to escape");
    Ok(())
}

async fn names_that_read_alike_are_two(bench: &Bench<'_>) -> Checked {
    let names = ["n#x", "n%23x", "n%2523x", "N#x", "n#x ", "n", "n#", "é", "e\u{301}"];
    for name in names {
        let named = bench.name(&format!("alike {name}"));
        hold!(bench.store().set_mark(&named, None, name).await?, "the mark `{name}`");
        let (_, found) = granted(bench, &RunId(named), "a", 0).await?;
        same!(found, None, "the run `{name}`");
    }
    for name in names {
        let mark = bench.store().mark(&bench.name(&format!("alike {name}"))).await?;
        same!(mark.as_deref(), Some(name), "the mark `{name}`");
    }
    Ok(())
}

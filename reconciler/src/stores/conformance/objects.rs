//! The checks of [`ObjectStore`].

use std::collections::BTreeSet;
use std::io::Write;

use bytes::Bytes;
use futures::future::join_all;
use tallygate_shared::time::Date;

use super::{Broken, Report, checks, hold, same};
use crate::connectors::RawPage;
use crate::ports::{ObjectStore, Put, StoreError};
use crate::stores::raw;

type Checked = Result<(), Broken>;

/// The store through two handles, as two processes have it.
struct Bench<'a> {
    one: &'a dyn ObjectStore,
    other: &'a dyn ObjectStore,
    scope: &'a str,
    /// This check alone.
    only: Option<&'a str>,
}

impl Bench<'_> {
    fn store(&self) -> &dyn ObjectStore {
        self.one
    }

    fn any(&self, number: usize) -> &dyn ObjectStore {
        if number.is_multiple_of(2) { self.one } else { self.other }
    }

    fn key(&self, name: &str) -> String {
        format!("{}/{name}", self.scope)
    }

    async fn put(&self, name: &str, body: &[u8]) -> Result<Put, StoreError> {
        self.store().put_once(&self.key(name), Bytes::copy_from_slice(body)).await
    }

    /// The keys of a prefix within the scope, as they come, without the scope.
    async fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<String>, StoreError> {
        let after = after.map(|after| self.key(after));
        let found = self.store().list(&self.key(prefix), after.as_deref(), limit).await?;
        let bare = |key: String| key.strip_prefix(&self.key("")).unwrap_or(&key).to_owned();
        Ok(found.into_iter().map(|object| bare(object.key)).collect())
    }
}

/// Puts a store to the proof, through two handles on it. `scope` is a key prefix that nothing was ever written under.
pub async fn objects(one: &dyn ObjectStore, other: &dyn ObjectStore, scope: &str) -> Report {
    check(&Bench { one, other, scope, only: None }).await
}

/// One check alone.
#[cfg(test)]
pub(super) async fn one_check(store: &dyn ObjectStore, name: &str) -> Report {
    check(&Bench { one: store, other: store, scope: "scope", only: Some(name) }).await
}

async fn check(bench: &Bench<'_>) -> Report {
    checks!(
        bench,
        [
            what_is_put_is_got,
            other_content_changes_nothing,
            of_racing_writers_one_writes,
            of_racing_contents_one_stays,
            names_keep_to_themselves,
            listings_are_in_byte_order,
            listings_go_on_after_a_key,
            prefixes_are_no_directories,
            files_are_put_as_bytes_are,
            large_files_are_written_once,
            racing_large_files_are_written_once,
            nonsense_is_refused,
            raw_answers_are_kept_and_verified,
        ]
    )
}

async fn what_is_put_is_got(bench: &Bench<'_>) -> Checked {
    same!(bench.store().get(&bench.key("none")).await?, None, "an object that is not there");
    for (name, body) in [("empty", &b""[..]), ("bytes", &[0, 255, 13, 10, 128]), ("text", b"hi")] {
        same!(bench.put(name, body).await?, Put::Written, "{name}, first");
        same!(bench.put(name, body).await?, Put::AlreadyThere, "{name}, again");
        let got = bench.store().get(&bench.key(name)).await?;
        same!(got.as_deref(), Some(body), "{name}");
    }
    Ok(())
}

async fn other_content_changes_nothing(bench: &Bench<'_>) -> Checked {
    bench.put("kept", b"first").await?;
    for other in [&b"other"[..], b"", b"first and more", b"Eirst"] {
        let refused = bench.put("kept", other).await;
        let key = bench.key("kept");
        hold!(
            matches!(&refused, Err(StoreError::Damaged { key: named, .. }) if *named == key),
            "other content: got {refused:?}, want Damaged that names {key}"
        );
        let got = bench.store().get(&key).await?;
        same!(got.as_deref(), Some(&b"first"[..]), "what was there");
    }
    Ok(())
}

async fn of_racing_writers_one_writes(bench: &Bench<'_>) -> Checked {
    for round in 0..4 {
        let key = bench.key(&format!("race/same-{round}"));
        let body = Bytes::from_static(b"the same from all");
        let puts = (0..32).map(|number| bench.any(number).put_once(&key, body.clone()));
        let mut written = 0;
        for put in join_all(puts).await {
            written += usize::from(put? == Put::Written);
        }
        same!(written, 1, "writers that wrote");
        same!(bench.store().get(&key).await?, Some(body), "the object");
    }
    Ok(())
}

async fn of_racing_contents_one_stays(bench: &Bench<'_>) -> Checked {
    for round in 0..4 {
        let key = bench.key(&format!("race/other-{round}"));
        let body = |number: usize| Bytes::from(format!("content of writer {number:02}"));
        let puts = (0..32).map(|number| bench.any(number).put_once(&key, body(number)));
        let mut winners = Vec::new();
        for (number, put) in join_all(puts).await.into_iter().enumerate() {
            match put {
                Ok(Put::Written) => winners.push(number),
                Err(StoreError::Damaged { .. }) => {}
                other => hold!(false, "a racer with other content: got {other:?}"),
            }
        }
        same!(winners.len(), 1, "winners");
        let winner = winners.first().copied().map(body);
        same!(bench.store().get(&key).await?, winner, "the winner's content");
    }
    Ok(())
}

async fn names_keep_to_themselves(bench: &Bench<'_>) -> Checked {
    let long = "k".repeat(1024 - bench.key("names/").len());
    let names = [
        "a",
        "a.object",
        "a/b",
        "a.b",
        "a.b/c",
        "a b",
        "a+b",
        "a%20b",
        "a%2Fb",
        "a#b",
        "a%23b",
        "größe",
        "gro\u{308}ße",
        "数/据",
        "😀",
        "a&b=c;d",
        "a?b",
        "a\\b",
        "a:b",
        "~",
        "a,b@c(d)",
        &long,
    ];
    for name in names {
        let put = bench.put(&format!("names/{name}"), name.as_bytes()).await?;
        same!(put, Put::Written, "`{name}`");
    }
    for name in names {
        let got = bench.store().get(&bench.key(&format!("names/{name}"))).await?;
        same!(got.as_deref(), Some(name.as_bytes()), "`{name}`");
    }
    let listed: BTreeSet<String> = bench.list("names/", None, 1000).await?.into_iter().collect();
    let want: BTreeSet<String> = names.iter().map(|name| format!("names/{name}")).collect();
    same!(listed, want, "the listing");
    Ok(())
}

async fn listings_are_in_byte_order(bench: &Bench<'_>) -> Checked {
    // A walk through directories would give another order: `-` and `.` come before `/`, `0` after it.
    let mut names = ["o/a/1", "o/a-1", "o/a.1", "o/a0", "o/a", "o/B", "o/é", "o/z", "o/～", "o/😀"];
    for name in names {
        bench.put(name, name.as_bytes()).await?;
    }
    names.sort_unstable();
    same!(bench.list("o/", None, 100).await?, names.map(str::to_owned).to_vec(), "order");
    for object in bench.store().list(&bench.key("o/"), None, 100).await? {
        let size = object.key.len() - bench.key("").len();
        same!(object.size, size as u64, "the size of {}", object.key);
    }
    Ok(())
}

async fn listings_go_on_after_a_key(bench: &Bench<'_>) -> Checked {
    let names: Vec<String> =
        (0..25).map(|number| format!("p/{:02}/x{number:02}", number % 3)).collect();
    for name in &names {
        bench.put(name, b"x").await?;
    }
    let mut want = names;
    want.sort();
    for limit in [1, 7, 24, 25, 26, 1000] {
        let mut got: Vec<String> = Vec::new();
        loop {
            let page = bench.list("p/", got.last().map(String::as_str), limit).await?;
            hold!(page.len() <= limit, "a page of {} where {limit} were asked for", page.len());
            let last = page.len() < limit;
            got.extend(page);
            if last || got.len() > want.len() {
                break;
            }
        }
        same!(got, want, "pages of {limit}");
    }
    let from = |at: usize| want.get(at..).unwrap_or_default().to_vec();
    let after_a_gap = bench.list("p/", Some("p/00/x00!"), 1000).await?;
    same!(after_a_gap, from(1), "after a key that is not there");
    same!(bench.list("p/", Some("o/zzz"), 1000).await?, from(0), "after a key before the prefix");
    same!(bench.list("p/", Some("q"), 1000).await?, from(25), "after a key behind the prefix");
    same!(bench.list("p/", Some("p/01"), 1000).await?, from(9), "after a directory's name");
    Ok(())
}

async fn prefixes_are_no_directories(bench: &Bench<'_>) -> Checked {
    for name in ["x/a", "x/ab", "x/a/b", "x/b", "xa"] {
        bench.put(name, b"x").await?;
    }
    let cases: [(&str, &[&str]); 6] = [
        ("x/a", &["x/a", "x/a/b", "x/ab"]),
        ("x/a/", &["x/a/b"]),
        ("x/", &["x/a", "x/a/b", "x/ab", "x/b"]),
        ("x", &["x/a", "x/a/b", "x/ab", "x/b", "xa"]),
        ("x/a/b", &["x/a/b"]),
        ("x/c", &[]),
    ];
    for (prefix, want) in cases {
        same!(bench.list(prefix, None, 100).await?, want.to_vec(), "prefix `{prefix}`");
    }
    Ok(())
}

/// A file of `size` bytes that differ with `seed`, and its content.
fn file(size: usize, seed: u8) -> Result<(tempfile::NamedTempFile, Bytes), Broken> {
    let said = |error: std::io::Error| Broken(format!("a file for the test: {error}"));
    let body: Vec<u8> = (0..size).map(|at| ((at / 251 + at) % 253) as u8 ^ seed).collect();
    let mut file = tempfile::NamedTempFile::new().map_err(said)?;
    file.write_all(&body).map_err(said)?;
    Ok((file, body.into()))
}

async fn files_are_put_as_bytes_are(bench: &Bench<'_>) -> Checked {
    for size in [0, 1000] {
        let (file, body) = file(size, 1)?;
        let key = bench.key(&format!("files/{size}"));
        same!(bench.store().put_file_once(&key, file.path()).await?, Put::Written, "first");
        same!(bench.store().get(&key).await?, Some(body.clone()), "the content");
        same!(bench.store().put_once(&key, body).await?, Put::AlreadyThere, "the same as bytes");
        let other = bench.store().put_once(&key, Bytes::from_static(b"other")).await;
        hold!(matches!(other, Err(StoreError::Damaged { .. })), "others: got {other:?}");
    }
    let (file, body) = file(500, 2)?;
    bench.put("files/bytes", &body).await?;
    let again = bench.store().put_file_once(&bench.key("files/bytes"), file.path()).await?;
    same!(again, Put::AlreadyThere, "the same as a file");
    let gone =
        bench.store().put_file_once(&bench.key("files/gone"), "/no/such/file".as_ref()).await;
    hold!(gone.is_err(), "a file that is not there: got {gone:?}");
    same!(bench.store().get(&bench.key("files/gone")).await?, None, "an object of no file");
    Ok(())
}

/// Three parts, the last a short one.
const LARGE: usize = 17 * 1024 * 1024 + 3;

async fn large_files_are_written_once(bench: &Bench<'_>) -> Checked {
    let (ours, body) = file(LARGE, 1)?;
    let (others, _) = file(LARGE, 2)?;
    let key = bench.key("large/file");
    same!(bench.store().put_file_once(&key, ours.path()).await?, Put::Written, "first");
    hold!(bench.store().get(&key).await? == Some(body.clone()), "it reads otherwise");
    same!(bench.store().put_file_once(&key, ours.path()).await?, Put::AlreadyThere, "again");
    same!(bench.store().put_once(&key, body.clone()).await?, Put::AlreadyThere, "as bytes");
    let refused = bench.store().put_file_once(&key, others.path()).await;
    hold!(
        matches!(&refused, Err(StoreError::Damaged { key: named, .. }) if *named == key),
        "another file of that size: got {refused:?}, want Damaged"
    );
    hold!(bench.store().get(&key).await? == Some(body), "the other file spoilt it");
    Ok(())
}

async fn racing_large_files_are_written_once(bench: &Bench<'_>) -> Checked {
    let (ours, one) = file(LARGE, 3)?;
    let (others, two) = file(LARGE, 4)?;
    let key = bench.key("large/race");
    let puts = (0..4).map(|number| {
        let path = if number % 2 == 0 { ours.path() } else { others.path() };
        bench.any(number).put_file_once(&key, path)
    });
    let puts = join_all(puts).await;
    let written: Vec<usize> = (0..)
        .zip(&puts)
        .filter_map(|(number, put)| matches!(put, Ok(Put::Written)).then_some(number))
        .collect();
    same!(written.len(), 1, "writers that wrote, of {puts:?}");
    let even = written.first().is_some_and(|winner| winner % 2 == 0);
    let damaged = puts.iter().filter(|put| matches!(put, Err(StoreError::Damaged { .. }))).count();
    same!(damaged, 2, "those with the other content, of {puts:?}");
    let stays = if even { one } else { two };
    hold!(bench.store().get(&key).await? == Some(stays), "it is not the winner's");
    Ok(())
}

async fn nonsense_is_refused(bench: &Bench<'_>) -> Checked {
    for key in ["", "/a", "a/", "a//b", "a/../b", "a\nb", &"k".repeat(1025)] {
        let put = bench.store().put_once(key, Bytes::new()).await;
        hold!(matches!(put, Err(StoreError::Failed { .. })), "the key `{key:?}`: got {put:?}");
    }
    for limit in [0, 1001] {
        let listed = bench.list("x/", None, limit).await;
        hold!(listed.is_err(), "a limit of {limit}: got {listed:?}");
    }
    Ok(())
}

async fn raw_answers_are_kept_and_verified(bench: &Bench<'_>) -> Checked {
    let day = Date { year: 2026, month: 11, day: 20 };
    // A body of its own for each scope: the key is made of the content.
    let body = Bytes::from(format!("{{\"data\":[\"{}\"]}}\r\n\u{0}", bench.scope));
    let page = RawPage { label: "costs".into(), body };
    let kept = raw::keep(bench.store(), "openai", day, &page).await?;
    let shelf = kept.sha256.get(..2).unwrap_or_default();
    same!(kept.key, format!("raw/v1/openai/2026-11-20/{shelf}/{}", kept.sha256), "the key");
    same!(raw::keep(bench.store(), "openai", day, &page).await?, kept, "kept again");
    same!(raw::load(bench.store(), &kept).await?, page, "read back");
    let foreign = raw::ContentRef { sha256: "00".repeat(32), ..kept.clone() };
    let read = raw::load(bench.store(), &foreign).await;
    hold!(matches!(read, Err(StoreError::Damaged { .. })), "another hash: got {read:?}");
    let gone = raw::ContentRef { key: bench.key("gone"), ..kept };
    let read = raw::load(bench.store(), &gone).await;
    hold!(matches!(read, Err(StoreError::Damaged { .. })), "no object: got {read:?}");
    let source = raw::keep(bench.store(), "../up", day, &page).await;
    hold!(source.is_err(), "a source that is a path: got {source:?}");
    Ok(())
}

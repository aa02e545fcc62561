//! A billing request's parameters, and the days of its page.

use axum::extract::Query;
use axum::http::Uri;
use sha2::{Digest, Sha256};

use crate::clock::{Day, Span};

/// The parameters, in their order.
#[derive(Clone, Debug)]
pub(crate) struct Params(Vec<(String, String)>);

impl Params {
    pub(crate) fn of(uri: &Uri) -> Result<Self, (u16, String)> {
        let Query(mut list) = Query::<Vec<(String, String)>>::try_from_uri(uri)
            .map_err(|error| (400, format!("query: {error}")))?;
        for (name, _) in &mut list {
            // Both ways of writing a list are documented.
            if let Some(plain) = name.strip_suffix("[]") {
                *name = plain.to_owned();
            }
        }
        Ok(Self(list))
    }

    /// Refuses what is not in the list: a misspelt parameter would go unnoticed.
    pub(crate) fn only(&self, known: &[&str]) -> Result<(), String> {
        let odd = self.0.iter().find(|(name, _)| !known.contains(&name.as_str()));
        odd.map_or(Ok(()), |(name, _)| Err(format!("Unknown parameter: '{name}'.")))
    }

    /// A parameter that is there once or not at all.
    pub(crate) fn one(&self, name: &str) -> Result<Option<&str>, String> {
        let mut values = self.0.iter().filter(|(of, _)| of == name);
        match (values.next(), values.next()) {
            (first, None) => Ok(first.map(|(_, value)| value.as_str())),
            _ => Err(format!("Parameter '{name}' is there more than once.")),
        }
    }

    pub(crate) fn many(&self, name: &str) -> Vec<String> {
        self.0.iter().filter(|(of, _)| of == name).map(|(_, value)| value.clone()).collect()
    }

    pub(crate) fn integer(&self, name: &str) -> Result<Option<i64>, String> {
        let number = |text: &str| text.parse().map_err(|_| format!("'{name}' is no integer."));
        self.one(name)?.map(number).transpose()
    }

    /// How many to a page.
    pub(crate) fn limit(&self, usual: u64, most: u64) -> Result<u64, String> {
        let limit = self.integer("limit")?.map_or(Ok(usual), u64::try_from);
        limit
            .ok()
            .filter(|limit| (1..=most).contains(limit))
            .ok_or_else(|| format!("'limit' must be 1 to {most}."))
    }

    /// What the request is grouped by.
    pub(crate) fn groups(&self, known: &[&str]) -> Result<Vec<String>, String> {
        let groups = self.many("group_by");
        let odd = groups.iter().find(|group| !known.contains(&group.as_str()));
        odd.map_or(Ok(groups.clone()), |odd| Err(format!("'{odd}' is no value of 'group_by'.")))
    }

    /// Refuses buckets other than days: the books keep no shorter time.
    pub(crate) fn days_only(&self) -> Result<(), String> {
        match self.one("bucket_width")? {
            None | Some("1d") => Ok(()),
            Some(other) => Err(format!("'bucket_width' {other}: only 1d is kept here.")),
        }
    }

    /// A cursor: where a page begins, its number, and what else was asked.
    fn cursor(&self, place: i64, page: u64) -> String {
        format!("page_{place:x}_{page}_{}", self.digest())
    }

    /// What the request's cursor says, if it has one.
    fn place(&self) -> Result<Option<(i64, u64)>, String> {
        let parse = |cursor: &str| {
            let mut parts = cursor.strip_prefix("page_")?.split('_');
            let place = i64::from_str_radix(parts.next()?, 16).ok()?;
            let page = parts.next()?.parse().ok()?;
            let rest = (parts.next()?, parts.next());
            (rest == (self.digest().as_str(), None)).then_some((place, page))
        };
        let wrong = "'page' is no cursor of this request: all other parameters must stay the same.";
        match self.one("page")? {
            None => Ok(None),
            Some(cursor) => parse(cursor).map(Some).ok_or_else(|| wrong.to_owned()),
        }
    }

    /// All but the page, which may not change from page to page.
    fn digest(&self) -> String {
        let mut rest: Vec<&(String, String)> =
            self.0.iter().filter(|(name, _)| name != "page").collect();
        rest.sort();
        let hash = Sha256::digest(format!("{rest:?}"));
        hash.iter().take(6).map(|byte| format!("{byte:02x}")).collect()
    }
}

/// What a request asks for, once it is understood.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// All days asked for.
    pub(crate) span: Span,
    /// The days of this page.
    pub(crate) window: Span,
    /// Its number; the first is 1.
    pub(crate) page: u64,
    /// The cursor of this page, for a fault that repeats it.
    pub(crate) here: String,
    /// The cursor of the next page, if there is one.
    pub(crate) next: Option<String>,
    pub(crate) params: Params,
    /// How many to a page, for lists.
    pub(crate) limit: u64,
    /// How many rows came before, for reports in rows.
    pub(crate) first: u64,
}

impl Plan {
    /// The page of some days that the parameters' cursor names.
    pub(crate) fn of_days(params: &Params, span: Span, limit: u64) -> Result<Self, String> {
        let (from, page) = match params.place()? {
            None => (span.from, 1),
            Some((seconds, page)) => (Day::of_unix(seconds), page),
        };
        let cursor = |from: Day, page: u64| params.cursor(from.unix(), page);
        let count = i64::try_from(limit).unwrap_or(i64::MAX);
        let to = from.plus(count).min(span.to);
        let next = (to < span.to).then(|| cursor(to, page + 1));
        let window = Span { from, to };
        let here = cursor(from, page);
        Ok(Self { span, window, page, here, next, params: params.clone(), limit, first: 0 })
    }

    /// The page of rows that the parameters' cursor names, in all of the days.
    pub(crate) fn of_rows(params: &Params, span: Span, limit: u64) -> Result<Self, String> {
        let (first, page) = params.place()?.unwrap_or((0, 1));
        let here = params.cursor(first, page);
        let first = u64::try_from(first).unwrap_or_default();
        let (next, params) = (None, params.clone());
        Ok(Self { span, window: span, page, here, next, params, limit, first })
    }

    /// The rows of this page, and the cursor of the next.
    pub(crate) fn rows<T>(&self, all: Vec<T>, repeated: bool) -> (Vec<T>, Option<String>) {
        let (count, end) = (u64::try_from(all.len()).unwrap_or(u64::MAX), self.first + self.limit);
        let size = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
        let rows = all.into_iter().skip(size(self.first)).take(size(self.limit)).collect();
        let place = i64::try_from(end).unwrap_or(i64::MAX);
        let next = (end < count).then(|| self.params.cursor(place, self.page + 1));
        (rows, if repeated { Some(self.here.clone()) } else { next })
    }

    /// The cursor to send, where a fault may ask for the same again.
    pub(crate) fn cursor(&self, repeated: bool) -> Option<String> {
        if repeated { Some(self.here.clone()) } else { self.next.clone() }
    }

    pub(crate) fn groups(&self) -> Vec<String> {
        self.params.many("group_by")
    }

    /// True when no filter of this name is set, or it names this value.
    pub(crate) fn wants(&self, filter: &str, value: Option<&str>) -> bool {
        let wanted = self.params.many(filter);
        wanted.is_empty() || value.is_some_and(|value| wanted.iter().any(|one| one == value))
    }
}

//! `GET /organization/costs`: the bill, by day, project, key and label.

use std::collections::BTreeSet;

use serde::Deserialize;
use tallygate_shared::time::{Date, Timestamp};

use super::{COSTS, Days, NAME, Paged, PullError, RawPage, Reader, Rounded};
use crate::bill::{Bill, BillLine, ChargeKind, Meter};
use crate::connectors::read::{Amount, Dollars, UnixSeconds};

#[derive(Deserialize)]
struct Page {
    data: Vec<Bucket>,
}

#[derive(Deserialize)]
struct Bucket {
    start_time: UnixSeconds,
    end_time: UnixSeconds,
    // Older specifications spell it in the singular.
    #[serde(alias = "result")]
    results: Vec<Cost>,
}

#[derive(Deserialize)]
struct Cost {
    amount: Money,
    line_item: Option<String>,
    project_id: Option<String>,
    api_key_id: Option<String>,
    api_source: Option<String>,
    quantity: Option<Amount>,
    quantity_unit: Option<String>,
}

#[derive(Deserialize)]
struct Money {
    value: Dollars,
    currency: String,
}

/// What reading the pages of costs remembers from page to page.
#[derive(Default)]
pub(super) struct Costs {
    seen: BTreeSet<Timestamp>,
    pub(super) rounded: Rounded,
}

impl Costs {
    /// Reads one page, and says whether more follow.
    pub(super) fn page(
        &mut self,
        reader: &Reader<'_>,
        days: Days,
        account: &str,
        page: &RawPage,
        bill: &mut Bill,
    ) -> Result<bool, PullError> {
        let paged: Paged = reader.json(&page.body)?;
        let read: Page = reader.json(&page.body)?;
        for (at, bucket) in read.data.into_iter().enumerate() {
            let (start, end) = (bucket.start_time.0, bucket.end_time.0);
            let at = format!("data[{at}]");
            reader.within_a_day(days, start, end, &at)?;
            // A page holds whole buckets, so one that comes again would be booked twice.
            if !self.seen.insert(start) {
                return Err(reader.wrong(&at, format!("has the bucket of {start} a second time")));
            }
            for (index, cost) in bucket.results.into_iter().enumerate() {
                let at = format!("{at}.results[{index}]");
                bill.lines.push(self.line(reader, &at, (start, end), account, cost)?);
            }
        }
        Ok(paged.next(reader)?.is_some())
    }

    /// Refuses costs that lack one of the days: each has a bucket.
    pub(super) fn finish(&self, days: Days) -> Result<(), PullError> {
        let has = |day: Date| self.seen.contains(&day.midnight());
        Reader::new(NAME, COSTS).each_day(days, has, "data")
    }

    fn line(
        &mut self,
        reader: &Reader<'_>,
        at: &str,
        (start, end): (Timestamp, Timestamp),
        account: &str,
        cost: Cost,
    ) -> Result<BillLine, PullError> {
        reader.us_dollars(&cost.amount.currency, &format!("{at}.amount.currency"))?;
        let amount = self.rounded.dollars(cost.amount.value);
        let hint = cost.line_item.as_deref().and_then(line_item_hint);
        let counted = hint.is_some() || cost.quantity.is_some();
        let label = cost.line_item.as_deref().unwrap_or_default();
        let returned = amount.is_negative();
        let kind = match kind_by_label(label).filter(|_| !counted) {
            // A discount or credit that is taken back.
            Some(ChargeKind::Discount | ChargeKind::Credit | ChargeKind::Refund) if !returned => {
                ChargeKind::Adjustment
            }
            Some(kind) => kind,
            // Money that comes back is at least no use.
            None if returned => ChargeKind::Adjustment,
            None => ChargeKind::Usage,
        };
        let (model, meter) = match hint {
            Some((model, meter)) => (Some(model), meter),
            None => (None, Meter::Whole),
        };
        let mut line = BillLine {
            provider: NAME.into(),
            account: account.into(),
            project: cost.project_id,
            start,
            end,
            kind,
            service: "OpenAI API".into(),
            description: cost.line_item.unwrap_or_default(),
            model,
            meter,
            tier: None,
            quantity: None,
            unit: None,
            amount,
            list_amount: None,
            invoice_id: None,
            credential: cost.api_key_id,
            provisional: true,
            tags: [("api_source", cost.api_source)]
                .into_iter()
                .filter_map(|(name, value)| Some((name.to_owned(), value?)))
                .collect(),
        };
        match (cost.quantity, cost.quantity_unit.as_deref()) {
            (None, unit) => {
                unit.map(|unit| focus_unit(reader, at, unit)).transpose()?;
            }
            // A count of nobody knows what: kept for people, and compared with nothing.
            (Some(quantity), None) => {
                line.tags.insert("quantity_without_unit".into(), quantity.0.to_string());
            }
            (Some(quantity), Some(unit)) => {
                line.quantity = Some(quantity.0);
                line.unit = Some(focus_unit(reader, at, unit)?.into());
            }
        }
        Ok(line)
    }
}

fn focus_unit(reader: &Reader<'_>, at: &str, unit: &str) -> Result<&'static str, PullError> {
    Ok(match unit {
        "tokens" => "Tokens",
        "1000_tokens" => "1000 Tokens",
        "duration_seconds" => "Seconds",
        "duration_minutes" => "Minutes",
        "duration_hours" => "Hours",
        "gibibyte_hours" => "GiB-Hours",
        "images" => "Images",
        "characters" => "Characters",
        other => {
            let name: String = other.chars().take(40).collect();
            return Err(reader.wrong(
                &format!("{at}.quantity_unit"),
                format!(
                    "is `{name}`, a unit that is not known here: teach the connector its meaning"
                ),
            ));
        }
    })
}

/// What a label says a cost is, where that is not use: the first of these words in it. A label has no documented words for
/// these costs, so whole words count only, and never those of an id (`ft:gpt-4o:tax::x1`).
fn kind_by_label(label: &str) -> Option<ChargeKind> {
    label.split_whitespace().find_map(|word| {
        let word = word.trim_matches(|c: char| !c.is_ascii_alphanumeric()).to_ascii_lowercase();
        Some(match word.as_str() {
            "tax" | "taxes" | "vat" | "gst" | "hst" => ChargeKind::Tax,
            "refund" | "refunds" | "refunded" => ChargeKind::Refund,
            "credit" | "credits" => ChargeKind::Credit,
            "discount" | "discounts" | "discounted" => ChargeKind::Discount,
            "minimum" => ChargeKind::MinimumFee,
            "rounding" | "adjustment" | "adjustments" => ChargeKind::Adjustment,
            _ => return None,
        })
    })
}

/// What a cost's label seems to name: a model and a meter. Labels are words for people that change over time, so this is
/// a hint for comparing prices, and no money depends on it. A label it does not know gives nothing.
///
/// ```
/// use tallygate_reconciler::bill::Meter;
/// use tallygate_reconciler::connectors::openai::line_item_hint;
/// assert_eq!(line_item_hint("gpt-6-astra, input_tokens"), Some(("gpt-6-astra".into(), Meter::Input)));
/// assert_eq!(line_item_hint("Web search tool calls"), None);
/// ```
pub fn line_item_hint(label: &str) -> Option<(String, Meter)> {
    let (model, words) = label.rsplit_once(',')?;
    let model = model.trim();
    let like_an_id = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:/".contains(&byte);
    if model.is_empty() || !model.bytes().all(like_an_id) {
        return None;
    }
    let words = words.trim().to_ascii_lowercase().replace(['_', '-'], " ");
    let words = words.strip_suffix(" tokens").unwrap_or(&words);
    // Sound, pictures, batches and training have prices of their own: their labels are not taken for text's.
    let meter = match words {
        "input" | "uncached input" | "input uncached" => Meter::Input,
        "cached input" | "input cached" => Meter::CacheRead,
        "cache write" | "input cache write" | "cache write input" => Meter::CacheWrite,
        "output" => Meter::Output,
        _ => return None,
    };
    Some((model.to_owned(), meter))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_says_what_is_not_use() {
        for (label, kind) in [
            ("Tax: sales tax", ChargeKind::Tax),
            ("Sales tax (Texas)", ChargeKind::Tax),
            ("EU VAT", ChargeKind::Tax),
            ("Tax refund", ChargeKind::Tax),
            ("Credit: promotional", ChargeKind::Credit),
            ("Prepaid credits", ChargeKind::Credit),
            ("Refund for 2026-10", ChargeKind::Refund),
            ("Volume discount", ChargeKind::Discount),
            ("Minimum commitment", ChargeKind::MinimumFee),
            ("Rounding", ChargeKind::Adjustment),
        ] {
            assert_eq!(kind_by_label(label), Some(kind), "{label}");
        }
        for label in
            ["", "Web search tool calls", "ft:gpt-4o:tax::x1, training", "Taxonomy", "gst-model"]
        {
            assert_eq!(kind_by_label(label), None, "{label}");
        }
    }

    #[test]
    fn labels_hint_at_a_model_and_a_meter_or_at_nothing() {
        for (label, model, meter) in [
            ("gpt-6-astra, input_tokens", "gpt-6-astra", Meter::Input),
            ("gpt-4o-2024-08-06, Input", "gpt-4o-2024-08-06", Meter::Input),
            ("gpt-5.6-luna, input", "gpt-5.6-luna", Meter::Input),
            ("gpt-5.6-luna, cached input", "gpt-5.6-luna", Meter::CacheRead),
            ("gpt-5.6-luna, input_cached_tokens", "gpt-5.6-luna", Meter::CacheRead),
            ("gpt-5.6-luna, input_cache_write_tokens", "gpt-5.6-luna", Meter::CacheWrite),
            ("ft:gpt-4o:acme::x1,output tokens", "ft:gpt-4o:acme::x1", Meter::Output),
        ] {
            assert_eq!(line_item_hint(label), Some((model.to_owned(), meter)), "{label}");
        }
        for label in [
            "",
            "Web search tool calls",
            "gpt-4o-audio, audio input",
            "gpt-4o, batch input",
            "gpt-4o",
            ", input",
            "Assistants API | File search, input",
            "gpt-4o, tokens",
        ] {
            assert_eq!(line_item_hint(label), None, "{label}");
        }
    }
}

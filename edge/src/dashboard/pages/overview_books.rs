//! The overview's first lines: what was spent, what will be, how much of it is checked against bills, and how fresh
//! and how well allocated all of it is.

use serde_json::Value;

use super::{Rounds, text, usd};
use crate::dashboard::figures::{money, percent, share};
use crate::dashboard::view::{Block, Cell, Column, Stat, Table, Tone, stat};

/// What the blocks are made from: the answers of `/forecast` and of `/books`.
pub(super) struct Sources {
    forecast: Option<Value>,
    books: Option<Value>,
}

impl Sources {
    /// From their places in the first round.
    pub(super) fn of(rounds: &Rounds<'_>, forecast: usize, books: usize) -> Self {
        Self { forecast: rounds.value(0, forecast), books: rounds.value(0, books) }
    }

    /// What a workspace without a request is told to do next.
    pub(super) fn first_step(&self) -> Option<String> {
        let newest = self.books.as_ref()?.get("newest_event_at")?;
        let text = "No request has come yet. Issue a key on the page Keys and send one with it, or see every page alive \
            on a month of demo traffic: make run DEMO=1.";
        newest.is_null().then(|| text.to_owned())
    }

    /// The numbers that come first.
    pub(super) fn stats(&self) -> Block {
        let amount = |of: &Option<Value>, name: &str| {
            of.as_ref().map_or(Cell::Nothing, |it| Cell::usd(text(it, name)))
        };
        let (ahead, range) = self.ahead();
        let mut stats = vec![
            stat(
                "Spent today",
                amount(&self.forecast, "spent_today_usd"),
                "Charged since midnight.",
            ),
            stat(
                "Spent this month",
                amount(&self.forecast, "spent_usd"),
                "Charged as requests were made.",
            ),
            stat("Forecast for the month", ahead, &range),
            stat("Forecast accuracy", Cell::Nothing, "A week of forecast and what came is needed."),
            stat(
                "Trued up so far",
                amount(&self.books, "ledger_usd"),
                "This month's charges, with each bill in place of its estimate.",
            ),
            stat(
                "Still an estimate",
                amount(&self.books, "still_estimated_usd"),
                self.billed_share(),
            ),
            stat("Allocated", self.coverage(), "Of this month's charges: those that name a team."),
            stat("Newest request", self.newest(), "How fresh these numbers are."),
        ];
        if let (Some(place), Some(judged)) = (stats.get_mut(3), self.judged()) {
            *place = judged;
        }
        Block::Stats(stats)
    }

    /// The forecast, and the sentence below it.
    fn ahead(&self) -> (Cell, String) {
        let Some(it) = &self.forecast else { return (Cell::Nothing, String::new()) };
        match it.get("forecast").filter(|it| !it.is_null()) {
            Some(found) => {
                let shown = |name: &str| money(usd(found, name)).shown;
                let range = format!("Between {} and {}.", shown("low_usd"), shown("high_usd"));
                (Cell::usd(text(found, "expected_usd")), range)
            }
            None => (Cell::Nothing, text(it, "no_forecast_because").to_owned()),
        }
    }

    /// What a forecast of a week ago said of the week, and what came.
    fn judged(&self) -> Option<Stat> {
        let record = self.forecast.as_ref()?.get("accuracy")?.as_array()?;
        let week = record.iter().find(|it| it.get("days").and_then(Value::as_i64) == Some(7))?;
        let missed = week.get("missed_basis_points").and_then(Value::as_i64)?;
        let shown = |name: &str| money(usd(week, name)).shown;
        let note = format!(
            "Missed by {}: a week ago it said {} for the week, and {} came.",
            percent(missed),
            shown("expected_usd"),
            shown("actual_usd")
        );
        let (tone, said) = match week.get("within_range").and_then(Value::as_bool) {
            Some(true) => (Tone::Good, "within its range"),
            _ => (Tone::Warn, "outside its range"),
        };
        Some(stat("Forecast accuracy", Cell::Badge { tone, text: said.to_owned() }, &note))
    }

    fn billed_share(&self) -> String {
        let Some(books) = &self.books else { return String::new() };
        let (all, left) = (usd(books, "charged_usd"), usd(books, "still_estimated_usd"));
        match share(all.pico() - left.pico(), all.pico()) {
            Some(part) => {
                format!("{} of this month's charges is checked against bills.", percent(part))
            }
            None => "Nothing is charged yet.".to_owned(),
        }
    }

    fn coverage(&self) -> Cell {
        let part = self.books.as_ref().and_then(|books| {
            let team = usd(books.get("allocated_usd")?, "team");
            share(team.pico(), usd(books, "charged_usd").pico())
        });
        part.map_or(Cell::Nothing, Cell::Share)
    }

    fn newest(&self) -> Cell {
        self.books.as_ref().map_or(Cell::Nothing, |it| Cell::moment(text(it, "newest_event_at")))
    }

    /// How far each provider's days are reconciled.
    pub(super) fn freshness(&self) -> Block {
        let providers = self.books.as_ref().and_then(|it| it.get("providers")?.as_object());
        let row = |(name, it): (&String, &Value)| {
            vec![
                Cell::link(
                    format!(
                        "/dashboard/reconciliation?provider={}",
                        crate::dashboard::web::encoded(name)
                    ),
                    name,
                ),
                Cell::text(text(it, "billed_until")),
                Cell::text(text(it, "final_until")),
                Cell::text(text(it, "seen_until")),
            ]
        };
        Block::Table(Table {
            id: "freshness",
            caption: "How far bills have come".to_owned(),
            columns: vec![
                Column::text("provider", "Provider"),
                Column::text("billed_until", "Billed until"),
                Column::text("final_until", "Final until"),
                Column::text("seen_until", "Looked at until"),
            ],
            rows: providers.map(|all| all.iter().map(row).collect()),
            empty: "No bill has come yet: everything above is an estimate. Let the reconciler run each night.".to_owned(),
            ..Table::default()
        })
    }

    /// How much of the charges names an owner, by dimension.
    pub(super) fn allocation(&self) -> Block {
        let books = self.books.as_ref();
        let all = books.map(|it| usd(it, "charged_usd")).unwrap_or_default();
        let allocated = books.and_then(|it| it.get("allocated_usd")?.as_object());
        let row = |(name, amount): (&String, &Value)| {
            let amount: tallygate_shared::money::Usd =
                amount.as_str().unwrap_or_default().parse().unwrap_or_default();
            let left = all.checked_sub(amount).unwrap_or_default();
            vec![
                Cell::link(format!("/dashboard/usage?by={name}"), &name.replace('_', " ")),
                Cell::money(amount),
                Cell::money(left),
                share(amount.pico(), all.pico()).map_or(Cell::Nothing, Cell::Share),
            ]
        };
        Block::Table(Table {
            id: "allocation",
            caption: "How much of this month's charges has an owner".to_owned(),
            columns: vec![
                Column::text("dimension", "By"),
                Column::number("allocated_usd", "Allocated"),
                Column::number("unallocated_usd", "Unallocated"),
                Column::text("share", "Coverage"),
            ],
            rows: allocated.map(|all| all.iter().map(row).collect()),
            empty: "No request this month yet.".to_owned(),
            ..Table::default()
        })
    }
}

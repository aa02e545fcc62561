use std::collections::BTreeMap;

use proptest::prelude::*;

use super::charges::*;
use super::check::check_rows;
use super::columns::Version;
use super::invoices::InvoiceIndex;
use super::month::Month;
use super::row::*;
use crate::bill::{BillLine, ChargeKind, Meter, Quantity};
use crate::ledger::{Content, LineId, Revision, UnitId};
use tallygate_shared::money::Usd;
use tallygate_shared::pricing::PriceBook;

const BOOK: &str = r#"{"version":"1","currency":"USD","unit":"USD per 1,000,000 tokens","rows":[
    {"provider":"openai","model":"gpt-5","prices":{"standard":{"input":"5","output":"20"}}}]}"#;

pub(crate) struct World {
    pub(crate) book: PriceBook,
    pub(crate) invoices: InvoiceIndex,
    pub(crate) accounts: BTreeMap<(String, String), Account>,
}

impl World {
    pub(crate) fn new() -> Self {
        let book = PriceBook::parse(BOOK).unwrap();
        Self { book, invoices: InvoiceIndex::default(), accounts: BTreeMap::new() }
    }

    pub(crate) fn context(&self, estimates: Estimates) -> Context<'_> {
        let Self { book, invoices, accounts } = self;
        Context { prices: book, invoices, accounts, estimates }
    }

    pub(crate) fn rows(&self, revisions: &[Revision], month: &str) -> Vec<FocusRow> {
        let context = self.context(Estimates::LeaveOut);
        rows_of_unit(revisions, Month::parse(month).unwrap(), &context).unwrap().rows
    }
}

/// A line of `gpt-5` input on 2026-11-20: of `team`, billed for `tokens`.
pub(crate) fn revision(team: &str, billed: Option<&str>, tokens: u64) -> Revision {
    Revision {
        unit: UnitId {
            workspace: "acme".into(),
            day: "2026-11-20".into(),
            provider: "openai".into(),
        },
        line: LineId {
            account: "org-1".into(),
            model: "gpt-5".into(),
            meter: Meter::Input,
            tier: "standard".into(),
            kind: ChargeKind::Usage,
            owner: BTreeMap::from([("team".into(), team.into())]),
        },
        rev: 1,
        seq: 1,
        cause: "first".into(),
        run: "night#2026-11-21".into(),
        booked_in: None,
        content: Content {
            estimated: "40".parse().unwrap(),
            metered: Quantity::whole(tokens),
            requests: 7,
            billed: billed.map(|billed| billed.parse().unwrap()),
            billed_quantity: billed.map(|_| Quantity::whole(tokens)),
            list: None,
            quantity_variance: Usd::ZERO,
            price_variance: Usd::ZERO,
            provisional: false,
            price_version: "1".into(),
            source: "aa".into(),
            method: "direct".into(),
        },
    }
}

fn with(mut revision: Revision, change: impl FnOnce(&mut Revision)) -> Revision {
    change(&mut revision);
    revision
}

fn split(team: &str, billed: &str, tokens: u64) -> Revision {
    with(revision(team, Some(billed), tokens), |r| r.content.method = "proportional".into())
}

fn texts(costs: &Costs) -> [String; 4] {
    [costs.list, costs.contracted, costs.effective, costs.billed].map(|cost| cost.to_string())
}

#[test]
fn the_four_costs_of_use_are_told_apart() {
    let rows = World::new().rows(&[revision("search", Some("39.9"), 8_400_000)], "2026-11");
    let [row] = rows.as_slice() else { panic!("{rows:?}") };
    let pricing = row.pricing.as_ref().unwrap();
    assert_eq!(pricing.list_price.to_string(), "5");
    assert_eq!(pricing.contracted_price.to_string(), "4.75");
    assert_eq!(pricing.quantity.to_string(), "8.4");
    assert_eq!(pricing.consumed.unwrap().0.to_string(), "8400000");
    assert_eq!(texts(&row.costs), ["42", "39.9", "39.9", "39.9"]);
    assert_eq!(row.tags.as_deref(), Some(r#"{"team":"search"}"#));
    assert_eq!(row.allocation, None);
    assert_eq!(row.frequency, "Usage-Based");
}

#[test]
fn parts_of_a_split_charge_share_its_price_and_add_up_to_it() {
    let parts =
        [split("a", "10", 2_000_000), split("b", "20.000001", 1_000_001), split("c", "0", 0)];
    let rows = World::new().rows(&parts, "2026-11");
    let prices: Vec<_> =
        rows.iter().map(|r| r.pricing.as_ref().unwrap().contracted_price).collect();
    assert!(prices.windows(2).all(|pair| pair[0] == pair[1]), "{prices:?}");
    let ratios: Vec<_> = rows
        .iter()
        .map(|row| {
            let details = &row.allocation.as_ref().unwrap().details;
            let ratio = details.split(['{', ':', ',', '}']).nth(4).unwrap();
            Quantity::parse(ratio).unwrap().pico()
        })
        .collect();
    assert_eq!(ratios.iter().sum::<i128>(), Quantity::ONE);
    assert_eq!(ratios[2], 0);
    assert_eq!(
        rows[0].allocation.as_ref().unwrap().details,
        r#"{"Elements":[{"AllocatedRatio":0.333333322222,"UsageQuantity":2000000,"UsageUnit":"Tokens"}]}"#
    );
    let origins: Vec<_> = rows.iter().map(|r| &r.allocation.as_ref().unwrap().origin).collect();
    assert!(origins.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn a_day_without_a_bill_is_left_out_or_marked() {
    let world = World::new();
    let unbilled = [revision("search", None, 8_400_000)];
    let month = Month::parse("2026-11").unwrap();
    let left = rows_of_unit(&unbilled, month, &world.context(Estimates::LeaveOut)).unwrap();
    assert_eq!((left.rows.len(), left.unbilled), (0, 1));
    let marked = rows_of_unit(&unbilled, month, &world.context(Estimates::Mark)).unwrap();
    assert_eq!(marked.rows[0].custom.basis, Basis::Estimated);
    // $40 for 8.4 million tokens: the price is rounded, the cost is not.
    assert_eq!(texts(&marked.rows[0].costs), ["42", "40.000002", "40", "0"]);
    assert_eq!(marked.rows[0].invoice, None);
}

#[test]
fn a_cost_without_a_quantity_is_counted_in_dollars() {
    let whole = with(revision("search", Some("3.21"), 0), |r| {
        r.line.meter = Meter::Whole;
        r.line.model = "Vercel Functions".into();
        r.content.billed_quantity = None;
    });
    let lost = with(revision("b", Some("1"), 0), |r| r.content.metered = Quantity::default());
    for row in World::new().rows(&[whole, lost], "2026-11") {
        let pricing = row.pricing.as_ref().unwrap();
        assert_eq!((pricing.unit, pricing.list_price.to_string().as_str()), ("USD", "1"));
        assert_eq!(pricing.quantity.pico(), row.costs.billed.pico());
        assert_eq!(row.costs.list, row.costs.billed);
    }
}

#[test]
fn every_kind_of_charge_has_its_category_and_costs() {
    let row = |kind, tier: &str, amount| {
        let line = with(revision("t", Some(amount), 0), |r| {
            r.line.kind = kind;
            r.line.tier = tier.into();
            r.line.meter = Meter::Whole;
        });
        let rows = World::new().rows(&[line], "2026-11");
        let [row] = rows.as_slice() else { panic!("{rows:?}") };
        (row.category.as_str(), texts(&row.costs).join(" "), row.pricing.is_some())
    };
    use ChargeKind::*;
    let all = |amount: &str| [amount; 4].join(" ");
    assert_eq!(row(Purchase, "prepaid", "500"), ("Purchase", "500 500 0 500".into(), true));
    assert_eq!(row(Purchase, "standard", "500"), ("Purchase", all("500"), true));
    assert_eq!(row(Seat, "standard", "19"), ("Purchase", all("19"), true));
    assert_eq!(row(Tax, "standard", "1.9"), ("Tax", all("1.9"), false));
    assert_eq!(row(Credit, "standard", "-5"), ("Credit", all("-5"), false));
    assert_eq!(row(Credit, "prepaid", "-5"), ("Adjustment", "0 0 0 -5".into(), false));
    for kind in [MinimumFee, Discount, Refund, Adjustment] {
        assert_eq!(row(kind, "standard", "-1"), ("Adjustment", all("-1"), false));
    }
}

#[test]
fn use_drawn_from_a_balance_is_not_billed_again() {
    let mut world = World::new();
    let prepaid = Some(Prepaid { id: "bal-1".into(), name: "Balance".into() });
    let account = Account { name: Some("Acme".into()), prepaid };
    world.accounts.insert(("openai".into(), "org-1".into()), account);
    let usage = revision("search", Some("42"), 8_400_000);
    let row = &world.rows(std::slice::from_ref(&usage), "2026-11")[0];
    assert_eq!(texts(&row.costs), ["42", "42", "42", "0"]);
    assert!(row.commitment.as_ref().unwrap().used);
    let draw = with(usage, |r| {
        r.line.kind = ChargeKind::Credit;
        r.line.tier = PREPAID_TIER.into();
    });
    let month = Month::parse("2026-11").unwrap();
    let error = rows_of_unit(&[draw], month, &world.context(Estimates::LeaveOut)).unwrap_err();
    assert!(error.to_string().contains("`org-1`"));
}

#[test]
fn unmetered_use_names_its_credential() {
    let leaked = with(revision("x", Some("5"), 1_000_000), |r| {
        r.line.owner = BTreeMap::from([("unmetered".into(), "key_9".into())]);
        r.content.method = "unowned".into();
    });
    let row = &World::new().rows(&[leaked], "2026-11")[0];
    assert_eq!(row.custom.unmetered.as_deref(), Some("key_9"));
    assert!(row.description.ends_with("outside the gateway"));
}

/// What a closed month said, and what a later bill says of it.
fn corrected() -> Vec<Revision> {
    let later = |rev, month: &str, earlier: Revision| {
        with(earlier, |r| {
            r.rev = rev;
            r.cause = "correction".into();
            r.booked_in = Some(month.into());
        })
    };
    vec![
        split("a", "10", 2_000_000),
        split("b", "20", 4_000_000),
        later(2, "2026-12", split("b", "15", 3_000_000)),
        later(3, "2027-01", split("b", "16", 3_000_000)),
        revision("unchanged", Some("5"), 1_000_000),
    ]
}

#[test]
fn a_closed_month_never_changes() {
    let world = World::new();
    let before = [split("a", "10", 2_000_000), split("b", "20", 4_000_000)];
    let all = corrected();
    let unchanged: Vec<_> = world.rows(&all, "2026-11");
    assert!(world.rows(&before, "2026-11").iter().all(|row| unchanged.contains(row)));
    assert_eq!(unchanged.len(), 3);
    assert_eq!(world.rows(&all, "2026-10"), []);
    assert_eq!(world.rows(&all, "2027-02"), []);
}

#[test]
fn a_correction_reverses_what_was_exported_and_restates_it() {
    let world = World::new();
    let rows = world.rows(&corrected(), "2026-12");
    let seen: Vec<_> = rows
        .iter()
        .map(|row| (row.correction.unwrap().as_str(), row.costs.billed.to_string()))
        .collect();
    // Both parts of the split charge: the ratios of the unchanged one are others now.
    assert_eq!(
        seen,
        [
            ("Reversal", "-10".to_owned()),
            ("Restatement", "10".to_owned()),
            ("Reversal", "-20".to_owned()),
            ("Restatement", "15".to_owned())
        ]
    );
    assert!(rows.iter().all(|row| row.billing == Month::parse("2026-12").unwrap()));
    assert!(rows.iter().all(|row| row.start.to_string().starts_with("2026-11-20")));
    let second = world.rows(&corrected(), "2027-01");
    let sum: i128 = second.iter().map(|row| row.costs.billed.pico()).sum();
    assert_eq!(Usd::from_pico(sum).to_string(), "1");
}

#[test]
fn charges_find_their_invoice_in_the_month_they_are_billed_in() {
    let mut world = World::new();
    for (invoice, month) in [("INV-11", "2026-11"), ("INV-12", "2026-12")] {
        let line: BillLine = serde_json::from_str(&format!(
            r#"{{"provider":"openai","account":"org-1","start":0,"end":1,"kind":"usage","service":"s",
             "description":"d","meter":"input","amount":"1","invoice_id":"{invoice}"}}"#
        ))
        .unwrap();
        world.invoices.add(&line, Month::parse(month).unwrap()).unwrap();
    }
    let invoice = |month| world.rows(&corrected(), month)[0].invoice.clone();
    assert_eq!(invoice("2026-11").as_deref(), Some("INV-11"));
    assert_eq!(invoice("2026-12"), None, "a correction is on no invoice that is known");
}

#[test]
fn a_list_amount_of_the_bill_is_the_list_price_where_the_book_has_none() {
    let of = |team: &str, billed, list: Option<&str>, model: &str, tokens| {
        with(split(team, billed, tokens), |r| {
            r.line.model = model.into();
            r.content.list = list.map(|list| list.parse().unwrap());
        })
    };
    let told = |parts: &[Revision]| -> Vec<String> {
        let row = |row: &FocusRow| {
            let pricing = row.pricing.as_ref().unwrap();
            let [list, contracted, ..] = texts(&row.costs);
            let unit = pricing.contracted_price;
            format!("{} {} at {}: {list}, {contracted}", pricing.quantity, pricing.unit, unit)
        };
        World::new().rows(parts, "2026-11").iter().map(row).collect()
    };
    let known = [of("a", "39.9", Some("50"), "gpt-5", 8_400_000)];
    assert_eq!(told(&known), ["8.4 1000000 Tokens at 4.75: 42, 39.9"]);
    let ours = [of("a", "39.9", Some("50.4"), "ours", 8_400_000)];
    assert_eq!(told(&ours), ["8.4 1000000 Tokens at 4.75: 50.4, 39.9"]);
    // Nothing was counted: dollars before discounts are.
    let whole = [of("a", "9", Some("10"), "ours", 0), of("b", "18", Some("20"), "ours", 0)];
    assert_eq!(told(&whole), ["10 USD at 0.9: 10, 9", "20 USD at 0.9: 20, 18"]);
    assert_eq!(told(&[of("a", "0", Some("40"), "ours", 0)]), ["40 USD at 0: 40, 0"]);
    // A list amount of the other sign is no price.
    assert_eq!(told(&[of("a", "1", Some("-1"), "ours", 0)]), ["1 USD at 1: 1, 1"]);
}

#[test]
fn damaged_ledger_rows_are_refused_by_name() {
    let world = World::new();
    let context = world.context(Estimates::LeaveOut);
    let good = revision("a", Some("1"), 1);
    let fails = |revisions: &[Revision]| {
        rows_of_unit(revisions, Month::parse("2026-11").unwrap(), &context).unwrap_err().to_string()
    };
    assert!(fails(&[with(good.clone(), |r| r.unit.day = "20th".into())]).contains("`day`"));
    let other = with(good.clone(), |r| r.unit.day = "2026-11-21".into());
    assert!(fails(&[good.clone(), other]).contains("acme#2026-11-21#openai"));
    assert!(fails(&[with(good.clone(), |r| r.booked_in = Some("soon".into()))]).contains("`soon`"));
    let huge = |team| {
        with(split(team, "1", 1), |r| {
            r.content.billed_quantity = Some(Quantity::from_pico(i128::MAX));
        })
    };
    assert!(fails(&[huge("a"), huge("b")]).contains("does not fit"));
}

proptest! {
    #[test]
    fn billed_costs_always_add_up_to_the_ledger_and_identities_hold(
        lines in prop::collection::vec((
            0_i128..10_i128.pow(16), 0_i128..10_i128.pow(20), any::<[bool; 3]>(), 0_i128..10_i128.pow(16)
        ), 1..20),
    ) {
        let revisions: Vec<_> = lines
            .iter()
            .enumerate()
            .map(|(place, (billed, quantity, [split, whole, discounted], list))| {
                with(revision(&format!("t{place}"), Some("0"), 0), |r| {
                    r.content.billed = Some(Usd::from_pico(*billed));
                    r.content.billed_quantity = Some(Quantity::from_pico(*quantity));
                    r.content.list = discounted.then(|| Usd::from_pico(*list));
                    if *whole {
                        r.line.meter = Meter::Whole;
                    }
                    if *split {
                        r.content.method = "proportional".into();
                    }
                })
            })
            .collect();
        let rows = World::new().rows(&revisions, "2026-11");
        let billed: i128 = rows.iter().map(|row| row.costs.billed.pico()).sum();
        prop_assert_eq!(billed, lines.iter().map(|line| line.0).sum::<i128>());
        let found = check_rows(&rows, Version::V1_4, None);
        prop_assert!(found.is_clean(), "{:?}", found.problems);
        for row in &rows {
            let pricing = row.pricing.as_ref().unwrap();
            let micro = |pico: i128| { assert_eq!(pico % 1_000_000, 0); pico / 1_000_000 };
            if pricing.unit != "USD" || pricing.list_price != pricing.contracted_price {
                let quantity = micro(pricing.quantity.pico());
                prop_assert_eq!(micro(pricing.list_price.pico()) * quantity, row.costs.list.pico());
                prop_assert_eq!(micro(pricing.contracted_price.pico()) * quantity, row.costs.contracted.pico());
            }
        }
    }
}

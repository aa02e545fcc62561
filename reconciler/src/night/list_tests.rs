//! What a bill comes to before discounts, owner by owner.

use serde_json::json;
use tallygate_shared::money::Usd;

use super::read::Estimate;
use super::settle_tests::{bill, estimate, line, settled, uncertain};
use super::*;
use crate::bill::{BillLine, Meter};
use crate::ledger::LineId;

#[test]
fn what_the_bill_comes_to_before_discounts_is_divided_as_the_bill_is() {
    let of = |lines: Vec<BillLine>, estimates: Vec<Estimate>| {
        let outcome =
            settled(&UnitInput { bill: bill(lines, vec![]), estimates }, &Options::default());
        let told = |(line, row): &(LineId, crate::ledger::Content)| {
            let usd = |amount: Option<Usd>| amount.map_or("-".to_owned(), |usd| usd.to_string());
            let whose = line.owner.values().next().cloned().unwrap_or_default();
            format!("{whose} {} {}", usd(row.billed), usd(row.list))
        };
        outcome.rows.iter().map(told).collect::<Vec<_>>()
    };
    let used = |amount: &str, list: &str| {
        line(
            json!({"model": "m", "quantity": "300", "unit": "Tokens", "amount": amount, "list_amount": list}),
        )
    };
    let two = || {
        vec![
            estimate("ann", "m", Meter::Input, "1", 100),
            estimate("bob", "m", Meter::Input, "2", 200),
        ]
    };
    // Also where a discount takes all of it, and nothing is kept where there is none.
    assert_eq!(
        of(vec![used("0", "40")], two()),
        ["ann 0 13.333333333333", "bob 0 26.666666666667"]
    );
    assert_eq!(of(vec![used("3", "3")], two()), ["ann 1 -", "bob 2 -"]);
    // Half of what nobody was estimated for is put down to a request of unknown use.
    let unknown = vec![uncertain("cy", "m", "0", "15")];
    assert_eq!(of(vec![used("30", "40")], unknown), ["org 15 20", "cy 15 20"]);
}

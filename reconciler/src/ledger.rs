//! The rows of the books: for one workspace, day and provider, what each owner was estimated, what of the bill is
//! theirs, and why the two differ.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
pub use tallygate_shared::hex::hex;
use tallygate_shared::money::Usd;

use crate::bill::{ChargeKind, Meter, Quantity};

/// The unit of work and of consistency: one workspace, UTC day and provider.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnitId {
    /// The workspace.
    pub workspace: String,
    /// The day, `YYYY-MM-DD`.
    pub day: String,
    /// The provider, as the price book names it; for harness costs, who bills.
    pub provider: String,
}

impl fmt::Display for UnitId {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{}#{}#{}", self.workspace, self.day, self.provider)
    }
}

/// One line of a unit: what the money is for, and whose it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LineId {
    /// The billed account.
    pub account: String,
    /// The model; for costs without one, the service.
    pub model: String,
    /// What was measured.
    pub meter: Meter,
    /// The service tier: `standard` where nobody says otherwise.
    pub tier: String,
    /// The kind of charge.
    pub kind: ChargeKind,
    /// Whose: `team`, `app`, `feature`, `agent`, `user`, `customer`, `environment`, `key`, `owner`, `cost_centre`, as far
    /// as known. Empty for costs nobody owns. [`UNMETERED`] marks use that the gateway never saw.
    pub owner: BTreeMap<String, String>,
}

/// The owner dimension that marks use the gateway never saw: `{"unmetered": "<credential or account>"}`.
pub const UNMETERED: &str = "unmetered";

impl LineId {
    /// The line's name in a store: 128 bits of SHA-256 over its length-prefixed parts, in hexadecimal.
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        let mut part = |text: &str| {
            hash.update((text.len() as u64).to_be_bytes());
            hash.update(text.as_bytes());
        };
        part(&self.account);
        part(&self.model);
        part(&format!("{:?}", self.meter));
        part(&self.tier);
        part(&format!("{:?}", self.kind));
        for (name, value) in &self.owner {
            part(name);
            part(value);
        }
        hex(hash.finalize().get(..16).unwrap_or_default())
    }
}

/// What a line says. Two revisions with equal content are the same statement: no clock and no run's name is in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Content {
    /// What the gateway had estimated.
    pub estimated: Usd,
    /// What the gateway had counted, in units of the meter (tokens, calls; nothing for [`Meter::Whole`]).
    pub metered: Quantity,
    /// Requests behind it. Counted on one meter of a request only, so that sums are right.
    pub requests: u64,
    /// The owner's part of what the provider billed. The parts of a unit add up to the bill exactly. `None` until
    /// there is a bill for the day: then the estimate is all there is.
    pub billed: Option<Usd>,
    /// The owner's part of what the provider measured.
    pub billed_quantity: Option<Quantity>,
    /// The owner's part of what the bill comes to before discounts, where the provider states it. `None`: as billed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub list: Option<Usd>,
    /// The part of `billed - estimated` that other quantities explain.
    pub quantity_variance: Usd,
    /// The part that other prices explain. The two parts add up to the whole.
    pub price_variance: Usd,
    /// True while the provider may still change the bill.
    pub provisional: bool,
    /// The version of the price book behind the estimate.
    pub price_version: String,
    /// The content address of the bill behind it (see `ports::ObjectStore`), empty without a bill.
    pub source: String,
    /// How the bill was allocated: `proportional`, `direct`, `tag`, `unowned`, `uncertain` (put down to requests whose
    /// usage is not known), `unbilled` (there is no bill yet), `withdrawn` (the line is no longer there).
    pub method: String,
}

impl Content {
    /// SHA-256 of the content as canonical JSON, in hexadecimal.
    pub fn hash(&self) -> String {
        // Serialising a struct of plain values cannot fail; an empty text would only make two hashes equal.
        let text = serde_json::to_string(self).unwrap_or_default();
        hex(Sha256::digest(text.as_bytes()).as_slice())
    }
}

/// One revision of a line. Never changed, never deleted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revision {
    /// The unit.
    pub unit: UnitId,
    /// The line.
    pub line: LineId,
    /// 1 for the first; the newest counts.
    pub rev: u32,
    /// The number of the pull behind it: an older pull never overrules a newer one.
    pub seq: u64,
    /// Why there is a new revision: `first`, `bill_changed`, `usage_changed`, `prices_changed`, `correction`.
    pub cause: String,
    /// The run that wrote it, for people. Not part of the content.
    pub run: String,
    /// The open month that a change of a closed month is booked in (`2026-12`): set on corrections only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub booked_in: Option<String>,
    /// What it says.
    pub content: Content,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(owner: &[(&str, &str)]) -> LineId {
        LineId {
            account: "org".into(),
            model: "m".into(),
            meter: Meter::Input,
            tier: "standard".into(),
            kind: ChargeKind::Usage,
            owner: owner.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
        }
    }

    #[test]
    fn a_content_without_a_list_amount_is_what_it_was_before_there_was_one() {
        let before = r#"{"estimated":"1","metered":"7","requests":3,"billed":"2","billed_quantity":null,"quantity_variance":"0","price_variance":"1","provisional":false,"price_version":"v1","source":"s","method":"direct"}"#;
        let mut content: Content = serde_json::from_str(before).unwrap();
        assert_eq!(content.list, None);
        assert_eq!(serde_json::to_string(&content).unwrap(), before);
        let hash = content.hash();
        content.list = Some("3".parse().unwrap());
        assert_ne!(content.hash(), hash);
    }

    #[test]
    fn owners_that_read_alike_have_lines_of_their_own() {
        let digests = [
            line(&[]).digest(),
            line(&[("team", "ab")]).digest(),
            line(&[("team", "a"), ("user", "b")]).digest(),
            line(&[("teama", "b")]).digest(),
        ];
        assert_eq!(digests.iter().collect::<std::collections::BTreeSet<_>>().len(), 4);
        assert!(digests.iter().all(|digest| digest.len() == 32));
    }
}

//! Prices as bills have them: proposed to a person, or applied from the next day on when the workspace says so.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tallygate_shared::feedback::{PriceCorrection, PriceCorrections};
use tallygate_shared::hex::hex;
use tallygate_shared::pricing::{Day, PriceBook, PriceRow};
use tallygate_shared::time::{DAY_MS, Timestamp};

use super::{Answer, Api, list};
use crate::admin::call::Step;
use crate::admin::config::Config;
use crate::admin::problem::Problem;
use crate::objects::sql::{Sql, SqlError, text};
use crate::objects::workspace_object::{Delivery, Refused};
use crate::providers::catalog::{bill_name, price_book_name};

impl<S: Sql> Api<'_, S> {
    pub(super) fn bring_price_corrections(&mut self) -> Answer {
        let corrections: Vec<PriceCorrection> = self.items()?;
        let apply = self.workspace.config().reconciler.price_corrections == PriceCorrections::Apply;
        let mut config = self.workspace.config().clone();
        let mut proposed = 0_u64;
        let mut applied = 0_u64;
        for correction in &corrections {
            let id = id_of(correction);
            // What a person turned down stays turned down. What was applied is proposed again when another price has
            // taken its place since.
            let state = self.proposal(&id)?.map(|(state, _)| state);
            let holds = || is_in_force(&config, correction, self.context.now);
            match state.as_deref() {
                Some("dismissed") => continue,
                Some("applied") if holds() => continue,
                _ => {}
            }
            let with_it = apply.then(|| self.with_price(&config, correction)).and_then(Result::ok);
            let state = if with_it.is_some() { "applied" } else { "proposed" };
            self.save_proposal(&id, state, correction)?;
            match with_it {
                Some(with_it) => {
                    config = with_it;
                    applied += 1;
                }
                None => proposed += 1,
            }
        }
        let delivery = if applied > 0 {
            let secrets = self.workspace.secrets().clone();
            self.workspace.change(config, secrets, self.principal, self.context)?
        } else {
            Delivery::default()
        };
        let body = json!({ "taken": corrections.len(), "proposed": proposed, "applied": applied });
        Ok(self.answered(&body, delivery))
    }

    /// The configuration with a billed price in it for every provider that it is for, checked: one that cannot be had as
    /// a whole is left to a person, and stands in no other's way.
    fn with_price(&self, config: &Config, correction: &PriceCorrection) -> Result<Config, Problem> {
        let mut config = config.clone();
        put_price(&mut config, correction, self.context.now)?;
        config.validate()?;
        self.workspace.check_plan_size(&config, self.workspace.secrets())?;
        Ok(config)
    }

    pub(super) fn price_proposals(&self) -> Answer {
        let select = "SELECT id, state, at, by, body FROM price_proposals ORDER BY at DESC, id";
        let rows = self.workspace.exec(select, &[])?;
        let shown = rows.iter().map(|row| {
            let body: Value = serde_json::from_str(text(row, 4)?)
                .map_err(|e| SqlError(format!("stored proposal: {e}")))?;
            let by = row.get(3).cloned().flatten();
            Ok(json!({ "id": text(row, 0)?, "state": text(row, 1)?, "at": text(row, 2)?, "by": by,
                       "correction": body }))
        });
        Ok(list(shown.collect::<Result<_, SqlError>>()?))
    }

    pub(super) fn apply_price_proposal(&mut self, id: &str) -> Answer {
        let correction = self.open_proposal(id)?;
        let now = self.context.now;
        let answer = self.edit(|config, _| {
            put_price(config, &correction, now)?;
            Ok(json!({ "id": id, "state": "applied", "correction": correction }))
        })?;
        self.save_proposal(id, "applied", &correction)?;
        Ok(answer)
    }

    pub(super) fn dismiss_price_proposal(&mut self, id: &str) -> Answer {
        let correction = self.open_proposal(id)?;
        self.save_proposal(id, "dismissed", &correction)?;
        let change = json!({ "before": correction });
        let path = format!("price_proposals.{id}");
        self.workspace.audit(self.principal, "dismissed", &path, &change, self.context.now)?;
        let body = json!({ "id": id, "state": "dismissed", "correction": correction });
        Ok(Step::json(self.spec.status, &body))
    }

    fn open_proposal(&self, id: &str) -> Result<PriceCorrection, Refused> {
        let (state, body) =
            self.proposal(id)?.ok_or_else(|| Problem::not_found("price proposal", id))?;
        if state == "proposed" {
            let unreadable = |e: serde_json::Error| SqlError(format!("stored proposal: {e}"));
            return Ok(serde_json::from_str(&body).map_err(unreadable)?);
        }
        let detail = format!("The proposal was {state} already.");
        Err(Problem::new(409, "already_decided", detail).into())
    }

    fn proposal(&self, id: &str) -> Result<Option<(String, String)>, SqlError> {
        let select = "SELECT state, body FROM price_proposals WHERE id = ?";
        let rows = self.workspace.exec(select, &[Some(id)])?;
        let known = rows.first().map(|row| Ok((text(row, 0)?.into(), text(row, 1)?.into())));
        known.transpose()
    }

    fn save_proposal(
        &self,
        id: &str,
        state: &str,
        correction: &PriceCorrection,
    ) -> Result<(), SqlError> {
        let upsert = "INSERT OR REPLACE INTO price_proposals (id, state, at, by, body) VALUES (?, ?, ?, ?, ?)";
        let (at, body) = (self.context.now.to_string(), json!(correction).to_string());
        let params = [id, state, &at, &self.principal.who, &body].map(Some);
        self.workspace.exec(upsert, &params).map(|_| ())
    }
}

/// The same price for the same thing is the same proposal, whatever the day.
fn id_of(correction: &PriceCorrection) -> String {
    let PriceCorrection { provider, model, tier, meter, billed_per_million, .. } = correction;
    let name = json!([provider, model, tier, meter, billed_per_million]).to_string();
    let digest = Sha256::digest(name.as_bytes());
    format!("pp_{}", hex(digest.iter().take(12)))
}

/// Whether all of the workspace's own prices that hold from tomorrow on are the billed one.
fn is_in_force(config: &Config, correction: &PriceCorrection, now: Timestamp) -> bool {
    let start = now.plus_ms(DAY_MS).date().midnight();
    let mut asked = config.clone();
    put_price(&mut asked, correction, now).is_err()
        || asked.prices.iter().all(|(name, row)| {
            let before = config.prices.get(name);
            !row.is_effective(start)
                || before.is_some_and(|before| before.prices == row.prices)
                || config.prices.values().any(|known| {
                    known.provider == row.provider
                        && known.model == row.model
                        && known.is_effective(start)
                        && known.prices == row.prices
                })
        })
}

/// Puts a billed price into the configuration, for every provider that is billed by this price, from the next day on:
/// what was rated today stays as it was rated.
fn put_price(
    config: &mut Config,
    correction: &PriceCorrection,
    now: Timestamp,
) -> Result<(), Problem> {
    let from = now.plus_ms(DAY_MS).date().to_string();
    let day = || Day::try_from(from.clone()).ok();
    let book = PriceBook::built_in()
        .map_err(|error| Problem::new(500, "gateway_error", error.to_string()))?;
    let providers = config.providers.iter();
    let billed = providers.filter(|(_, provider)| bill_name(&provider.kind) == correction.provider);
    let billed: Vec<(String, Option<&str>)> =
        billed.map(|(name, it)| (name.clone(), price_book_name(&it.kind))).collect();
    if billed.is_empty() {
        let remedy = "Configure a provider of this kind first.";
        return Err(Problem::field("provider", "is none of this workspace's", remedy));
    }
    let start = now.plus_ms(DAY_MS).date().midnight();
    for (name, listed_as) in billed {
        let own = config.prices.iter().find(|(_, row)| {
            row.provider == name && row.model == correction.model && row.is_effective(start)
        });
        let own = own.map(|(key, row)| (key.clone(), row.clone()));
        let listed = || book.find(listed_as?, &correction.model, start).cloned();
        let base = own.as_ref().map(|(_, row)| row.clone()).or_else(listed);
        let mut row = base
            .unwrap_or_else(|| PriceRow { model: correction.model.clone(), ..PriceRow::default() });
        row.provider.clone_from(&name);
        set_price(&mut row, correction)?;
        let key = format!("{name}/{}@{from}", correction.model);
        if let Some((known, _)) = own.filter(|(known, _)| *known != key)
            && let Some(earlier) = config.prices.get_mut(&known)
        {
            earlier.effective_to = day();
        }
        row.effective_from = day();
        // What is planned for a later day comes into force then, as it is.
        let planned = config.prices.values().filter(|planned| {
            planned.provider == row.provider
                && planned.model == row.model
                && planned.effective_from > row.effective_from
        });
        let planned = planned.filter_map(|planned| planned.effective_from).min();
        row.effective_to = row.effective_to.into_iter().chain(planned).min();
        config.prices.insert(key, row);
    }
    Ok(())
}

fn set_price(row: &mut PriceRow, correction: &PriceCorrection) -> Result<(), Problem> {
    let price = correction.billed_per_million;
    let prices = row.prices.entry(correction.tier.clone()).or_default();
    match correction.meter.as_str() {
        "input" => prices.input = Some(price),
        "output" => prices.output = Some(price),
        "cache_read" => prices.cache_read = Some(price),
        "cache_write" if prices.cache_write.len() == 1 => {
            for written in prices.cache_write.values_mut() {
                *written = price;
            }
        }
        _ => {
            let detail = "has no single price in this model's row";
            let remedy = "Set the price by hand under /prices, then dismiss the proposal.";
            return Err(Problem::field("meter", detail, remedy));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn correction(meter: &str, price: &str) -> PriceCorrection {
        serde_json::from_value(json!({
            "provider": "openai", "model": "gpt-6-luna", "tier": "standard", "meter": meter,
            "ours_per_million": "0.1", "billed_per_million": price, "day": "2026-11-20", "tokens": 5, "effect": "1" }))
        .unwrap()
    }

    fn config() -> Config {
        serde_json::from_value(json!({ "providers": { "eu": { "kind": "openai" } } })).unwrap()
    }

    #[test]
    fn a_billed_price_holds_from_the_next_day_on_and_keeps_the_rest_of_the_row() {
        let mut config = config();
        let now = Timestamp::parse("2026-11-21T10:00:00Z").unwrap();
        put_price(&mut config, &correction("input", "0.12"), now).unwrap();
        put_price(&mut config, &correction("output", "0.6"), now).unwrap();
        let row = &config.prices["eu/gpt-6-luna@2026-11-22"];
        let prices = &row.prices["standard"];
        let shown =
            [prices.input, prices.output, prices.cache_read].map(|p| p.unwrap().to_string());
        assert_eq!(shown, ["0.12", "0.6", "0.01"]);
        assert!(!row.is_effective(now) && row.is_effective(now.plus_ms(DAY_MS)));
        // The next correction ends this one.
        let later = now.plus_ms(3 * DAY_MS);
        put_price(&mut config, &correction("input", "0.13"), later).unwrap();
        assert_eq!(config.prices.len(), 2);
        let in_force =
            config.prices.values().filter(|row| row.is_effective(later.plus_ms(DAY_MS))).count();
        assert_eq!(in_force, 1);
        config.validate().unwrap();
    }

    #[test]
    fn a_price_that_came_back_is_known_to_be_another_than_the_one_in_force() {
        let mut config = config();
        let now = Timestamp::parse("2026-11-21T10:00:00Z").unwrap();
        let (one, other) = (correction("input", "0.12"), correction("input", "0.13"));
        assert!(!is_in_force(&config, &one, now));
        put_price(&mut config, &one, now).unwrap();
        assert!(is_in_force(&config, &one, now));
        let later = now.plus_ms(3 * DAY_MS);
        assert!(is_in_force(&config, &one, later) && !is_in_force(&config, &other, later));
        put_price(&mut config, &other, later).unwrap();
        assert!(!is_in_force(&config, &one, later) && is_in_force(&config, &other, later));
    }

    #[test]
    fn a_price_ends_where_one_that_is_planned_begins() {
        let mut config = config();
        let now = Timestamp::parse("2026-11-21T10:00:00Z").unwrap();
        let book = PriceBook::built_in().unwrap();
        let listed = book.find("openai", "gpt-6-luna", now).unwrap().clone();
        for start in ["2026-12-01", "2027-01-01"] {
            let mut planned = PriceRow { provider: "eu".to_owned(), ..listed.clone() };
            planned.effective_from = Day::try_from(start.to_owned()).ok();
            planned.effective_to = Day::try_from("2027-01-01".to_owned()).ok();
            planned.effective_to =
                planned.effective_to.filter(|end| Some(*end) > planned.effective_from);
            config.prices.insert(format!("eu/gpt-6-luna@{start}"), planned);
        }
        config.validate().unwrap();
        let planned = config.prices.clone();
        put_price(&mut config, &correction("input", "0.12"), now).unwrap();
        config.validate().unwrap();
        let row = config.prices.remove("eu/gpt-6-luna@2026-11-22").unwrap();
        assert_eq!(row.effective_to, planned["eu/gpt-6-luna@2026-12-01"].effective_from);
        assert_eq!(config.prices, planned);
    }

    #[test]
    fn a_bill_of_one_seller_prices_no_other_that_the_book_lists_alike() {
        let azure = json!({ "kind": "azure", "base_url": "https://acme.openai.azure.com" });
        let providers = json!({ "eu": { "kind": "openai" }, "foundry": azure });
        let known: Config = serde_json::from_value(json!({ "providers": providers })).unwrap();
        let now = Timestamp::parse("2026-11-21T10:00:00Z").unwrap();
        for (provider, priced) in [("openai", "eu"), ("azure", "foundry")] {
            let mut config = known.clone();
            let of =
                PriceCorrection { provider: provider.to_owned(), ..correction("input", "0.12") };
            put_price(&mut config, &of, now).unwrap();
            let names: Vec<&String> = config.prices.keys().collect();
            assert_eq!(names, [&format!("{priced}/gpt-6-luna@2026-11-22")]);
            // The rest of the row is the book's.
            let row = config.prices.values().next().unwrap();
            assert_eq!(row.prices["standard"].output.unwrap().to_string(), "0.5");
        }
    }

    #[test]
    fn a_price_that_has_no_place_is_refused() {
        let now = Timestamp::parse("2026-11-21T10:00:00Z").unwrap();
        assert!(put_price(&mut config(), &correction("cache_write", "1"), now).is_err());
        assert!(put_price(&mut Config::default(), &correction("input", "1"), now).is_err());
    }
}

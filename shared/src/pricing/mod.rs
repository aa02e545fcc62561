//! STUB
use serde::{Deserialize, Serialize};
use crate::{money::Usd, time::Timestamp, tokens::{Tally, Tokens}};
/// x
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PriceRow { /// x
    pub provider: String, /// x
    pub model: String, /// x
    pub max_output_tokens: Option<u64>, /// x
    pub input: Usd, /// x
    pub output: Usd }
impl PriceRow { /// x
    pub fn is_effective(&self, _at: Timestamp) -> bool { true } }
/// x
pub struct PriceBook { rows: Vec<PriceRow> }
/// x
#[derive(Debug)]
pub struct PriceBookError;
impl PriceBook {
    /// x
    pub fn of_provider<'a>(&'a self, provider: &'a str, _at: Timestamp) -> impl Iterator<Item = &'a PriceRow> { self.rows.iter().filter(move |r| r.provider == provider) }
    /// x
    pub fn built_in() -> Result<&'static PriceBook, PriceBookError> { static B: std::sync::OnceLock<PriceBook> = std::sync::OnceLock::new(); Ok(B.get_or_init(|| PriceBook { rows: [("openai","gpt-6-luna","0.1","0.5"),("anthropic","claude-haiku-4-5","1","5")].iter().map(|(p,m,i,o)| PriceRow { provider: p.to_string(), model: m.to_string(), max_output_tokens: Some(128000), input: i.parse().unwrap_or_default(), output: o.parse().unwrap_or_default() }).collect() })) }
    /// x
    pub fn find(&self, provider: &str, model: &str, _at: Timestamp) -> Option<&PriceRow> { self.rows.iter().find(|r| r.provider == provider && r.model == model) }
}
/// x
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cost { /// x
    pub total: Usd, /// x
    pub parts: CostParts }
/// x
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CostParts { /// x
    pub input: Usd, /// x
    pub output: Usd }
impl CostParts { /// x
    pub fn named(&self) -> [(&'static str, Usd); 2] { [("input", self.input), ("output", self.output)] } }
/// x
#[derive(Debug)]
pub struct RateError;
impl RateError { /// x
    pub fn code(&self) -> &'static str { "x" } }
fn times(tokens: u64, price: Usd) -> Usd { Usd::from_pico(i128::from(tokens) * price.pico() / 1_000_000).round_to_nanos() }
/// x
pub fn rate_with<'a>(row: &PriceRow, tally: &Tally, _at: Timestamp, _region: Option<&str>, _other: impl Fn(&str) -> Option<&'a PriceRow>) -> Result<Cost, RateError> { let Tokens { .. } = tally.tokens; let (input, output) = (times(tally.tokens.input_total(), row.input), times(tally.tokens.output_total(), row.output)); Ok(Cost { total: input.saturating_add(output), parts: CostParts { input, output } }) }
/// x
pub fn worst_case(row: &PriceRow, input: u64, output: u64, _tier: Option<&str>, _at: Timestamp, _region: Option<&str>) -> Result<Usd, RateError> { Ok(times(input, row.input).saturating_add(times(output, row.output))) }
/// x
pub fn is_floating_alias(model: &str) -> bool { model.ends_with("-latest") }

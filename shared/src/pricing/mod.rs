//! How much it costs: the versioned price book, the one rating function, and the import of a public price map.

mod import;
mod price_book;
mod rate;
#[cfg(test)]
mod rate_tests;

pub use import::{ImportError, Imported, Skipped, import_litellm};
pub use price_book::{
    Call, Day, Fee, LongContext, Multiplier, OffPeak, PriceBook, PriceBookError, PriceRow, Prices,
    RowError, Window, is_floating_alias,
};
pub use rate::{Cost, CostParts, PriceRef, RateError, rate, rate_stated, rate_with, worst_case};

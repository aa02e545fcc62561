//! What spreadsheets make of the texts of a CSV file.

use crate::money::Usd;

/// Whether a spreadsheet would take a text for a formula: such a text gets an apostrophe in front of it. A number may
/// begin like a formula and is none.
pub fn is_formula(text: &str) -> bool {
    text.starts_with(['=', '+', '-', '@', '\t', '\r']) && text.parse::<Usd>().is_err()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_no_formula() {
        for text in ["=1+1", "+x", "-x", "@cmd", "\t=1", "\r=1", "-12-3"] {
            assert!(is_formula(text), "{text:?}");
        }
        for text in ["", "x=1", "-12", "-0.5", "'=1"] {
            assert!(!is_formula(text), "{text:?}");
        }
    }
}

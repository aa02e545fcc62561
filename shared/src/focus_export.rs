//! The FOCUS export of a month as the reconciler commits it at the edge: which files it has, and where they lie.
//!
//! First each file is uploaded, then the export is committed; what was uploaded and never committed nobody sees. Of several
//! exports of a month the one with the greatest number counts, in whatever order they come.

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// The largest file that is uploaded. A Worker takes bodies of up to 100 MB; what is larger stays where it lies.
pub const MAX_FILE_BYTES: u64 = 90_000_000;
/// Most files of an export. A month has 31 days in four editions, and a handful of whole months.
pub const MAX_FILES: usize = 1_000;
/// Longest name of a file, in bytes.
pub const MAX_FILE_NAME: usize = 128;

/// A month's export.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct FocusExport {
    /// The month, `2026-11`.
    pub month: String,
    /// The number of the export: of several of a month, the one with the greatest counts. The reconciler gives the time it was
    /// made at, in milliseconds since 1970, and never the same twice.
    pub number: u64,
    /// When it was made.
    pub made_at: Timestamp,
    /// Its files.
    pub files: Vec<FocusFile>,
}

/// One file of an export.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct FocusFile {
    /// Its name among those of the month: `focus_1_4-cost_and_usage-2026-11-02.csv`.
    pub file: String,
    /// The FOCUS version: `1.2` or `1.4`.
    pub focus_version: String,
    /// Which table it is of.
    pub table: FocusTable,
    /// How it is written.
    pub format: FileFormat,
    /// The day of the charges in it, where the table is cut by days.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub day: Option<String>,
    /// Rows.
    pub rows: u64,
    /// Bytes.
    pub bytes: u64,
    /// The SHA-256 of its bytes, in hexadecimal.
    pub sha256: String,
    /// Where the reconciler keeps it: an address in its object store, or a path.
    pub place: String,
    /// Whether the edge has it too. What is too large, or has no bucket to go to, lies at `place` alone.
    pub uploaded: bool,
}

/// A table of FOCUS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum FocusTable {
    /// Cost and Usage.
    CostAndUsage,
    /// Invoice Detail.
    InvoiceDetail,
    /// Billing Period.
    BillingPeriod,
}

/// How a file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum FileFormat {
    /// Comma-separated text.
    Csv,
    /// Apache Parquet.
    Parquet,
}

impl FileFormat {
    /// The media type of a download.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Csv => "text/csv; charset=utf-8",
            Self::Parquet => "application/vnd.apache.parquet",
        }
    }
}

/// What became of an upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct FileTaken {
    /// Whether it is stored. The edge stores none where no bucket is bound.
    pub stored: bool,
}

/// Whether this can be a file's name: lower-case letters, digits, `.`, `_` and `-`, the first no sign.
pub fn is_file_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let first = name.bytes().next().is_some_and(plain);
    let rest = name.bytes().all(|byte| plain(byte) || b"._-".contains(&byte));
    first && rest && name.len() <= MAX_FILE_NAME
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn focus_export_format_unchanged() {
        let text = r#"{"month":"2026-11","number":3,"made_at":1795168800000,"files":[{"file":"focus_1_4-cost_and_usage-2026-11-02.csv","focus_version":"1.4","table":"cost_and_usage","format":"csv","day":"2026-11-02","rows":7,"bytes":900,"sha256":"00","place":"s3://books/x","uploaded":true}]}"#;
        let export: FocusExport = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&export).unwrap(), text);
        let unknown = text.replace("\"rows\"", "\"lines\"");
        assert!(serde_json::from_str::<FocusExport>(&unknown).is_err());
    }

    #[test]
    fn names_of_files_are_plain() {
        for good in ["a", "focus_1_4-cost_and_usage-2026-11-02.csv", &"a".repeat(128)] {
            assert!(is_file_name(good), "{good}");
        }
        let long = "a".repeat(129);
        for bad in ["", ".a", "-a", "a/b", "..", "A", "a b", "a\"b", "ä", long.as_str()] {
            assert!(!is_file_name(bad), "{bad}");
        }
    }
}

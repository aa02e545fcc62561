//! FOCUS exports: the reconciler uploads each file and then commits the export; people list and download what is
//! committed.
//!
//! The workspace keeps, of each month, what its newest export has. The files are in the bucket, below
//! `focus/<workspace>/<month>/<number>/`, so that an export that is under way disturbs none that is being read; those of
//! older numbers are deleted when a newer one is committed.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tallygate_shared::focus_export::{
    FileTaken, FocusExport, FocusFile, MAX_FILE_BYTES, MAX_FILES, is_file_name,
};
use tallygate_shared::identity::signature::is_sha256;
use tallygate_shared::time::Date;

use super::reconciler::day_of;
use super::statements::month_of;
use super::{Answer, Api, list};
use crate::admin::call::Step;
use crate::admin::problem::Problem;
use crate::objects::sql::{Sql, SqlError, integer, text};
use crate::request::exchange::printable;

/// The step of the Workspace's schema that brings exports.
pub(in crate::objects) const FOCUS: &str = "
    CREATE TABLE focus_exports (month TEXT PRIMARY KEY, number INTEGER NOT NULL, body TEXT NOT NULL)
";
/// Months in an answer: 24 x about 130 files x 450 bytes = 1.4 MB.
const MOST_MONTHS: u32 = 24;
/// Longest word of where a file lies, in bytes: an object's key may have 1,024.
const MAX_PLACE: usize = 2_048;
/// Longest name of a FOCUS version, in bytes.
const MAX_VERSION: usize = 8;

impl<S: Sql> Api<'_, S> {
    /// Lets a file into the bucket, unread: its hash is signed, and the bucket takes nothing else.
    pub(super) fn store_focus_file(&self, parameters: &[&str]) -> Answer {
        let [month, number, file] = parameters else { return Err(no_file().into()) };
        let (month, number) = (month_of(month)?, number_of(number)?);
        if !is_file_name(file) {
            return Err(file_name("file").into());
        }
        let Some(sha256) = self.context.call.content_sha256.clone().filter(|it| is_sha256(it))
        else {
            let detail = "Send the SHA-256 of the file as x-tallygate-content-sha256, in 64 lower-case hexadecimal digits, \
                          and sign the call with it.";
            return Err(Problem::new(400, "content_hash_missing", detail).into());
        };
        let Some(bytes) = self.context.call.content_length else {
            let detail =
                "Send the file's length as content-length: the bucket must know it beforehand.";
            return Err(Problem::new(411, "length_required", detail).into());
        };
        if bytes > MAX_FILE_BYTES {
            let detail = format!(
                "The file has {bytes} bytes. At most {MAX_FILE_BYTES} are taken: commit it as not uploaded."
            );
            return Err(Problem::new(413, "file_too_large", detail).into());
        }
        let said = |stored| Box::new(Step::json(200, &json!(FileTaken { stored })));
        let differs = "The body is not what was signed, and is not stored. Send the file again.";
        let taken =
            "Another file is stored under this name. Make a new export, with a number of its own.";
        Ok(Step::Store {
            name: format!("{}{file}", self.folder(month, number)?),
            sha256,
            stored: said(true),
            unbound: said(false),
            differs: Box::new(Problem::new(422, "content_differs", differs).into()),
            taken: Box::new(Problem::new(409, "file_differs", taken).into()),
        })
    }

    /// Keeps an export, unless there is a newer one of the month, and lets the files of older ones go.
    pub(super) fn commit_focus_export(&self) -> Answer {
        let export: FocusExport = self.context.call.body()?;
        let month = checked(&export)?;
        let (number, body) = (export.number.to_string(), json!(export).to_string());
        let upsert =
            "INSERT INTO focus_exports (month, number, body) VALUES (?, CAST(? AS INTEGER), ?)
            ON CONFLICT (month) DO UPDATE SET number = excluded.number, body = excluded.body
            WHERE excluded.number >= focus_exports.number";
        self.workspace.exec(upsert, &[Some(&export.month), Some(&number), Some(&body)])?;
        let select = "SELECT CAST(number AS TEXT) FROM focus_exports WHERE month = ?";
        let rows = self.workspace.exec(select, &[Some(&export.month)])?;
        let kept: u64 = rows.first().map_or(Ok(export.number), |row| integer(row, 0))?;
        Ok(Step::Sweep {
            prefix: self.month_folder(month)?,
            before: self.folder(month, kept)?,
            next: Box::new(Step::json(200, &json!({ "number": kept }))),
        })
    }

    pub(super) fn focus_exports(&self) -> Answer {
        let day = |name: &str| {
            let asked = self.context.call.parameter(name);
            asked.map(|text| day_of(name, &text)).transpose()
        };
        let from = day("from")?.map(month_name).unwrap_or_default();
        let last = day("to")?.map(|to| month_name(Date::from_days(to.days() - 1)));
        let select = format!(
            "SELECT body FROM focus_exports WHERE month >= ?1 AND (?2 IS NULL OR month <= ?2)
             ORDER BY month DESC LIMIT {MOST_MONTHS}"
        );
        let rows = self.workspace.exec(&select, &[Some(&from), last.as_deref()])?;
        let shown = |row| -> Result<Value, SqlError> {
            let export = stored(text(row, 0)?)?;
            let mut shown = json!(export);
            // Moments are text in answers.
            if let Some(fields) = shown.as_object_mut() {
                fields.insert("made_at".to_owned(), export.made_at.to_string().into());
            }
            Ok(shown)
        };
        Ok(list(rows.iter().map(shown).collect::<Result<_, _>>()?))
    }

    pub(super) fn focus_file(&self, parameters: &[&str]) -> Answer {
        let [month, name] = parameters else { return Err(no_file().into()) };
        let month = month_of(month)?;
        let select = "SELECT body FROM focus_exports WHERE month = ?";
        let rows = self.workspace.exec(select, &[Some(&month_name(month))])?;
        let export = rows.first().map(|row| stored(text(row, 0)?)).transpose()?;
        let found = export.and_then(|export| {
            let file = export.files.into_iter().find(|it| it.file == *name)?;
            Some((export.number, file))
        });
        let Some((number, file)) = found else { return Err(no_file().into()) };
        let missing: Step = not_here(&file).into();
        if !file.uploaded {
            return Ok(missing);
        }
        Ok(Step::Fetch {
            name: format!("{}{}", self.folder(month, number)?, file.file),
            content_type: file.format.content_type(),
            file: file.file,
            missing: Box::new(missing),
        })
    }

    fn month_folder(&self, month: Date) -> Result<String, Problem> {
        Ok(format!("focus/{}/{}/", self.workspace.id()?, month_name(month)))
    }

    /// Numbers have leading zeros, so that names stand in their order.
    fn folder(&self, month: Date, number: u64) -> Result<String, Problem> {
        Ok(format!("{}{number:020}/", self.month_folder(month)?))
    }
}

fn month_name(day: Date) -> String {
    format!("{:04}-{:02}", day.year, day.month)
}

fn stored(body: &str) -> Result<FocusExport, SqlError> {
    serde_json::from_str(body).map_err(|e| SqlError(format!("stored export: {e}")))
}

fn number_of(text: &str) -> Result<u64, Problem> {
    let number = text.parse().ok().filter(|it| is_number(*it));
    number.ok_or_else(wrong_number)
}

fn is_number(number: u64) -> bool {
    (1..=i64::MAX.unsigned_abs()).contains(&number)
}

fn wrong_number() -> Problem {
    Problem::field("number", "is no number of an export", "Give a whole number from 1 on.")
}

fn no_file() -> Problem {
    let detail = "The newest FOCUS export of this month has no such file. See /focus-exports for those it has.";
    Problem::new(404, "not_found", detail)
}

fn file_name(field: &str) -> Problem {
    let remedy = "Give 1 to 128 lower-case letters, digits, `.`, `_` and `-`.";
    Problem::field(field, "is no name of a file", remedy)
}

/// The edge does not have a file that the reconciler has.
fn not_here(file: &FocusFile) -> Problem {
    let why = if file.bytes > MAX_FILE_BYTES {
        format!("It is larger than the {MAX_FILE_BYTES} bytes that are uploaded")
    } else {
        "It was not uploaded, or no bucket is bound to the gateway".to_owned()
    };
    let place = printable(&file.place);
    Problem::new(404, "not_uploaded", format!("{why}. The reconciler keeps it at {place}."))
}

/// The export's month, when all of it is in order.
fn checked(export: &FocusExport) -> Result<Date, Problem> {
    let month = month_of(&export.month)?;
    if !is_number(export.number) {
        return Err(wrong_number());
    }
    if export.files.len() > MAX_FILES {
        let detail = format!("has {} files", export.files.len());
        return Err(Problem::field("files", detail, "Commit at most 1000."));
    }
    let mut names = BTreeSet::new();
    for (place, file) in export.files.iter().enumerate() {
        let field = |name: &str| format!("files[{place}].{name}");
        if !is_file_name(&file.file) {
            return Err(file_name(&field("file")));
        }
        if !names.insert(file.file.as_str()) {
            let remedy = "Give each file a name of its own.";
            return Err(Problem::field(&field("file"), "is there twice", remedy));
        }
        if let Some(day) = &file.day {
            day_of(&field("day"), day)?;
        }
        if !is_sha256(&file.sha256) {
            let remedy = "Give 64 lower-case hexadecimal digits.";
            return Err(Problem::field(&field("sha256"), "is no SHA-256", remedy));
        }
        let texts = [
            ("focus_version", &file.focus_version, MAX_VERSION),
            ("place", &file.place, MAX_PLACE),
        ];
        for (name, said, most) in texts {
            if said.is_empty() || said.len() > most {
                let remedy = format!("Give 1 to {most} bytes.");
                return Err(Problem::field(&field(name), "is empty or too long", &remedy));
            }
        }
    }
    Ok(month)
}

//! What a page consists of. A page says what it shows; here stands, once, how such a thing looks as HTML and as CSV.

use askama::Template;
use tallygate_shared::money::Usd;
use tallygate_shared::spreadsheet::is_formula;
use tallygate_shared::time::Date;

use super::figures::{self, Figure};
use super::flow::Flow;
use super::web::Fields;

/// A page's content.
#[derive(Debug, Default)]
pub(super) struct View {
    /// Its title.
    pub(super) title: String,
    /// One sentence below it.
    pub(super) lead: String,
    /// What the page's query can say.
    pub(super) filters: Vec<Field>,
    /// What it can say too, behind a fold.
    pub(super) more_filters: Vec<Field>,
    /// Its parts, in order.
    pub(super) blocks: Vec<Block>,
    /// The page asks for itself again while it is looked at.
    pub(super) live: bool,
}

/// A part of a page.
#[derive(Debug)]
pub(super) enum Block {
    /// Numbers that stand for themselves.
    Stats(Vec<Stat>),
    /// A table.
    Table(Table),
    /// Names and values of one thing.
    Facts(Facts),
    /// A form.
    Form(Form),
    /// A picture. What it shows stands in a table of the same page.
    Flow(Flow),
    /// Links to other views of the same thing.
    Links(Vec<Link>),
    /// A text to be taken along as it is.
    Text(Text),
}

/// How much something should stand out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Tone {
    /// Not at all.
    #[default]
    Plain,
    /// All is well.
    Good,
    /// Worth a look.
    Warn,
    /// Something is wrong.
    Bad,
}

impl Tone {
    /// Its class in the style sheet.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Good => "good",
            Self::Warn => "warn",
            Self::Bad => "bad",
        }
    }
}

/// A sentence.
#[derive(Clone, Debug)]
pub(super) struct Note {
    /// How it stands out.
    pub(super) tone: Tone,
    /// The sentence.
    pub(super) text: String,
}

/// A group of the menu.
#[derive(Debug)]
pub(super) struct Group {
    /// Its title.
    pub(super) title: &'static str,
    /// Its pages.
    pub(super) links: Vec<Link>,
}

/// A link.
#[derive(Clone, Debug)]
pub(super) struct Link {
    /// Where to.
    pub(super) href: String,
    /// What it says.
    pub(super) text: String,
    /// It leads here.
    pub(super) current: bool,
}

/// A number that stands for itself.
#[derive(Debug)]
pub(super) struct Stat {
    /// What it counts.
    pub(super) label: String,
    /// The number.
    pub(super) cell: Cell,
    /// What it means or where it comes from.
    pub(super) note: String,
}

/// A text to be taken along as it is.
#[derive(Debug)]
pub(super) struct Text {
    /// Its title.
    pub(super) title: String,
    /// The text.
    pub(super) text: String,
}

/// A number that stands for itself. The note may be empty.
pub(super) fn stat(label: &str, cell: Cell, note: impl Into<String>) -> Stat {
    Stat { label: label.to_owned(), cell, note: note.into() }
}

/// One thing's names and values.
#[derive(Debug)]
pub(super) struct Facts {
    /// Its title.
    pub(super) title: String,
    /// The names and values.
    pub(super) rows: Vec<(String, Cell)>,
}

/// A table.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// Its name in addresses and file names.
    pub(super) id: &'static str,
    /// Its caption.
    pub(super) caption: String,
    /// The columns.
    pub(super) columns: Vec<Column>,
    /// The rows, a cell for each column. `None`: the rows could not be had, which is not the same as none.
    pub(super) rows: Option<Vec<Vec<Cell>>>,
    /// What an empty table says.
    pub(super) empty: String,
    /// Its columns are drawn over its first one.
    pub(super) charted: bool,
    /// What is drawn: `ms`, `USD`, ...; where it is empty, dollars, of which the last column is the sum.
    pub(super) unit: &'static str,
    /// The address of the next page.
    pub(super) next: Option<String>,
}

impl View {
    /// Whether one of the folded filters is in use.
    fn uses_more(&self) -> bool {
        self.more_filters.iter().any(|field| !field.value.is_empty())
    }
}

impl Table {
    /// A row's cells, each with whether its column is one of numbers.
    fn cells<'a>(&self, row: &'a [Cell]) -> Vec<(&'a Cell, bool)> {
        let numeric = self.columns.iter().map(|column| column.numeric);
        row.iter().zip(numeric.chain(std::iter::repeat(false))).collect()
    }
}

/// A column.
#[derive(Clone, Debug)]
pub(super) struct Column {
    /// Its name in the CSV file: the API's.
    pub(super) name: String,
    /// Its head.
    pub(super) title: String,
    /// Its cells are numbers.
    pub(super) numeric: bool,
}

impl Column {
    /// A column of text.
    pub(super) fn text(name: &str, title: &str) -> Self {
        Self { name: name.to_owned(), title: title.to_owned(), numeric: false }
    }

    /// A column of numbers.
    pub(super) fn number(name: &str, title: &str) -> Self {
        Self { name: name.to_owned(), title: title.to_owned(), numeric: true }
    }
}

/// What stands in a table.
#[derive(Clone, Debug)]
pub(super) enum Cell {
    /// Not known, or none.
    Nothing,
    /// Text.
    Text(String),
    /// Text of some length, which needs room.
    Sentence(String),
    /// Text that leads somewhere.
    Linked {
        /// Where to.
        href: String,
        /// The text.
        text: String,
    },
    /// A rounded number and the exact one.
    Number(Figure),
    /// A share, in basis points, with a bar.
    Share(i64),
    /// A moment: as it is read, and exactly.
    Moment(Figure),
    /// A state.
    Badge {
        /// How it stands out.
        tone: Tone,
        /// Its name.
        text: String,
    },
    /// Buttons.
    Actions(Vec<Action>),
}

impl Cell {
    /// Text, or nothing.
    pub(super) fn text(text: &str) -> Self {
        if text.is_empty() { Self::Nothing } else { Self::Text(text.to_owned()) }
    }

    /// An amount.
    pub(super) fn money(amount: Usd) -> Self {
        Self::Number(figures::money(amount))
    }

    /// An amount in the API's text; nothing when it is none.
    pub(super) fn usd(text: &str) -> Self {
        text.parse().map_or(Self::Nothing, Self::money)
    }

    /// A count.
    pub(super) fn count(count: u64) -> Self {
        Self::Number(figures::count(count))
    }

    /// A size.
    pub(super) fn bytes(bytes: u64) -> Self {
        Self::Number(figures::bytes(bytes))
    }

    /// A moment in the API's text.
    pub(super) fn moment(at: &str) -> Self {
        let figure = Figure { shown: figures::minute(at), exact: at.to_owned() };
        if at.is_empty() { Self::Nothing } else { Self::Moment(figure) }
    }

    /// Text that leads somewhere.
    pub(super) fn link(href: impl Into<String>, text: &str) -> Self {
        Self::Linked { href: href.into(), text: text.to_owned() }
    }

    /// What stands in the CSV file.
    pub(super) fn exact(&self) -> &str {
        match self {
            Self::Nothing | Self::Actions(_) | Self::Share(_) => "",
            Self::Text(text)
            | Self::Sentence(text)
            | Self::Linked { text, .. }
            | Self::Badge { text, .. } => text,
            Self::Number(figure) | Self::Moment(figure) => &figure.exact,
        }
    }

    /// A share's text.
    fn percent(&self) -> String {
        match self {
            Self::Share(points) => figures::percent(*points),
            _ => String::new(),
        }
    }

    /// The cell's bar, in whole per cent.
    fn bar(&self) -> i64 {
        match self {
            Self::Share(points) => (points / 100).clamp(0, 100),
            _ => 0,
        }
    }
}

/// A button that changes something.
#[derive(Clone, Debug)]
pub(super) struct Action {
    /// What it says.
    pub(super) label: String,
    /// What it is about, for those who hear the button alone.
    pub(super) about: String,
    /// Where its form goes.
    pub(super) path: String,
}

/// A form.
#[derive(Clone, Debug)]
pub(super) struct Form {
    /// Its name among the page's forms.
    pub(super) id: &'static str,
    /// Its title.
    pub(super) title: String,
    /// Where it goes.
    pub(super) path: String,
    /// Its fields.
    pub(super) fields: Vec<Field>,
    /// What its button says.
    pub(super) submit: String,
}

/// A field.
#[derive(Clone, Debug, Default)]
pub(super) struct Field {
    /// Its name.
    pub(super) name: String,
    /// Its label.
    pub(super) label: String,
    /// `text`, `date`, `number`, ... where it has no options.
    pub(super) kind: &'static str,
    /// What stands in it.
    pub(super) value: String,
    /// What may be chosen: values and their texts.
    pub(super) options: Vec<(String, String)>,
    /// A sentence below it.
    pub(super) help: String,
    /// It must be filled in.
    pub(super) required: bool,
}

impl Field {
    /// A field for text.
    pub(super) fn text(name: &str, label: &str, value: &str) -> Self {
        Self {
            name: name.into(),
            label: label.into(),
            kind: "text",
            value: value.into(),
            ..Self::default()
        }
    }

    /// A field for a day. A browser takes nothing else in one: what is no day is left out.
    pub(super) fn day(name: &str, label: &str, value: &str) -> Self {
        let value = if Date::parse(value).is_some() { value } else { "" };
        Self { kind: "date", ..Self::text(name, label, value) }
    }

    /// A field for text of many lines.
    pub(super) fn lines(name: &str, label: &str, value: &str) -> Self {
        Self { kind: "lines", ..Self::text(name, label, value) }
    }

    /// What a form says by itself.
    pub(super) fn hidden(name: &str, value: &str) -> Self {
        Self { kind: "hidden", ..Self::text(name, "", value) }
    }

    /// A choice. The empty one stands for all.
    pub(super) fn choice(name: &str, label: &str, value: &str, options: &[(&str, &str)]) -> Self {
        let options =
            options.iter().map(|(value, text)| ((*value).into(), (*text).into())).collect();
        Self { options, ..Self::text(name, label, value) }
    }

    /// A field that must be filled in.
    pub(super) fn required(self) -> Self {
        Self { required: true, ..self }
    }

    /// With a sentence below it.
    pub(super) fn help(self, help: &str) -> Self {
        Self { help: help.into(), ..self }
    }
}

/// What stands around every page.
#[derive(Debug)]
pub(super) struct Frame {
    /// `light`, `dark`, or nothing: as the system has it.
    pub(super) theme: String,
    /// The tenant.
    pub(super) workspace: String,
    /// Its data is a demo's.
    pub(super) demo: bool,
    /// Who is signed in may remove it.
    pub(super) may_remove: bool,
    /// Who is signed in.
    pub(super) who: String,
    /// Their role.
    pub(super) role: &'static str,
    /// The token of every form.
    pub(super) form_token: String,
    /// The menu.
    pub(super) menu: Vec<Group>,
    /// This page's address, with its query.
    pub(super) here: String,
    /// This page's path.
    pub(super) path: String,
    /// The query, for downloads.
    pub(super) query: Fields,
    /// What to say first.
    pub(super) notes: Vec<Note>,
    /// Whose rows these are, where that must be said.
    pub(super) rows: String,
}

impl Frame {
    fn download(&self, table: &Table) -> String {
        let query = self.query.with("done", None).with("table", Some(table.id));
        format!("{}{}", self.path, query.with("format", Some("csv")).query())
    }
}

/// A whole page.
#[derive(Template)]
#[template(path = "page.html")]
pub(super) struct Page<'a> {
    pub(super) frame: &'a Frame,
    pub(super) view: &'a View,
}

/// The page to sign in on.
#[derive(Template)]
#[template(path = "sign_in.html")]
pub(super) struct SignIn<'a> {
    pub(super) theme: &'a str,
    pub(super) next: &'a str,
    pub(super) problem: &'a str,
    /// Whom Cloudflare Access lets through; nobody where it is empty.
    pub(super) person: &'a str,
    /// The OpenID provider to sign in with; none where it is empty.
    pub(super) provider: &'a str,
    pub(super) workspace: &'a str,
}

/// A page that leads away at once.
#[derive(Template)]
#[template(path = "going.html")]
pub(super) struct Going<'a> {
    pub(super) theme: &'a str,
    pub(super) url: &'a str,
}

/// A page without a session that only says something.
#[derive(Template)]
#[template(path = "message.html")]
pub(super) struct Message<'a> {
    pub(super) theme: &'a str,
    pub(super) title: &'a str,
    pub(super) text: &'a str,
}

/// A table as CSV: RFC 4180, the exact values.
pub(super) fn csv(table: &Table) -> String {
    let mut out = String::new();
    let shown = |at: usize| {
        let rows = table.rows.iter().flatten();
        let mut cells = rows.filter_map(|row| row.get(at)).peekable();
        cells.peek().is_none()
            || cells.any(|cell| !matches!(cell, Cell::Actions(_) | Cell::Share(_)))
    };
    let acts = |at: &usize| table.columns.get(*at).is_some_and(|column| column.name == "actions");
    let places = (0..table.columns.len()).filter(|at| shown(*at) && !acts(at));
    let places: Vec<usize> = places.collect();
    let names = places.iter().filter_map(|at| table.columns.get(*at));
    line(&mut out, names.map(|column| column.name.as_str()));
    for row in table.rows.iter().flatten() {
        line(&mut out, places.iter().map(|at| row.get(*at).map_or("", Cell::exact)));
    }
    out
}

fn line<'a>(out: &mut String, values: impl Iterator<Item = &'a str>) {
    for (place, value) in values.enumerate() {
        if place > 0 {
            out.push(',');
        }
        let formula = is_formula(value);
        if formula || value.contains(['"', ',', '\n', '\r']) {
            let guard = if formula { "'" } else { "" };
            out.push_str(&format!("\"{guard}{}\"", value.replace('"', "\"\"")));
        } else {
            out.push_str(value);
        }
    }
    out.push_str("\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_as_csv_has_exact_values_and_no_formulas() {
        let table = Table {
            columns: vec![
                Column::text("owner", "Owner"),
                Column::number("charged_usd", "Charged"),
                Column::number("share", "Share"),
            ],
            rows: Some(vec![
                vec![Cell::text("=SUM(A1)"), Cell::usd("0.000000001"), Cell::Share(1)],
                vec![Cell::text("a,\"b\""), Cell::usd("-2.50"), Cell::Share(2)],
                vec![Cell::Nothing, Cell::usd("x"), Cell::Share(3)],
            ]),
            ..Table::default()
        };
        let expected =
            "owner,charged_usd\r\n\"'=SUM(A1)\",0.000000001\r\n\"a,\"\"b\"\"\",-2.5\r\n,\r\n";
        assert_eq!(csv(&table), expected);
    }
}

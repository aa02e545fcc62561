use std::path::Path;
use std::sync::Mutex;

use proptest::prelude::*;
use serde_json::{Value, json};
use tallygate_shared::money::Usd;
use tallygate_shared::time::Date;

use super::*;
use crate::bill::{ChargeKind, Meter};
use crate::ports::{ObjectMeta, Put};

mod content;

/// Objects in memory, which count how often each was read.
#[derive(Default)]
struct Objects {
    files: BTreeMap<String, Bytes>,
    reads: Mutex<Vec<String>>,
}

#[async_trait]
impl ObjectStore for Objects {
    async fn put_once(&self, _: &str, _: Bytes) -> Result<Put, StoreError> {
        Err(StoreError::Failed { store: "memory", reason: "is only read".into() })
    }

    async fn get(&self, key: &str) -> Result<Option<Bytes>, StoreError> {
        self.reads.lock().unwrap().push(key.into());
        if key.contains("denied") {
            let (action, reason) = ("s3:GetObject".into(), "AccessDenied".into());
            return Err(StoreError::Denied { store: "memory", action, reason });
        }
        Ok(self.files.get(key).cloned())
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<ObjectMeta>, StoreError> {
        let keys = self.files.iter().filter(|(key, _)| {
            key.starts_with(prefix) && after.is_none_or(|after| key.as_str() > after)
        });
        let meta = |(key, body): (&String, &Bytes)| ObjectMeta {
            key: key.clone(),
            size: if key.contains("huge") { MAX_FILE + 1 } else { body.len() as u64 },
        };
        Ok(keys.take(limit).map(meta).collect())
    }

    async fn put_file_once(&self, _: &str, _: &Path) -> Result<Put, StoreError> {
        Err(StoreError::Failed { store: "memory", reason: "is only read".into() })
    }
}

fn november() -> Days {
    Days { from: Date::parse("2026-11-01").unwrap(), to: Date::parse("2026-12-01").unwrap() }
}

/// A Groq usage file: the smallest mapping, changed by `change`.
fn mapping(change: impl FnOnce(&mut Value)) -> Result<Mapping, MappingErrorText> {
    let mut document = json!({"files": [{
        "path": "groq/*.csv", "provider": "groq", "account": "acme",
        "format": {"csv": {
            "period": {"day": {"column": "Date", "format": "%Y-%m-%d"}},
            "amount": {"column": "Cost", "unit": "dollars", "currency": {"fixed": "USD"}},
        }},
    }]});
    change(&mut document);
    Mapping::parse(&document.to_string()).map_err(|error| error.to_string())
}

type MappingErrorText = String;

async fn sorted(mapping: Mapping, files: &[(&str, &str)]) -> Sorted {
    let files = files.iter().map(|(key, body)| ((*key).into(), Bytes::from((*body).to_owned())));
    let store = Objects { files: files.collect(), ..Objects::default() };
    let inbox = Inbox::new(Arc::new(store), mapping);
    let pages = inbox.fetch(november()).await.unwrap();
    let sorted = inbox.sort(november(), &pages).unwrap();
    assert_eq!(inbox.read(november(), &pages).unwrap(), sorted.bill);
    assert_eq!(inbox.held(november(), &pages).unwrap(), sorted.held);
    sorted
}

/// One file, read by the small mapping as `change` made it.
async fn one(change: impl FnOnce(&mut Value), body: &str) -> Sorted {
    sorted(mapping(change).unwrap(), &[("inbox/groq/november.csv", body)]).await
}

fn csv(document: &mut Value) -> &mut Value {
    &mut document["files"][0]["format"]["csv"]
}

fn amounts(sorted: &Sorted) -> Vec<String> {
    sorted.bill.lines.iter().map(|line| line.amount.to_string()).collect()
}

fn usd(text: &str) -> Usd {
    text.parse().unwrap()
}

#[tokio::test]
async fn every_column_of_a_mapping_is_read() {
    let all = |document: &mut Value| {
        document["files"][0]["provisional"] = json!(true);
        let csv = csv(document);
        csv["delimiter"] = json!(";");
        csv["skip_lines"] = json!(2);
        csv["decimal_comma"] = json!(true);
        csv["thousands"] = json!(".");
        csv["period"] = json!({"range": {"start": "From", "end": "To", "format": "%d.%m.%Y",
            "end_is_last_day": true}});
        csv["amount"] =
            json!({"column": "Net", "unit": "cents", "currency": {"column": "Currency"}});
        csv["list_amount"] = json!("Gross");
        csv["quantity"] = json!({"column": "Units", "unit": {"column": {"name": "Unit",
            "values": {"Mtok": "1000000 Tokens"}}}});
        csv["meter"] = json!({"column": {"name": "Item", "values": {"Prompt": "input"}}});
        csv["kind"] = json!({"column": {"name": "Type", "values": {"VAT": "tax"},
            "otherwise": "usage"}});
        csv["service"] = json!({"fixed": "Groq Cloud"});
        for (field, column) in [
            ("description", "Item"),
            ("model", "Model"),
            ("project", "Project"),
            ("tier", "Tier"),
            ("invoice_id", "Invoice"),
            ("credential", "Key"),
        ] {
            csv[field] = json!({"column": column});
        }
        csv["tags"] = json!({"team": "Team"});
        csv["skip_rows"] = json!([{"column": "Item", "equals": ["Total"]}]);
    };
    let body = "\u{feff}Invoice of November\n\n\
        From;To;Net;Gross;Currency;Units;Unit;Item;Type;Model;Project;Tier;Invoice;Key;Team\r\n\
        01.11.2026;02.11.2026;1.234,5;1.300,00;usd;2,5;Mtok;Prompt;Use;\"l;lama\";p1;flex;I-7;k1;red\r\n\
        01.11.2026;02.11.2026;1.234,5;;USD;;;Total;;;;;;;\r\n\
        ;;;;;;;Total\r\n";
    let sorted = one(all, body).await;
    assert_eq!(sorted.held, []);
    let [line] = sorted.bill.lines.as_slice() else { panic!("{sorted:?}") };
    assert_eq!((line.provider.as_str(), line.account.as_str()), ("groq", "acme"));
    assert_eq!(
        (line.start.to_string(), line.end.date()),
        ("2026-11-01T00:00:00.000Z".into(), Date::parse("2026-11-03").unwrap())
    );
    assert_eq!((line.amount, line.list_amount), (usd("12.345"), Some(usd("13"))));
    assert_eq!(line.quantity.unwrap().to_string(), "2.5");
    assert_eq!(line.unit.as_deref(), Some("1000000 Tokens"));
    assert_eq!((line.meter, line.kind), (Meter::Input, ChargeKind::Usage));
    assert_eq!((line.service.as_str(), line.description.as_str()), ("Groq Cloud", "Prompt"));
    let texts = [&line.model, &line.project, &line.tier, &line.invoice_id, &line.credential];
    assert_eq!(texts.map(|text| text.as_deref().unwrap()), ["l;lama", "p1", "flex", "I-7", "k1"]);
    assert_eq!((line.tags["team"].as_str(), line.provisional), ("red", true));
    assert!(sorted.bill.notes.iter().any(|note| note.contains("2 rows are no charges")));
}

/// (row, what the finding must name)
const BAD: [(&str, &str); 8] = [
    ("2026-11-05,", "line 3, Cost` is empty"),
    ("2026-11-05,abc", "line 3, Cost` is not a decimal number"),
    ("2026-11-05,\"1,5\"", "line 3, Cost` is not a number such as 12.50"),
    ("2026-11-05,0.1234567890123", "\"finer\": \"round\""),
    ("05.11.2026,1", "line 3, Date` is not a date as `%Y-%m-%d` says"),
    ("2026-02-30,1", "line 3, Date` is not a date"),
    ("2026-11-05,1,2", "line 3, row` has 3 cells, the header has 2"),
    ("2026-11-05,$1", "line 3, Cost` is not"),
];

#[tokio::test]
async fn a_bad_row_holds_the_file_or_stays_out_of_it() {
    for (bad, expected) in BAD {
        let body = format!("Date,Cost\n2026-11-04,1.5\n{bad}\n2026-11-06,0.25\n");
        let held = one(|_| {}, &body).await;
        assert!(held.bill.lines.is_empty(), "{bad}");
        let [finding] = held.held.as_slice() else { panic!("{bad}: {held:?}") };
        assert_eq!(finding.providers, ["groq".to_owned()].into());
        let text = finding.to_string();
        assert!(text.contains(expected) && text.contains("inbox/groq/november.csv"), "{text}");

        let others = |document: &mut Value| {
            document["files"][0]["bad_rows"] = json!("take_others");
        };
        let taken = one(others, &body).await;
        assert_eq!((amounts(&taken), taken.held.len()), (vec!["1.5".into(), "0.25".into()], 0));
        let named = taken.bill.notes.iter().any(|note| note.contains("line 3"));
        assert!(named, "{:?}", taken.bill.notes);
    }
}

#[tokio::test]
async fn a_file_that_is_no_table_is_held_whatever_the_mapping_says() {
    let whole = [
        ("", "is empty"),
        ("<html><body>Sign in</body></html>", "is not in the header, which has \"<html>"),
        (
            "Date,Amount\n2026-11-04,1\n",
            "`Cost` is not in the header, which has \"Amount\", \"Date\"",
        ),
        ("Date,Cost,Cost\n2026-11-04,1,2\n", "`Cost` is there twice"),
        ("Date,Cost\n2026-11-04,\"1\n2026-11-05,2\n", "odd number of quotes"),
    ];
    for (body, expected) in whole {
        let others = |document: &mut Value| {
            document["files"][0]["bad_rows"] = json!("take_others");
        };
        let held = one(others, body).await;
        assert!(held.bill.lines.is_empty());
        let text = held.held[0].to_string();
        assert!(text.contains(expected), "{text}");
    }
}

#[tokio::test]
async fn other_currencies_labels_and_units_are_bad_rows() {
    let with = |document: &mut Value| {
        let csv = csv(document);
        csv["amount"]["currency"] = json!({"column": "Currency"});
        csv["meter"] = json!({"column": {"name": "Meter", "values": {"in": "input"}}});
        csv["quantity"] = json!({"column": "N", "unit": {"column": {"name": "Unit",
            "values": {"tok": "Tokens", "req": "Requests"}}}});
    };
    for (row, expected) in [
        ("2026-11-04,1,EUR,in,5,tok", "Currency` is \"EUR\": only USD"),
        ("2026-11-04,1,,in,5,tok", "Currency` is empty"),
        ("2026-11-04,1,USD,images,5,tok", "Meter` is \"images\""),
        ("2026-11-04,1,USD,in,5,chars", "Unit` is \"chars\""),
        ("2026-11-04,1,USD,in,5,req", "N` is in \"Requests\", but tokens"),
        ("2026-11-04,1,USD,in,,tok", "N` is empty"),
    ] {
        let held = one(with, &format!("Date,Cost,Currency,Meter,N,Unit\n{row}\n")).await;
        let text = held.held[0].to_string();
        assert!(text.contains(expected), "{text}");
    }
}

#[tokio::test]
async fn the_same_content_counts_once_and_other_days_not_at_all() {
    let body = "Date,Cost\n2026-11-04,1.5\n2026-11-04,1.5\n2026-10-31,7\n2026-12-01,9\n";
    let files = [
        ("inbox/groq/a.csv", body),
        ("inbox/groq/b.csv", body),
        ("inbox/groq/folder/", ""),
        ("inbox/groq/mine.csv", "Date,Cost\n2026-11-04,3\n"),
        ("inbox/groq/old.csv", "Date,Cost\n2026-10-04,3\n,\n"),
        ("inbox/groq/notes.txt", "hello"),
        ("inbox/groq/huge.csv", ""),
    ];
    let sorted = sorted(mapping(|_| {}).unwrap(), &files).await;
    // Equal rows of one file are two charges.
    assert_eq!(amounts(&sorted), ["1.5", "1.5", "3"]);
    let notes = sorted.bill.notes.join("\n");
    assert!(notes.contains("b.csv: the same content as inbox/groq/a.csv"), "{notes}");
    assert!(notes.contains("notes.txt: no rule"), "{notes}");
    assert!(notes.contains("mine.csv: bills groq acme for days that inbox/groq/a.csv"), "{notes}");
    assert!(!notes.contains("folder") && !notes.contains("old.csv"), "{notes}");
    assert!(sorted.held[0].to_string().contains("huge.csv") && sorted.held.len() == 1);
}

#[tokio::test]
async fn on_each_day_that_a_taken_charge_covers_the_bill_is_whole() {
    let with = |document: &mut Value| {
        csv(document)["period"] = json!({"range": {"start": "From", "end": "To", "format": "%Y-%m-%d",
            "end_is_last_day": true}});
    };
    // The first reaches into the days asked for, the fee lies on one of its days, the third shares the 20th with it, and
    // the last has no day in common with any of them.
    let body = "From,To,Cost\n2026-10-20,2026-11-02,5\n2026-10-21,2026-10-21,0.5\n\
        2026-10-10,2026-10-20,3\n2026-10-01,2026-10-09,9\n";
    let sorted = one(with, body).await;
    assert_eq!(amounts(&sorted), ["5", "0.5", "3"]);
}

fn gzip(content: &[u8]) -> Bytes {
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut packer, content).unwrap();
    packer.finish().unwrap().into()
}

#[tokio::test]
async fn packed_files_are_what_is_in_them() {
    let plain = b"Date,Cost\n2026-11-04,1.5\n";
    let packed = gzip(plain);
    let half = packed.slice(..packed.len() - 9);
    let files = BTreeMap::from([
        ("inbox/groq/a.csv".to_owned(), Bytes::from_static(plain)),
        ("inbox/groq/b.csv".to_owned(), packed),
        ("inbox/groq/c.csv".to_owned(), half),
    ]);
    let inbox =
        Inbox::new(Arc::new(Objects { files, ..Objects::default() }), mapping(|_| {}).unwrap());
    let pages = inbox.fetch(november()).await.unwrap();
    let sorted = inbox.sort(november(), &pages).unwrap();
    assert_eq!(amounts(&sorted), ["1.5"]);
    assert!(sorted.bill.notes[0].contains("b.csv: the same content"), "{:?}", sorted.bill.notes);
    let held: Vec<_> = sorted.held.iter().map(ToString::to_string).collect();
    assert!(held[0].contains("c.csv") && held[0].contains("cannot be unpacked"), "{held:?}");
    let megabyte = vec![b' '; 1024 * 1024];
    assert_eq!(unpacked(&gzip(&megabyte), 1024 * 1024).unwrap(), megabyte);
    let error = unpacked(&gzip(&megabyte), 1024 * 1024 - 1).unwrap_err();
    assert!(error.contains("MiB unpacked"), "{error}");
}

#[cfg(not(feature = "parquet"))]
#[tokio::test]
async fn parquet_is_called_by_its_name() {
    let held = sorted(focus(json!({})), &[("inbox/focus/1.parquet", "PAR1....PAR1")]).await;
    assert!(held.held[0].to_string().contains("no feature `parquet`"));
}

#[tokio::test]
async fn each_file_is_fetched_once_and_a_missing_permission_is_named() {
    let mut files: BTreeMap<String, Bytes> = BTreeMap::new();
    for index in 0..1_200 {
        files.insert(format!("inbox/groq/{index:04}.csv"), Bytes::from(format!("{index}")));
    }
    let store = Arc::new(Objects { files, ..Objects::default() });
    let inbox = Inbox::new(store.clone(), mapping(|_| {}).unwrap());
    let pages = inbox.fetch(november()).await.unwrap();
    assert_eq!((pages.len(), store.reads.lock().unwrap().len()), (1_201, 1_200));

    let files = BTreeMap::from([("inbox/groq/denied.csv".into(), Bytes::from("x"))]);
    let store = Objects { files, ..Objects::default() };
    let inbox = Inbox::new(Arc::new(store), mapping(|_| {}).unwrap());
    let refused = inbox.fetch(november()).await.unwrap_err();
    assert!(
        matches!(&refused, PullError::Refused { remedy, .. } if remedy.contains("s3:GetObject"))
    );
}

#[tokio::test]
async fn periods_and_numbers_as_the_mapping_says() {
    let cases = [
        (json!({"month": {"column": "Date", "format": "%Y%m"}}), "202611", 30, "2026-11-01"),
        (
            json!({"day": {"column": "Date", "format": "%b %d, %Y"}}),
            "\"Nov 04, 2026\"",
            1,
            "2026-11-04",
        ),
        (
            json!({"day": {"column": "Date", "format": "rfc3339"}}),
            "2026-11-04T23:30:00-02:00",
            1,
            "2026-11-05",
        ),
        (
            json!({"day": {"column": "Date", "format": "unix_seconds"}}),
            "1793836799",
            1,
            "2026-11-04",
        ),
        (
            json!({"day": {"column": "Date", "format": "%Y-%m-%d %H:%M %z"}}),
            "2026-11-04 01:00 +0200",
            1,
            "2026-11-03",
        ),
        (json!({"fixed": {"start": "2026-11-01", "end": "2026-12-01"}}), "x", 30, "2026-11-01"),
    ];
    for (period, text, days, first) in cases {
        let round = |document: &mut Value| {
            document["files"][0]["finer"] = json!("round");
            csv(document)["period"] = period;
        };
        let sorted = one(round, &format!("Date,Cost\n{text},1.230000000015e-1\n")).await;
        let line = sorted.bill.lines.first().unwrap_or_else(|| panic!("{text}: {sorted:?}"));
        assert_eq!(line.start.date(), Date::parse(first).unwrap(), "{text}");
        assert_eq!(line.end.date().days() - line.start.date().days(), days, "{text}");
        assert_eq!(line.amount, usd("0.123000000002"), "half to even");
        assert!(sorted.bill.notes.iter().any(|note| note.contains("1 numbers were rounded")));
    }
}

#[test]
fn a_mapping_is_told_its_mistakes() {
    type Change = fn(&mut Value);
    let cases: [(&str, Change); 11] = [
        ("files[0].path", |d| d["files"][0]["path"] = json!("inbox/x.csv")),
        ("files[0].provider", |d| d["files"][0]["provider"] = json!(" ")),
        ("files[0].account` is missing", |d| d["files"][0]["account"] = json!(null)),
        ("files[0].bad_row", |d| d["files"][0]["bad_row"] = json!("hold")),
        ("format.csv.delimiter", |d| csv(d)["delimiter"] = json!("\"")),
        ("format.csv.thousands", |d| csv(d)["thousands"] = json!(".")),
        ("amount.currency.fixed` is not USD", |d| {
            csv(d)["amount"]["currency"]["fixed"] = json!("EUR");
        }),
        ("amount.unit", |d| csv(d)["amount"]["unit"] = json!("euros")),
        ("format.csv.period.format", |d| csv(d)["period"]["day"]["format"] = json!("YYYY")),
        ("quantity.unit` must read", |d| {
            csv(d)["quantity"] = json!({"column": "n", "unit": {"fixed": "1K tokens"}});
        }),
        ("skip_rows", |d| csv(d)["skip_rows"] = json!([{"column": "a", "equals": []}])),
    ];
    assert!(mapping(|_| {}).is_ok());
    for (expected, change) in cases {
        let error = mapping(change).unwrap_err();
        assert!(error.contains(expected), "{expected}: {error}");
    }
    assert!(Mapping::parse("{\"files\":[]} x").is_err());
}

const FOCUS_1_4: &str = "\
BilledCost,EffectiveCost,ListCost,BillingCurrency,BillingAccountId,SubAccountId,ChargeCategory,ChargeClass,\
ChargeDescription,ChargePeriodStart,ChargePeriodEnd,ServiceName,ServiceProviderName,SkuMeter,SkuPriceDetails,\
ConsumedQuantity,ConsumedUnit,PricingQuantity,PricingUnit,InvoiceId,RegionId,Tags,x_ApiKeyId
42,41,50,USD,A1,P1,Usage,,GPT,2026-11-04T00:00:00Z,2026-11-05T00:00:00Z,OpenAI API,OpenAI,Input Tokens,\
\"{\"\"x_ModelId\"\":\"\"gpt-5\"\",\"\"x_ServiceTier\"\":\"\"batch\"\"}\",8400000,tokens,8.4,1000000 Tokens,,us,\
\"{\"\"team\"\":\"\"red\"\"}\",key_1
-3,-3,,USD,A1,,Usage,Correction,,2026-11-04T00:00:00Z,2026-11-05T00:00:00Z,OpenAI API,OpenAI,Input Tokens,,,,,,I1,,,
1.5e1,0,,USD,A1,,Purchase,null,Seats,2026-11-01T00:00:00Z,2026-12-01T00:00:00Z,Claude,Anthropic,,,2,Seats,,,I1,,,
0.07,0.07,,USD,A1,,Tax,,VAT,2026-11-01T00:00:00Z,2026-12-01T00:00:00Z,Claude,Anthropic,,,,,,,I1,,,
";

fn focus(format: Value) -> Mapping {
    let document = json!({"files": [{"path": "focus/*", "provider": "openai",
        "format": {"focus": format}}]});
    Mapping::parse(&document.to_string()).unwrap()
}

#[tokio::test]
async fn focus_rows_become_lines() {
    let providers = json!({"OpenAI": "openai", "Anthropic": "anthropic"});
    let mapping = focus(json!({"providers": providers}));
    let all = sorted(mapping, &[("inbox/focus/1.csv", FOCUS_1_4)]).await;
    assert_eq!(
        (amounts(&all), all.held.len()),
        (["42", "-3", "15", "0.07"].map(String::from).into(), 0)
    );
    let [usage, correction, purchase, tax] = all.bill.lines.as_slice() else { panic!("{all:?}") };
    assert_eq!((usage.kind, usage.meter), (ChargeKind::Usage, Meter::Input));
    assert_eq!((usage.account.as_str(), usage.project.as_deref()), ("A1", Some("P1")));
    assert_eq!(usage.list_amount, Some(usd("50")));
    assert_eq!(usage.quantity.unwrap().to_string(), "8400000");
    let texts = [&usage.unit, &usage.model, &usage.tier, &usage.credential];
    let texts = texts.map(|text| text.as_deref().unwrap());
    assert_eq!(texts, ["Tokens", "gpt-5", "batch", "key_1"]);
    assert_eq!((usage.tags["team"].as_str(), usage.tags["region"].as_str()), ("red", "us"));
    assert!(usage.provisional && !purchase.provisional, "not invoiced yet");
    assert_eq!((correction.kind, correction.quantity), (ChargeKind::Adjustment, None));
    assert_eq!(correction.tags["charge_class"], "Correction");
    assert_eq!((purchase.kind, purchase.provider.as_str()), (ChargeKind::Purchase, "anthropic"));
    assert_eq!((tax.kind, tax.meter), (ChargeKind::Tax, Meter::Whole));

    let effective = focus(json!({"cost": "effective"}));
    let effective = sorted(effective, &[("inbox/focus/1.csv", FOCUS_1_4)]).await;
    assert_eq!(amounts(&effective), ["41", "-3", "0", "0.07"]);
}

#[tokio::test]
async fn focus_rows_that_break_the_specification_are_named() {
    for (from, to, expected) in [
        ("42,41,50,USD", "42,41,50,EUR", "line 2, BillingCurrency` is \"EUR\""),
        ("42,41,50,USD", ",41,50,USD", "line 2, BilledCost` is empty"),
        ("A1,P1,Usage,", "A1,P1,Consumption,", "line 2, ChargeCategory` is \"Consumption\""),
        ("Usage,Correction", "Usage,Oops", "line 3, ChargeClass` is \"Oops\""),
        ("8400000,tokens", "8400000,Requests", "line 2, ConsumedUnit` is in \"Requests\""),
        ("\"{\"\"team\"\":\"\"red\"\"}\"", "team=red", "line 2, Tags` is not a JSON object"),
        ("BilledCost,", "Cost,", "`BilledCost` is not in the header"),
        ("GPT,2026-11-04T", "GPT,2026-11-06T", "ChargePeriodEnd` is not after"),
    ] {
        let body = FOCUS_1_4.replacen(from, to, 1);
        assert_ne!(body, FOCUS_1_4, "{from}");
        let held = sorted(focus(json!({})), &[("inbox/focus/1.csv", &body)]).await;
        assert!(held.bill.lines.is_empty());
        let text = held.held[0].to_string();
        assert!(text.contains(expected), "{text}");
    }
    // Such a file may have the bills of all whom its mapping names.
    let sellers = json!({"providers": {"OpenAI": "openai", "Anthropic PBC": "anthropic"}});
    let held = sorted(focus(sellers), &[("inbox/focus/1.csv", "BilledCost\n1\n")]).await;
    assert_eq!(held.held[0].providers, ["anthropic".to_owned(), "openai".to_owned()].into());
}

#[test]
fn meters_by_the_words_of_a_sku() {
    for (name, expected) in [
        ("Input Tokens", Meter::Input),
        ("Cached Input Tokens", Meter::CacheRead),
        ("Cache Read Input Tokens", Meter::CacheRead),
        ("Cache Creation Tokens", Meter::CacheWrite),
        ("Input Cache Write Tokens", Meter::CacheWrite),
        ("Output Tokens", Meter::Output),
        ("Web Search Requests", Meter::Calls),
        ("Cache Storage", Meter::Whole),
        ("Provisioned Throughput Hours", Meter::Whole),
    ] {
        assert_eq!(focus::meter(name), expected, "{name}");
    }
}

proptest! {
    /// Whatever the bytes are, every row is a charge, a bad row or skipped, and the sum is the text's.
    #[test]
    fn no_row_is_lost(cells in proptest::collection::vec((0u8..4, -1_000_000i64..1_000_000), 0..40)) {
        let rule = mapping(|document| document["files"][0]["bad_rows"] = json!("take_others"));
        let rule = rule.unwrap().files.remove(0);
        let Format::Csv(format) = &rule.format else { panic!() };
        let (mut body, mut good, mut bad, mut blank) = (String::from("Date,Cost\n"), 0i128, 0, 0);
        for (shape, cents) in &cells {
            let amount = Usd::from_pico(i128::from(*cents) * 10_000_000_000);
            match shape {
                0 | 1 => { good += amount.pico(); body += &format!("2026-11-04,{amount}\n"); }
                2 => { bad += 1; body += &format!("2026-11-04,{amount}x\n"); }
                _ => { blank += 1; body += ",\n"; }
            }
        }
        let rows = mapped::read(&rule, format, body.as_bytes());
        prop_assert_eq!(rows.lines.iter().map(|line| line.amount.pico()).sum::<i128>(), good);
        prop_assert_eq!((rows.bad.len(), rows.skipped), (bad, blank));
    }

    #[test]
    fn no_bytes_break_it(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        let rule = mapping(|_| {}).unwrap().files.remove(0);
        let Format::Csv(format) = &rule.format else { panic!() };
        let rows = mapped::read(&rule, format, &body);
        prop_assert!(rows.lines.is_empty());
        prop_assert!(!rows.bad.is_empty());
    }
}

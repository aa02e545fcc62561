use std::sync::Arc;

use arrow_array::{
    ArrayRef, Decimal128Array, Float64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;

use super::super::focus;
use super::super::mapping::{Format, Mapping};
use super::super::table::Rows;
use crate::bill::Meter;

fn file(currency: &str, compression: Compression) -> Vec<u8> {
    let text = |values: [Option<&str>; 2]| Arc::new(StringArray::from(values.to_vec())) as ArrayRef;
    let time = |us: i64| {
        let times = TimestampMicrosecondArray::from(vec![us, us]).with_timezone("UTC");
        Arc::new(times) as ArrayRef
    };
    let day = 1_794_960_000_000_000;
    let costs = Float64Array::from(vec![0.1, 1.5e-7]);
    let list = Decimal128Array::from(vec![Some(12_345), None]).with_precision_and_scale(20, 4);
    let batch = RecordBatch::try_from_iter_with_nullable([
        ("BilledCost", Arc::new(costs) as ArrayRef, false),
        ("ListCost", Arc::new(list.unwrap()) as ArrayRef, true),
        ("BillingCurrency", text([Some("USD"), Some(currency)]), true),
        ("BillingAccountId", text([Some("A"), Some("A")]), true),
        ("ChargeCategory", text([Some("Usage"), Some("Tax")]), true),
        ("ChargePeriodStart", time(day), false),
        ("ChargePeriodEnd", time(day + 86_400_000_000), false),
        ("ServiceName", text([Some("S"), Some("S")]), true),
        ("SkuMeter", text([Some("Output Tokens"), None]), true),
        ("ConsumedQuantity", Arc::new(Float64Array::from(vec![Some(7.0), None])) as ArrayRef, true),
        ("ConsumedUnit", text([Some("Tokens"), None]), true),
        ("Tags", text([Some("{\"team\":\"red\"}"), None]), true),
    ]);
    let batch = batch.unwrap();
    let properties = WriterProperties::builder().set_compression(compression).build();
    let mut body = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut body, batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    body
}

fn read(body: &[u8]) -> Rows {
    let text = r#"{"files": [{"path": "*", "provider": "p", "format": {"focus": {}}}]}"#;
    let rule = Mapping::parse(text).unwrap().files.remove(0);
    let Format::Focus(format) = &rule.format else { panic!() };
    focus::read(&rule, format, body)
}

#[test]
fn parquet_reads_as_csv_does() {
    for compression in [
        Compression::UNCOMPRESSED,
        Compression::SNAPPY,
        Compression::GZIP(Default::default()),
        Compression::ZSTD(Default::default()),
    ] {
        let rows = read(&file("USD", compression));
        let [usage, tax] = rows.lines.as_slice() else { panic!("{rows:?}") };
        assert_eq!(
            (usage.amount.to_string(), tax.amount.to_string()),
            ("0.1".into(), "0.00000015".into())
        );
        assert_eq!(usage.list_amount.unwrap().to_string(), "1.2345");
        assert_eq!(
            (usage.start.date().to_string(), usage.end.date().to_string()),
            ("2026-11-18".into(), "2026-11-19".into())
        );
        assert_eq!((usage.meter, usage.quantity.unwrap().to_string()), (Meter::Output, "7".into()));
        assert_eq!((usage.tags["team"].as_str(), tax.quantity), ("red", None));
    }
}

#[test]
fn bad_rows_and_broken_files_are_named() {
    let rows = read(&file("EUR", Compression::UNCOMPRESSED));
    assert_eq!((rows.lines.len(), rows.bad[0].line), (1, 2));
    assert_eq!(rows.bad[0].cell.column, "BillingCurrency");
    let whole = file("USD", Compression::UNCOMPRESSED);
    let rows = read(&whole[..whole.len() / 2]);
    assert_eq!((rows.lines.len(), rows.bad[0].line), (0, 0));
    assert!(rows.bad[0].cell.reason.contains("Parquet"), "{rows:?}");
}

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};
use tallygate_shared::money::Usd;
use tallygate_shared::time::Date;

use super::*;
use crate::bill::{ChargeKind, Meter};

type Script = VecDeque<Result<String, Failed>>;

/// Answers by a script for each label, and writes down what it was asked.
#[derive(Default)]
struct Scripted {
    scripts: Mutex<BTreeMap<&'static str, Script>>,
    asked: Mutex<Vec<(Question, Option<String>)>>,
}

#[async_trait]
impl Answers for Scripted {
    async fn answer(
        &self,
        _: Days,
        question: &Question,
        next: Option<&str>,
    ) -> Result<Bytes, Failed> {
        self.asked.lock().unwrap().push((question.clone(), next.map(str::to_owned)));
        let mut scripts = self.scripts.lock().unwrap();
        let script = scripts.get_mut(question.label()).unwrap();
        script.pop_front().unwrap().map(Bytes::from)
    }
}

fn days() -> Days {
    Days { from: Date::parse("2026-11-18").unwrap(), to: Date::parse("2026-11-20").unwrap() }
}

fn settings() -> Settings {
    Settings {
        account: "111122223333".into(),
        tag: Some("team".into()),
        models: vec!["us.anthropic.claude-sonnet-4-6".into()],
    }
}

fn explorer(calls: u32, scripts: &[(&'static str, Vec<Value>)]) -> CostExplorer<Scripted> {
    let scripts = scripts.iter().map(|(label, answers)| {
        (*label, answers.iter().map(|answer| Ok(answer.to_string())).collect::<Script>())
    });
    let answers = Scripted { scripts: Mutex::new(scripts.collect()), ..Scripted::default() };
    let patience = Patience { retries: 2, first_wait: Duration::from_millis(1) };
    CostExplorer::new(answers, settings(), Arc::new(PaidCalls::new(calls)), patience)
}

fn group(keys: [&str; 2], amount: &str, quantity: (&str, &str)) -> Value {
    json!({"Keys": keys, "Metrics": {
        "UnblendedCost": {"Amount": amount, "Unit": "USD"},
        "UsageQuantity": {"Amount": quantity.0, "Unit": quantity.1},
    }})
}

fn day(start: &str, end: &str, estimated: bool, groups: Vec<Value>) -> Value {
    json!({"TimePeriod": {"Start": start, "End": end}, "Total": {}, "Groups": groups,
        "Estimated": estimated})
}

fn page(days: Vec<Value>, next: Option<&str>) -> Value {
    let mut page = json!({"ResultsByTime": days, "GroupDefinitions": [],
        "DimensionValueAttributes": []});
    if let Some(next) = next {
        page["NextPageToken"] = json!(next);
    }
    page
}

/// Both days, the second estimated.
fn two(first: Vec<Value>, second: Vec<Value>) -> Vec<Value> {
    vec![
        day("2026-11-18", "2026-11-19", false, first),
        day("2026-11-19", "2026-11-20", true, second),
    ]
}

const NOTHING: (&str, &str) = ("0", "N/A");
const SONNET: &str = "Claude Sonnet 4.6 (Amazon Bedrock Edition)";

fn a_night() -> Vec<(&'static str, Vec<Value>)> {
    let services = two(
        vec![
            group(["Amazon Bedrock", "team$"], "1.0000000001", NOTHING),
            group(["Amazon Bedrock", "team$red"], "0.7898086250", NOTHING),
            group([SONNET, "team$red"], "3", NOTHING),
            group(["Amazon OpenSearch Service", "team$red"], "4.5", ("7", "N/A")),
            group(["Amazon S3", "team$"], "0", ("2", "N/A")),
        ],
        vec![],
    );
    let more = vec![day(
        "2026-11-19",
        "2026-11-20",
        true,
        vec![group(["AWS Lambda", "team$blue"], "0.0000000200", ("9", "N/A"))],
    )];
    let bedrock = two(
        vec![
            group(
                ["Amazon Bedrock", "USE1-Claude4.6Sonnet-input-tokens"],
                "1.7898086250",
                ("433.893", "N/A"),
            ),
            group([SONNET, "USE1-MP:USE1_OutputTokenCount_Batch-Units"], "3", ("200", "Units")),
        ],
        vec![],
    );
    let records = two(
        vec![
            group(["Tax", "AWS Lambda"], "0.33", NOTHING),
            group(["Credit", SONNET], "-1.5", NOTHING),
            group(["Refund", "Amazon S3"], "-0.01", NOTHING),
            group(["Enterprise Discount Program Discount", "Amazon S3"], "-0.02", NOTHING),
        ],
        vec![
            group(["Savings Plan Recurring Fee", "AWS Lambda"], "5", NOTHING),
            group(["Moon Phase", "AWS Lambda"], "0.07", NOTHING),
        ],
    );
    vec![
        (SERVICES, vec![page(services, Some("p2")), page(more, None)]),
        (BEDROCK, vec![page(bedrock, None)]),
        (RECORDS, vec![page(records, None)]),
    ]
}

fn usd(text: &str) -> Usd {
    text.parse().unwrap()
}

fn total(bill: &Bill) -> i128 {
    bill.lines.iter().map(|line| line.amount.pico()).sum()
}

#[tokio::test]
async fn a_night_is_read_to_the_last_digit() {
    let explorer = explorer(10, &a_night());
    let pages = explorer.fetch(days()).await.unwrap();
    assert_eq!((pages.len(), explorer.calls.taken()), (4, 4));
    let asked = explorer.answers.asked.lock().unwrap().clone();
    assert_eq!(asked[1].1.as_deref(), Some("p2"));
    let services = vec!["Amazon Bedrock".to_owned(), SONNET.to_owned()];
    assert_eq!(asked[2].0, Question::Bedrock { services });

    let bill = explorer.read(days(), &pages).unwrap();
    let got: Vec<_> = bill
        .lines
        .iter()
        .map(|line| (line.provider.as_str(), line.kind, line.description.as_str(), line.amount))
        .collect();
    use ChargeKind::{Adjustment, Credit, Discount, Purchase, Refund, Tax, Usage};
    assert_eq!(
        got,
        [
            ("aws", Usage, "Amazon OpenSearch Service", usd("4.5")),
            ("aws", Usage, "AWS Lambda", usd("0.00000002")),
            ("bedrock", Usage, "USE1-Claude4.6Sonnet-input-tokens", usd("1.789808625")),
            ("bedrock", Usage, "USE1-MP:USE1_OutputTokenCount_Batch-Units", usd("3")),
            ("aws", Tax, "Tax", usd("0.33")),
            ("bedrock", Credit, "Credit", usd("-1.5")),
            ("aws", Refund, "Refund", usd("-0.01")),
            ("aws", Discount, "Enterprise Discount Program Discount", usd("-0.02")),
            ("aws", Purchase, "Savings Plan Recurring Fee", usd("5")),
            ("aws", Adjustment, "Moon Phase", usd("0.07")),
        ]
    );
    assert_eq!(bill.lines[0].tags["team"], "red");
    let [tokens, batch] = [&bill.lines[2], &bill.lines[3]];
    assert_eq!(tokens.model.as_deref(), Some("us.anthropic.claude-sonnet-4-6"));
    assert_eq!((tokens.meter, tokens.unit.as_deref()), (Meter::Input, Some("1000 Tokens")));
    assert_eq!(tokens.quantity.unwrap().to_string(), "433.893");
    assert_eq!((batch.meter, batch.tier.as_deref()), (Meter::Output, Some("batch")));
    assert_eq!((batch.quantity, batch.unit.as_deref()), (None, None));
    assert!(!bill.lines[0].provisional && bill.lines[1].provisional);
    assert_eq!(bill.complete_until.unwrap().date(), Date::parse("2026-11-19").unwrap());
    assert!(bill.each_day, "it says of each day what it charges");
    let notes = bill.notes.join("\n");
    assert!(notes.contains("OutputTokenCount_Batch") && notes.contains("Moon Phase"), "{notes}");
    assert!(!notes.contains("input-tokens"), "{notes}");
}

#[tokio::test]
async fn net_cost_is_the_amount_where_there_is_one() {
    let mut night = a_night();
    for (_, pages) in &mut night {
        for by_time in
            pages.iter_mut().flat_map(|page| page["ResultsByTime"].as_array_mut().unwrap())
        {
            for group in by_time["Groups"].as_array_mut().unwrap() {
                let cost = group["Metrics"]["UnblendedCost"].clone();
                group["Metrics"]["NetUnblendedCost"] = cost;
                group["Metrics"]["UnblendedCost"]["Amount"] = json!("99");
            }
        }
    }
    let explorer_net = explorer(10, &night);
    let pages = explorer_net.fetch(days()).await.unwrap();
    let net = explorer_net.read(days(), &pages).unwrap();
    assert!(net.lines.iter().all(|line| line.list_amount == Some(usd("99"))));
    let plain = explorer(10, &a_night());
    let pages = plain.fetch(days()).await.unwrap();
    assert_eq!(total(&net), total(&plain.read(days(), &pages).unwrap()));

    let first = &mut night[2].1[0]["ResultsByTime"][0]["Groups"][0]["Metrics"];
    first.as_object_mut().unwrap().remove("NetUnblendedCost");
    let mixed = explorer(10, &night);
    let pages = mixed.fetch(days()).await.unwrap();
    let error = mixed.read(days(), &pages).unwrap_err().to_string();
    assert!(error.contains("NetUnblendedCost"), "{error}");
}

/// Changes one thing of a night and expects `read` to name it.
async fn check(pointer: (usize, usize, &str), to: Value, expected: &str) {
    let mut night = a_night();
    let (question, page, path) = pointer;
    *night[question].1[page].pointer_mut(path).unwrap() = to;
    let explorer = explorer(10, &night);
    let pages = explorer.fetch(days()).await.unwrap();
    let error = explorer.read(days(), &pages).unwrap_err().to_string();
    assert!(error.contains(expected), "{path}: {error}");
}

#[tokio::test]
async fn answers_that_are_not_as_documented_are_refused() {
    const FIRST: &str = "/ResultsByTime/0/Groups/0";
    let at = |tail: &str| format!("{FIRST}{tail}");
    let cost = at("/Metrics/UnblendedCost");
    for (question, page, path, to, expected) in [
        (0, 0, cost.as_str(), json!({"Amount": "1", "Unit": "EUR"}), "`EUR`"),
        (0, 0, &cost, json!({"Amount": 1.5, "Unit": "USD"}), "is a number where decimal text"),
        (0, 0, &cost, json!({"Unit": "USD"}), "missing field `Amount`"),
        (0, 0, &cost, json!({"Amount": "", "Unit": "USD"}), "not a decimal number"),
        (0, 0, &at("/Keys"), json!(["Amazon S3"]), "are not the groups asked for"),
        (
            0,
            0,
            "/ResultsByTime/0/Groups/3/Keys",
            json!(["Amazon S3", "owner$red"]),
            "do not name the tag `team`",
        ),
        (1, 0, &cost, json!({"Amount": "1.80", "Unit": "USD"}), "the data was refreshed"),
        (0, 0, "/ResultsByTime/0/TimePeriod/Start", json!("2026-11-17"), "2026-11-17"),
        (0, 0, "/ResultsByTime/0/TimePeriod/End", json!("2026-11-20"), "is not one day"),
        (
            2,
            0,
            "/ResultsByTime/1",
            day("2026-11-18", "2026-11-19", false, vec![]),
            "does not have 2026-11-19",
        ),
        (
            2,
            0,
            "/ResultsByTime/1",
            two(vec![group(["Tax", "AWS Lambda"], "1", NOTHING)], vec![])[0].clone(),
            "were there before",
        ),
        (
            2,
            0,
            "/ResultsByTime/1",
            json!({"TimePeriod": {"Start": "2026-11-19", "End": "2026-11-20"},
            "Total": {"UnblendedCost": {"Amount": "7", "Unit": "USD"}}, "Groups": [], "Estimated": true}),
            "there are no groups",
        ),
        (0, 0, "/ResultsByTime", json!("soon"), "ResultsByTime"),
    ] {
        check((question, page, path), to, expected).await;
    }
}

#[tokio::test]
async fn pages_in_a_circle_and_calls_beyond_the_limit_are_stopped() {
    let mut night = a_night();
    night[0].1[1]["NextPageToken"] = json!("p2");
    let circle = explorer(10, &night).fetch(days()).await.unwrap_err().to_string();
    assert!(circle.contains("circle"), "{circle}");

    let brake = explorer(3, &a_night());
    let error = brake.fetch(days()).await.unwrap_err().to_string();
    assert!(error.contains("all 3 paid calls"), "{error}");
    assert_eq!(brake.answers.asked.lock().unwrap().len(), 3, "the fourth is not made");
}

#[tokio::test]
async fn throttled_calls_are_asked_and_paid_again_and_refusals_are_final() {
    let explorer = explorer(10, &a_night());
    let push = |error| {
        explorer.answers.scripts.lock().unwrap().get_mut(SERVICES).unwrap().push_front(Err(error));
    };
    push(Failed::again("LimitExceededException"));
    push(Failed::again("LimitExceededException"));
    assert_eq!(explorer.fetch(days()).await.unwrap().len(), 4);
    assert_eq!(explorer.calls.taken(), 6);

    let refused = PullError::Refused {
        source_name: NAME.into(),
        what: SERVICES.into(),
        remedy: ACTION.into(),
    };
    push(Failed::Final(refused.clone()));
    assert_eq!(explorer.fetch(days()).await.unwrap_err(), refused);
    for _ in 0..3 {
        push(Failed::again("LimitExceededException"));
    }
    let error = explorer.fetch(days()).await.unwrap_err();
    assert!(
        matches!(&error, PullError::Unavailable { reason, .. } if reason == "LimitExceededException")
    );
}

#[tokio::test]
async fn what_is_no_answer_is_kept_and_then_refused() {
    let explorer = explorer(10, &a_night());
    let html = "<html>Sign in</html>".to_owned();
    explorer.answers.scripts.lock().unwrap().insert(SERVICES, VecDeque::from([Ok(html.clone())]));
    let pages = explorer.fetch(days()).await.unwrap();
    assert_eq!((pages.len(), &pages[0].body[..]), (1, html.as_bytes()));
    assert!(explorer.read(days(), &pages).unwrap_err().to_string().contains("HTML"));
    let error = explorer.read(days(), &[]).unwrap_err().to_string();
    assert!(error.contains("missing in the pull"), "{error}");
}

#[test]
fn settings_are_read_strictly() {
    let read = |text| serde_json::from_str::<Settings>(text);
    assert_eq!(read(r#"{"account":"1","tag":"team"}"#).unwrap().tag.as_deref(), Some("team"));
    assert!(read(r#"{"account":"1","tags":"team"}"#).is_err());
}

const SERVICE_NAMES: [&str; 4] = ["Amazon Bedrock", SONNET, "Amazon S3", "AWS Lambda"];
const USAGE_TYPES: [&str; 3] =
    ["USE1-NovaPro-input-tokens", "USE1-MP:USE1_OutputTokenCount-Units", "USE1-Guardrail"];
const RECORD_NAMES: [&str; 4] = ["Tax", "Credit", "Refund", "Something else"];

proptest! {
    /// Money spread over services, tags, usage types and record types: all of it is in the bill, once.
    #[test]
    fn every_dollar_is_in_one_line(
        uses in proptest::collection::vec((0usize..2, 0usize..4, 0usize..3, 0i64..9_999_999_999), 0..30),
        others in proptest::collection::vec((0usize..2, 0usize..4, 0usize..4, -9_999_999i64..9_999_999), 0..15),
    ) {
        // Keys of (day, question, group) to sums: what Cost Explorer would answer for these charges.
        let mut sums: BTreeMap<(usize, &str, [String; 2]), i128> = BTreeMap::new();
        let mut expected = 0_i128;
        let mut bedrock_expected = 0_i128;
        let mut add = |day: usize, label, keys: [&str; 2], amount: i64| {
            let keys = keys.map(str::to_owned);
            *sums.entry((day, label, keys)).or_default() += i128::from(amount) * 100;
        };
        for (day, service, kind, amount) in &uses {
            let (service, pico) = (SERVICE_NAMES[*service], i128::from(*amount) * 100);
            expected += pico;
            add(*day, SERVICES, [service, ["team$", "team$a", "team$b"][*kind]], *amount);
            if bedrock::is_bedrock(service) {
                bedrock_expected += pico;
                add(*day, BEDROCK, [service, USAGE_TYPES[*kind]], *amount);
            }
        }
        for (day, service, record, amount) in &others {
            let (service, pico) = (SERVICE_NAMES[*service], i128::from(*amount) * 100);
            expected += pico;
            if bedrock::is_bedrock(service) {
                bedrock_expected += pico;
            }
            add(*day, RECORDS, [RECORD_NAMES[*record], service], *amount);
        }
        let answer = |label: &str| {
            let groups = |day| sums.iter().filter(move |((d, l, _), _)| *d == day && *l == label);
            let group_of = |((_, _, keys), pico): ((&usize, &&str, &[String; 2]), &i128)| {
                let amount = Usd::from_pico(*pico).to_string();
                group([&keys[0], &keys[1]], &amount, ("1", "N/A"))
            };
            let of = |day| {
                groups(day).map(|((d, l, keys), pico)| group_of(((d, l, keys), pico))).collect()
            };
            RawPage {
                label: label.into(),
                body: page(two(of(0), of(1)), None).to_string().into(),
            }
        };
        let pages = [SERVICES, BEDROCK, RECORDS].map(answer);
        let bill = pages::bill(&settings(), days(), &pages).unwrap();
        prop_assert_eq!(total(&bill), expected);
        let bedrock = bill.lines.iter().filter(|line| line.provider == "bedrock");
        prop_assert_eq!(bedrock.map(|line| line.amount.pico()).sum::<i128>(), bedrock_expected);
    }
}

#[test]
fn record_types_in_both_spellings() {
    for (name, expected) in [
        ("SavingsPlanNegation", ChargeKind::Discount),
        ("Savings Plan Negation", ChargeKind::Discount),
        ("SavingsPlanUpfrontFee", ChargeKind::Purchase),
        ("RIFee", ChargeKind::Purchase),
        ("BundledDiscount", ChargeKind::Discount),
        ("PrivateRateDiscount", ChargeKind::Discount),
        ("Support fee", ChargeKind::Purchase),
        ("Tax", ChargeKind::Tax),
    ] {
        assert_eq!(pages::kind(name), Some(expected), "{name}");
    }
    assert_eq!(pages::kind("Other out-of-cycle charges"), None);
}

use super::*;
use proptest::prelude::*;

const NOW: Timestamp = Timestamp::from_ms(1_800_000_000_000);
const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

fn secrets() -> [ActorSecret; 1] {
    [ActorSecret::new("k1", SECRET, None)]
}

fn named(user: &str) -> Actor {
    Actor { user: Some(user.to_owned()), ..Actor::default() }
}

/// A well-signed token with this payload, verified now.
fn verified(payload: &str) -> Result<Actor, ActorError> {
    verify(&jws::seal(r#"{"alg":"HS256","kid":"k1"}"#, payload, SECRET), &secrets(), NOW)
}

fn check(payload: &str, code: &str) {
    let result = verified(payload);
    assert_eq!(
        result.as_ref().map_or_else(ActorError::code, |_| "ok"),
        code,
        "{payload} {result:?}"
    );
}

/// The same with `exp` in ten minutes.
fn check_claims(claims: &str, code: &str) {
    check(&format!(r#"{{"exp":1800000600,{claims}}}"#), code);
}

#[test]
fn the_example_of_rfc_7515_a_1_is_verified() {
    let token = concat!(
        "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9",
        ".eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFt",
        "cGxlLmNvbS9pc19yb290Ijp0cnVlfQ",
        ".dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk",
    );
    let key = concat!(
        "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75",
        "aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"
    );
    let key = base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, key);
    let secrets = [ActorSecret::new("any", key.unwrap(), None)];
    let before = Timestamp::from_ms(1_300_819_300_000);
    assert_eq!(verify(token, &secrets, before), Ok(Actor::default()));
    assert_eq!(verify(token, &secrets, NOW).map_err(|e| e.code()), Err("actor_expired"));
}

#[test]
fn tokens_of_other_libraries_are_verified() {
    // PyJWT sorts the header's members and writes no spaces.
    let pyjwt = concat!(
        "eyJhbGciOiJIUzI1NiIsImtpZCI6ImsxIiwidHlwIjoiSldUIn0",
        ".eyJ1c2VyIjoiYWRhIiwidGVhbSI6ImNvcmUiLCJleHAiOjE4MDAwMDA2MDB9",
        ".EPSZN4i0zrAElqSvT4Ss-JopiWMoY7Ff_8NNKBmDXEE",
    );
    let both = Actor { team: Some("core".to_owned()), ..named("ada") };
    assert_eq!(verify(pyjwt, &secrets(), NOW), Ok(both));
    // jsonwebtoken keeps the order; a fraction in `exp` comes from a division of milliseconds.
    let node = concat!(
        "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCIsImtpZCI6ImsxIn0",
        ".eyJzdWIiOiJhZGEiLCJmZWF0dXJlIjoic2VhcmNoIiwiaWF0IjoxODAwMDAwMDAwLCJleHAiOjE",
        "4MDAwMDA2MDAuMjUsImF1ZCI6WyJvdGhlciIsInRhbGx5Z2F0ZSJdfQ",
        ".LKTMO_eIrmLvdhsW84i8ew69iE9q52FdQ79-IZaY7iQ",
    );
    let both = Actor { feature: Some("search".to_owned()), ..named("ada") };
    assert_eq!(verify(node, &secrets(), NOW), Ok(both));
    // White space, line ends, escapes, an exponent, and no kid.
    let spaced = concat!(
        "ew0KICAidHlwIjogIkpXVCIsDQogImFsZyI6ICJIUzI1NiJ9",
        ".eyAidXNlciIgOiAiWm9cdTAwZWIiICwgImV4cCIgOiAxLjgwMDAwMDZlOSB9",
        ".rdXEoEYKAYkBkk35ecoiDFt74bpyrRVemYaDuzzucek",
    );
    assert_eq!(verify(spaced, &secrets(), NOW), Ok(named("Zoë")));
}

#[test]
fn an_unsigned_token_is_refused_however_it_is_spelt() {
    let signed = jws::seal(r#"{"alg":"none"}"#, r#"{"user":"root","exp":1800000600}"#, SECRET);
    let unsigned = &signed[..=signed.rfind('.').unwrap()];
    for token in [unsigned, &signed] {
        assert_eq!(verify(token, &secrets(), NOW), Err(ActorError::AlgorithmRefused));
    }
    let signed = mint(&named("ada"), "k1", SECRET, NOW, NOW.plus_ms(1_000));
    let cut = &signed[..=signed.rfind('.').unwrap()];
    assert_eq!(verify(cut, &secrets(), NOW), Err(ActorError::SignatureInvalid));
}

#[test]
fn a_payload_of_another_token_is_refused() {
    let token = |user| mint(&named(user), "k1", SECRET, NOW, NOW.plus_ms(60_000));
    let (ada, root) = (token("ada"), token("root"));
    let parts = |token: &str| token.split('.').map(str::to_owned).collect::<Vec<_>>();
    let forged = format!("{}.{}.{}", parts(&ada)[0], parts(&root)[1], parts(&ada)[2]);
    assert_eq!(verify(&forged, &secrets(), NOW), Err(ActorError::SignatureInvalid));
}

#[test]
fn what_is_no_token_is_refused() {
    let good = mint(&named("ada"), "k1", SECRET, NOW, NOW.plus_ms(60_000));
    assert_eq!(verify(&good, &secrets(), NOW), Ok(named("ada")));
    assert_eq!(verify("", &secrets(), NOW), Err(ActorError::Missing));
    let long = format!("{good}{}", "A".repeat(8 * 1024));
    for bad in [
        "x",
        "a.b",
        "..",
        "...",
        "a.b.c.d",
        &format!("{good}="),
        &format!(" {good}"),
        &format!("Bearer {good}"),
        &format!("{good}.x"),
        &long,
    ] {
        let code = verify(bad, &secrets(), NOW).map_err(|error| error.code());
        assert_eq!(code, Err("actor_malformed"), "{bad}");
    }
}

#[test]
fn times_are_honoured_with_a_minute_of_skew() {
    let exp = |at: &str| format!(r#"{{"exp":{at}}}"#);
    check(&exp("1800000001"), "ok");
    check(&exp("1799999941"), "ok");
    check(&exp("1799999940"), "actor_expired");
    check(&exp("1799999940.001"), "ok");
    check(&exp("-1"), "actor_expired");
    check(&exp("1800086460"), "ok");
    check(&exp("1800086461"), "actor_lifetime_too_long");
    check(&exp("1.8000006e9"), "ok");
    for bad in ["\"1800000600\"", "null", "true", "1e99", "[]", "9223372036854775808000", "1e-99"] {
        check(&exp(bad), "actor_claim_invalid");
    }
    check("{}", "actor_claim_invalid");
    for claim in ["nbf", "iat"] {
        check_claims(&format!(r#""{claim}":1800000060"#), "ok");
        check_claims(&format!(r#""{claim}":1800000060.5"#), "actor_not_yet_valid");
        check_claims(&format!(r#""{claim}":"now""#), "actor_claim_invalid");
    }
}

#[test]
fn an_audience_must_contain_us_when_it_is_there() {
    check_claims(r#""aud":"tallygate""#, "ok");
    check_claims(r#""aud":["other","tallygate"]"#, "ok");
    for bad in [r#""other""#, r#"["other"]"#, "[]", "null", r#"{"tallygate":1}"#, r#""Tallygate""#]
    {
        check_claims(&format!(r#""aud":{bad}"#), "actor_claim_invalid");
    }
}

#[test]
fn claims_are_short_plain_strings() {
    check_claims(&format!(r#""team":"{}""#, "é".repeat(128)), "ok");
    check_claims(&format!(r#""team":"{}""#, "é".repeat(129)), "actor_claim_invalid");
    for bad in [r#""""#, r#""a\nb""#, r#""\u0000""#, r#""\u009f""#, "7", "null", r#"["a"]"#] {
        check_claims(&format!(r#""team":{bad}"#), "actor_claim_invalid");
    }
    check_claims(r#""roles":["admin"],"iss":"joe","jti":null"#, "ok");
}

#[test]
fn a_repeated_claim_is_refused() {
    check_claims(r#""user":"ada","user":"root""#, "actor_malformed");
    check_claims(r#""user":"ada","\u0075ser":"root""#, "actor_malformed");
    check_claims(r#""roles":1,"roles":2"#, "actor_malformed");
    for payload in ["[]", "null", "", "{\"exp\":1800000600", "{\"exp\":1800000600}x"] {
        check(payload, "actor_malformed");
    }
}

#[test]
fn the_subject_is_the_user_unless_there_is_a_user() {
    let user = |claims: &str| verified(&format!(r#"{{"exp":1800000600,{claims}}}"#)).unwrap().user;
    assert_eq!(user(r#""sub":"ada""#).as_deref(), Some("ada"));
    assert_eq!(user(r#""sub":"id-7","user":"ada""#).as_deref(), Some("ada"));
}

#[test]
fn what_the_key_fixes_a_token_cannot_override() {
    let fixed = Actor { team: Some("core".to_owned()), ..Actor::default() };
    let claimed = |team: &str| Actor { team: Some(team.to_owned()), ..named("ada") };
    assert_eq!(Actor::overlay(&fixed, claimed("core")), Ok(claimed("core")));
    assert_eq!(Actor::overlay(&fixed, named("ada")), Ok(claimed("core")));
    assert_eq!(Actor::overlay(&Actor::default(), claimed("x")), Ok(claimed("x")));
    let error = Actor::overlay(&fixed, claimed("other")).unwrap_err();
    assert_eq!(error, ActorError::ContradictsKey { claim: "team" });
    assert_eq!(error.code(), "actor_contradicts_key");
}

#[test]
fn every_claim_of_an_actor_comes_back_from_its_token() {
    let text = |name: &str| Some(format!("a {name}"));
    let actor = Actor {
        user: text("user"),
        team: text("team"),
        app: text("app"),
        feature: text("feature"),
        agent: text("agent"),
        customer: text("customer"),
        environment: text("environment"),
        session: text("session"),
    };
    let token = mint(&actor, "k1", SECRET, NOW, NOW.plus_ms(60_000));
    assert_eq!(verify(&token, &secrets(), NOW), Ok(actor.clone()));
    for (name, value) in actor.claims() {
        assert_eq!(value, text(name).as_deref());
        assert_eq!(actor.claim(name), value);
    }
    assert_eq!(Actor::overlay(&actor, actor.clone()), Ok(actor.clone()));
    assert_eq!(actor.validate(), Ok(()));
    assert!(named("").validate().is_err());
    let json = serde_json::to_string(&named("ada")).unwrap();
    assert_eq!(json, r#"{"user":"ada"}"#);
    assert!(serde_json::from_str::<Actor>(r#"{"usr":"ada"}"#).is_err());
}

proptest! {
    #[test]
    fn a_token_with_any_one_byte_changed_is_refused(at in any::<prop::sample::Index>(), byte in 0_u8..128) {
        let token = mint(&named("ada"), "k1", SECRET, NOW, NOW.plus_ms(60_000));
        let mut bytes = token.into_bytes();
        let at = at.index(bytes.len());
        prop_assume!(bytes[at] != byte);
        bytes[at] = byte;
        prop_assert!(verify(&String::from_utf8(bytes).unwrap(), &secrets(), NOW).is_err());
    }

    #[test]
    fn any_actor_that_is_valid_round_trips(user in "\\PC{1,128}", team in "\\PC{1,128}") {
        let actor = Actor { team: Some(team), ..named(&user) };
        let token = mint(&actor, "k1", SECRET, NOW, NOW.plus_ms(60_000));
        prop_assert_eq!(verify(&token, &secrets(), NOW), actor.validate().map(|()| actor));
    }

    #[test]
    fn verifying_never_panics(token in "\\PC{0,60}", header in "\\PC{0,20}", payload in "\\PC{0,60}") {
        let _ = verify(&token, &secrets(), NOW);
        let _ = verify(&jws::seal(&header, "{}", SECRET), &secrets(), NOW);
        let _ = verified(&payload);
        let _ = verified(&format!(r#"{{"exp":{payload}}}"#));
    }

    #[test]
    fn no_message_repeats_a_part_of_the_token(claim in "[a-z]{12,40}") {
        let payload = format!(r#"{{"exp":1800000600,"team":["{claim}"]}}"#);
        let error = verified(&payload).unwrap_err();
        let shown = format!("{error} {error:?}");
        prop_assert!(!shown.contains(&claim));
    }
}

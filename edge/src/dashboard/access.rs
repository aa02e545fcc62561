//! Who Cloudflare Access says it is. The shell has checked the token's signature against the team's keys; what the token
//! says is judged here.

use serde::Deserialize;
use tallygate_shared::time::Timestamp;

/// Clocks differ by that much.
const LEEWAY_S: i64 = 60;

/// Which tokens are for us.
#[derive(Clone, Debug, Default)]
pub struct AccessSettings {
    /// The team's domain, such as `acme.cloudflareaccess.com`.
    pub team_domain: String,
    /// The application's audience tag.
    pub audience: String,
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    aud: Audience,
    exp: i64,
    #[serde(default)]
    nbf: i64,
    #[serde(default)]
    email: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

/// The mail address of a token's claims, in lower case. `None`: the token is not for us, not now, or not a person's.
pub(super) fn mail(claims: &str, settings: &AccessSettings, now: Timestamp) -> Option<String> {
    if settings.team_domain.is_empty() || settings.audience.is_empty() {
        return None;
    }
    let claims: Claims = serde_json::from_str(claims).ok()?;
    let issuer = match settings.team_domain.contains("://") {
        true => settings.team_domain.clone(),
        false => format!("https://{}", settings.team_domain),
    };
    let meant = match &claims.aud {
        Audience::One(audience) => *audience == settings.audience,
        Audience::Many(all) => all.contains(&settings.audience),
    };
    let seconds = now.seconds();
    let in_time = claims.exp > seconds - LEEWAY_S && claims.nbf <= seconds + LEEWAY_S;
    let mail = claims.email.to_ascii_lowercase();
    (claims.iss == issuer && meant && in_time && !mail.is_empty()).then_some(mail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn only_a_persons_token_for_us_and_now_counts() {
        let settings = AccessSettings {
            team_domain: "acme.cloudflareaccess.com".to_owned(),
            audience: "tag".to_owned(),
        };
        let good = json!({ "iss": "https://acme.cloudflareaccess.com", "aud": ["other", "tag"], "exp": 1_000,
                           "nbf": 900, "iat": 900, "email": "Ann@Example.com" });
        let found = |claims: &Value, second: i64| {
            mail(&claims.to_string(), &settings, Timestamp::from_ms(second * 1_000))
        };
        assert_eq!(found(&good, 950).as_deref(), Some("ann@example.com"));
        assert_eq!(found(&good, 1_060), None);
        assert_eq!(found(&good, 839), None);
        for (name, value) in [
            ("iss", json!("https://evil.cloudflareaccess.com")),
            ("aud", json!(["other"])),
            ("aud", json!("")),
            ("email", json!("")),
            ("exp", Value::Null),
        ] {
            let mut bad = good.clone();
            bad[name] = value;
            assert_eq!(found(&bad, 950), None, "{name}");
        }
        let unset = AccessSettings::default();
        assert_eq!(mail(&good.to_string(), &unset, Timestamp::from_ms(950_000)), None);
    }
}

//! Short-lived tokens for the sources that want one. A token is never kept, logged or part of an error.

use reqwest::RequestBuilder;
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use serde::Deserialize;

use super::http::Http;
use super::read::Reader;
use super::{PullError, Secret};

#[derive(Deserialize)]
struct Answer {
    access_token: Secret,
}

const WHAT: &str = "an access token";

/// Asks for a token with a form of `fields`, and gives it as the value of an `Authorization` header. `request` builds
/// the request without its body.
pub(super) async fn token(
    http: &Http,
    source: &'static str,
    fields: &[(&str, &str)],
    request: impl Fn(&reqwest::Client) -> RequestBuilder,
) -> Result<HeaderValue, PullError> {
    let body = form(fields);
    let ask = |client: &reqwest::Client| {
        request(client).header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(body.clone())
    };
    let answer = http.get(WHAT, ask).await?;
    let reader = Reader::new(source, WHAT);
    let answer: Answer = reader.json(&answer).map_err(|error| match error {
        // Where it is wrong, and nothing of what came: a token may be in it.
        PullError::Unreadable { field, .. } => reader.wrong(&field, "is not as documented"),
        other => other,
    })?;
    answer.access_token.header(source, "Bearer ")
}

fn form(fields: &[(&str, &str)]) -> String {
    let Ok(mut url) = reqwest::Url::parse("form:") else { return String::new() };
    url.query_pairs_mut().extend_pairs(fields);
    url.query().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_escaped() {
        assert_eq!(form(&[("a", "x y"), ("secret", "p&q=é")]), "a=x+y&secret=p%26q%3D%C3%A9");
    }
}

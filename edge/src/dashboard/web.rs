//! A page's request as the shell hands it over, and what the shell is told.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::admin::call::{self, decoded};

/// A request to a page.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Request {
    /// `GET`, `HEAD` or `POST`.
    pub method: String,
    /// The absolute address.
    pub url: String,
    /// The `cookie` header.
    pub cookie: Option<String>,
    /// The `origin` header.
    pub origin: Option<String>,
    /// The `sec-fetch-site` header.
    pub fetch_site: Option<String>,
    /// Where the request comes from, as the platform says.
    pub address: Option<String>,
    /// What a token of Cloudflare Access says, whose signature the shell has checked.
    pub access: Option<String>,
    /// What the OpenID provider says.
    pub oidc: Option<FromProvider>,
    /// Random bytes for a sign-in that begins, base64url.
    pub random: Option<String>,
    /// A form's text.
    pub body: String,
    /// The body was too large to be read.
    pub body_too_large: bool,
    /// The id of this request.
    pub request_id: String,
}

/// What the shell heard from the OpenID provider.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "said", rename_all = "snake_case", deny_unknown_fields)]
pub enum FromProvider {
    /// Where people sign in there.
    Discovered {
        /// The address.
        authorization_endpoint: String,
    },
    /// A token whose signature the shell has checked.
    Vouched {
        /// What it says.
        claims: String,
    },
    /// Nothing that can be used.
    Failed {
        /// Why, in a few words.
        why: String,
    },
}

impl Request {
    /// `https://host:port`.
    pub fn own_origin(&self) -> &str {
        self.split().0
    }

    /// The path, percent-encoded as it came.
    pub fn path(&self) -> &str {
        self.split().1.split_once('?').map_or(self.split().1, |(path, _)| path)
    }

    /// The path and the query.
    pub fn target(&self) -> &str {
        self.split().1
    }

    /// The query's parameters.
    pub(super) fn query(&self) -> Fields {
        Fields::parse(self.split().1.split_once('?').map_or("", |(_, query)| query))
    }

    /// The form's fields.
    pub(super) fn form(&self) -> Fields {
        Fields::parse(&self.body)
    }

    /// Whether the browser reached us by TLS.
    pub fn is_secure(&self) -> bool {
        self.url.starts_with("https://")
    }

    /// A cookie's value.
    pub fn cookie(&self, name: &str) -> Option<&str> {
        let pairs =
            self.cookie.as_deref()?.split(';').filter_map(|pair| pair.trim().split_once('='));
        pairs.into_iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// Whether one of our own pages sent this. A browser says so in one of two headers; a form that comes with neither
    /// is not from one.
    pub fn is_from_own_page(&self) -> bool {
        let site = self.fetch_site.as_deref().map(|site| site == "same-origin");
        let origin = self.origin.as_deref().map(|origin| origin == self.own_origin());
        site.or(origin) == Some(true) && origin != Some(false)
    }

    fn split(&self) -> (&str, &str) {
        let host = self.url.find("://").map_or(0, |place| place + 3);
        let end = self.url.get(host..).and_then(|rest| rest.find('/')).map(|place| host + place);
        self.url.split_at_checked(end.unwrap_or(self.url.len())).unwrap_or((&self.url, ""))
    }
}

/// Named values: a query, or a form.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fields(pub(crate) Vec<(String, String)>);

impl Fields {
    /// Reads `a=1&b=2`.
    pub(super) fn parse(text: &str) -> Self {
        let pairs = text.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decoded(&name.replace('+', " ")), decoded(&value.replace('+', " ")))
        });
        Self(pairs.collect())
    }

    /// A value, trimmed; an empty one is as good as none: that is how a browser sends a field left empty.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.trim());
        found.filter(|value| !value.is_empty())
    }

    /// A value, or nothing.
    pub(super) fn text(&self, name: &str) -> &str {
        self.get(name).unwrap_or_default()
    }

    /// These values with one of them set, or left out.
    pub(super) fn with(&self, name: &str, value: Option<&str>) -> Self {
        let others = self.0.iter().filter(|(known, value)| known != name && !value.is_empty());
        let added = value.map(|value| (name.to_owned(), value.to_owned()));
        Self(others.cloned().chain(added).collect())
    }

    /// What is asked for without: the parts of `none`. An empty field of a form is no filter, so this has one of its own.
    pub(super) fn without(&self) -> impl Iterator<Item = &str> {
        self.text("none").split(',').map(str::trim).filter(|name| !name.is_empty())
    }

    /// These values, and this one is asked for without.
    pub(super) fn with_none(&self, name: &str) -> Self {
        let others = self.without().filter(|known| *known != name);
        let names: Vec<&str> = others.chain([name]).collect();
        self.with(name, None).with("none", Some(&names.join(",")))
    }

    /// `?a=1&b=2`; nothing without values.
    pub(crate) fn query(&self) -> String {
        let pairs: Vec<String> = self
            .0
            .iter()
            .map(|(name, value)| format!("{}={}", encoded(name), encoded(value)))
            .collect();
        if pairs.is_empty() { String::new() } else { format!("?{}", pairs.join("&")) }
    }
}

/// Percent-encoded, for a segment of a path or a value of a query.
pub(crate) fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// One call of the admin API that a page needs.
#[derive(Clone, Debug, PartialEq)]
pub struct Ask {
    /// The method.
    pub method: &'static str,
    /// The path behind the workspace, percent-encoded.
    pub path: String,
    /// The query.
    pub(super) query: Fields,
    /// The body.
    pub body: Option<Value>,
}

impl Ask {
    /// A question.
    pub fn get(path: impl Into<String>) -> Self {
        Self { method: "GET", path: path.into(), query: Fields::default(), body: None }
    }

    /// A change.
    pub fn send(method: &'static str, path: impl Into<String>, body: Option<Value>) -> Self {
        Self { method, path: path.into(), query: Fields::default(), body }
    }

    /// With a parameter.
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.query.0.push((name.to_owned(), value.into()));
        self
    }

    /// With those parameters of the page's query that the API knows too.
    pub(super) fn with_those(mut self, query: &Fields, names: &[&str]) -> Self {
        for name in names {
            if let Some(value) = query.get(name) {
                self.query.0.push(((*name).to_owned(), value.to_owned()));
            }
        }
        self
    }

    /// Without what the page's query asks for without: the API takes an empty value for that.
    pub(super) fn with_none_of(self, query: &Fields) -> Self {
        query.without().fold(self, |ask, name| ask.with(name, ""))
    }
}

/// What the admin API answered.
#[derive(Clone, Debug, Deserialize)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The body.
    pub body: String,
}

impl Answer {
    /// The body, of a success.
    pub fn value(&self) -> Option<Value> {
        (self.status < 300).then(|| serde_json::from_str(&self.body).ok()).flatten()
    }

    /// What went wrong, in the API's words.
    pub fn problem(&self) -> Option<String> {
        if self.status < 300 {
            return None;
        }
        let body: Value = serde_json::from_str(&self.body).unwrap_or_default();
        let detail = body.get("detail").and_then(Value::as_str);
        let errors = body.get("errors").and_then(Value::as_array).into_iter().flatten();
        let mut text = detail.unwrap_or("The gateway gave no answer. Try again.").to_owned();
        for error in errors {
            let part = |name: &str| error.get(name).and_then(Value::as_str).unwrap_or_default();
            let more = format!(" {}: {} {}", part("field"), part("detail"), part("remedy"));
            text.push_str(more.trim_end());
        }
        Some(text)
    }
}

/// What the shell does next.
#[derive(Debug, Serialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Step {
    /// Answer.
    Respond {
        /// The status.
        status: u16,
        /// The headers.
        headers: Vec<(&'static str, String)>,
        /// The body.
        body: String,
    },
    /// Ask the OpenID provider for the token of this code, then come back with what it says.
    Exchange {
        /// The code.
        code: String,
        /// What proves that we began this sign-in.
        verifier: String,
        /// Where the code was sent to.
        redirect_uri: String,
    },
    /// Make this call of the admin API. Where it answers with a file, that is the answer; else come back with what it said.
    File {
        /// Its first step.
        first: call::Step,
    },
    /// Make these calls of the admin API, all at once, then come back with their answers.
    Calls {
        /// Their first steps.
        steps: Vec<call::Step>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(url: &str) -> Request {
        Request { url: url.to_owned(), ..Request::default() }
    }

    #[test]
    fn an_address_has_an_origin_a_path_and_a_query() {
        let it = request("https://gate.test:8/dashboard/a%2Fb?from=x+y&to=");
        assert_eq!(it.own_origin(), "https://gate.test:8");
        assert_eq!(it.path(), "/dashboard/a%2Fb");
        assert_eq!((it.query().get("from"), it.query().get("to")), (Some("x y"), None));
        assert!(it.is_secure());
        let bare = request("http://gate.test");
        assert_eq!((bare.own_origin(), bare.path()), ("http://gate.test", ""));
    }

    #[test]
    fn only_our_own_pages_may_send_forms() {
        let own = "https://gate.test";
        for (origin, site, allowed) in [
            (Some(own), Some("same-origin"), true),
            (Some(own), None, true),
            (None, Some("same-origin"), true),
            (None, None, false),
            (Some("null"), None, false),
            (Some("https://gate.test.evil.test"), None, false),
            (Some("https://evil.test"), Some("same-origin"), false),
            (Some(own), Some("cross-site"), false),
            (None, Some("same-site"), false),
            (None, Some("none"), false),
        ] {
            let it = Request {
                origin: origin.map(str::to_owned),
                fetch_site: site.map(str::to_owned),
                ..request("https://gate.test/dashboard")
            };
            assert_eq!(it.is_from_own_page(), allowed, "{origin:?} {site:?}");
        }
    }

    #[test]
    fn a_query_survives_its_way_through_a_link() {
        let fields = Fields(vec![("team".to_owned(), "a&b=c d/é".to_owned())]);
        assert_eq!(Fields::parse(fields.query().trim_start_matches('?')), fields);
        assert_eq!(fields.with("team", None).query(), "");
    }
}

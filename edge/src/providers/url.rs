//! Where a provider serves an endpoint.

use super::ProviderKind;
use crate::dialects::Endpoint;

/// Azure's name for a model that a customer has set up, and the API version to call it by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deployment<'a> {
    /// The deployment's name.
    pub name: &'a str,
    /// `api-version`. With one the older, deployment-styled address is used; without, the `v1` address.
    pub api_version: Option<&'a str>,
}

/// Why there is no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// The provider has no such endpoint.
    #[error("{provider} does not serve {endpoint}", provider = .provider.name(), endpoint = .endpoint.path())]
    NotServed {
        /// The provider asked.
        provider: ProviderKind,
        /// The endpoint it lacks.
        endpoint: Endpoint,
    },
    /// The provider has an address for each customer, and none is configured.
    #[error("{provider} needs a base URL", provider = .0.name())]
    NoBaseUrl(ProviderKind),
    /// A deployment name or API version that would change the address.
    #[error("deployment name or API version has characters that do not belong in a URL")]
    BadDeployment,
}

/// The address to call. `base_url` is the configured one, else the provider's own.
pub fn upstream_url(
    provider: ProviderKind,
    base_url: Option<&str>,
    endpoint: Endpoint,
    deployment: Option<Deployment<'_>>,
) -> Result<String, UrlError> {
    if !serves(provider, endpoint) {
        return Err(UrlError::NotServed { provider, endpoint });
    }
    let base = base_url.or(provider.facts().base_url).ok_or(UrlError::NoBaseUrl(provider))?;
    let base = base.trim_end_matches('/');
    let path = endpoint.path();
    let short = path.strip_prefix("/v1").unwrap_or(path);
    Ok(match provider {
        ProviderKind::Azure => return azure_url(base, short, deployment),
        // Base URLs are configured with and without the version: Anthropic's SDKs want them without, others with.
        ProviderKind::Anthropic => format!("{}{path}", base.strip_suffix("/v1").unwrap_or(base)),
        ProviderKind::Deepseek if endpoint == Endpoint::Messages => {
            let root = base.strip_suffix("/v1").unwrap_or(base);
            let root = root.strip_suffix("/anthropic").unwrap_or(root);
            format!("{root}/anthropic{path}")
        }
        ProviderKind::Perplexity if endpoint != Endpoint::ChatCompletions => {
            format!("{}{path}", base.strip_suffix("/v1").unwrap_or(base))
        }
        ProviderKind::Openai
        | ProviderKind::Gemini
        | ProviderKind::Mistral
        | ProviderKind::Groq
        | ProviderKind::Openrouter
        | ProviderKind::Perplexity
        | ProviderKind::Deepseek
        | ProviderKind::Xai
        | ProviderKind::Cohere
        | ProviderKind::Compatible => format!("{base}{short}"),
    })
}

fn azure_url(
    base: &str,
    short: &str,
    deployment: Option<Deployment<'_>>,
) -> Result<String, UrlError> {
    let plain = |text: &str| {
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    };
    // Configured as the resource's root, as `/openai` or as `/openai/v1`: all mean the same resource.
    let root = base.strip_suffix("/v1").unwrap_or(base);
    let root = root.strip_suffix("/openai").unwrap_or(root);
    match deployment {
        Some(Deployment { name, api_version: Some(version) }) => {
            // A name of dots alone would walk up the path.
            if !plain(name) || !plain(version) || name.bytes().all(|b| b == b'.') {
                return Err(UrlError::BadDeployment);
            }
            Ok(format!("{root}/openai/deployments/{name}{short}?api-version={version}"))
        }
        Some(Deployment { api_version: None, .. }) | None => Ok(format!("{root}/openai/v1{short}")),
    }
}

pub(crate) const fn serves(provider: ProviderKind, endpoint: Endpoint) -> bool {
    match provider {
        // Its OpenAI layer drops the cache from its usage: money would be lost.
        ProviderKind::Anthropic => {
            matches!(endpoint, Endpoint::Messages | Endpoint::CountTokens | Endpoint::Models)
        }
        ProviderKind::Openrouter | ProviderKind::Deepseek => {
            !matches!(endpoint, Endpoint::CountTokens | Endpoint::Moderations)
        }
        ProviderKind::Compatible => true,
        ProviderKind::Perplexity => matches!(
            endpoint,
            Endpoint::ChatCompletions | Endpoint::Responses | Endpoint::Embeddings
        ),
        ProviderKind::Openai
        | ProviderKind::Azure
        | ProviderKind::Gemini
        | ProviderKind::Mistral
        | ProviderKind::Groq
        | ProviderKind::Xai
        | ProviderKind::Cohere => !matches!(endpoint, Endpoint::Messages | Endpoint::CountTokens),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(
        provider: ProviderKind,
        base: Option<&str>,
        endpoint: Endpoint,
        expect: Result<&str, UrlError>,
    ) {
        let url = upstream_url(provider, base, endpoint, None);
        assert_eq!(url.as_deref(), expect.as_ref().copied(), "{provider:?} {endpoint:?}");
    }

    #[test]
    fn each_provider_has_its_own_address_for_an_endpoint() {
        use Endpoint::{ChatCompletions, Embeddings, Messages, Responses};
        use ProviderKind as P;
        check(P::Openai, None, ChatCompletions, Ok("https://api.openai.com/v1/chat/completions"));
        check(P::Openai, Some("http://h/v1/"), Responses, Ok("http://h/v1/responses"));
        check(P::Anthropic, None, Messages, Ok("https://api.anthropic.com/v1/messages"));
        check(P::Anthropic, Some("http://h/v1"), Messages, Ok("http://h/v1/messages"));
        check(P::Deepseek, None, ChatCompletions, Ok("https://api.deepseek.com/chat/completions"));
        check(P::Deepseek, None, Messages, Ok("https://api.deepseek.com/anthropic/v1/messages"));
        check(
            P::Perplexity,
            None,
            ChatCompletions,
            Ok("https://api.perplexity.ai/chat/completions"),
        );
        check(P::Perplexity, None, Embeddings, Ok("https://api.perplexity.ai/v1/embeddings"));
        check(P::Compatible, None, Messages, Err(UrlError::NoBaseUrl(P::Compatible)));
        check(
            P::Anthropic,
            None,
            ChatCompletions,
            Err(UrlError::NotServed { provider: P::Anthropic, endpoint: ChatCompletions }),
        );
    }

    #[test]
    fn azure_is_called_by_deployment_when_an_api_version_is_set() {
        let url = |base, name, api_version| {
            let deployment = Some(Deployment { name, api_version });
            upstream_url(ProviderKind::Azure, Some(base), Endpoint::ChatCompletions, deployment)
        };
        let by_deployment = "https://r.openai.azure.com/openai/deployments/gpt/chat/completions?api-version=2024-10-21";
        for base in ["https://r.openai.azure.com", "https://r.openai.azure.com/openai/v1/"] {
            assert_eq!(url(base, "gpt", Some("2024-10-21")).as_deref(), Ok(by_deployment));
            assert_eq!(
                url(base, "gpt", None).as_deref(),
                Ok("https://r.openai.azure.com/openai/v1/chat/completions")
            );
        }
        for bad in ["", "a/b", "..", "a?b", "a b"] {
            assert_eq!(url("https://h", bad, Some("v")), Err(UrlError::BadDeployment), "{bad}");
        }
    }
}

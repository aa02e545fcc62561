//! The names that FOCUS wants for who sells, hosts and bills. The ledger knows providers by the price book's names.

/// What FOCUS says of a provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seller<'a> {
    /// Who sends the invoice, and sells the service. One text for both: FOCUS 1.2 readers take a difference for a
    /// reseller, whose own charges must be 0.
    pub issuer: &'a str,
    /// Where it runs, where that is known.
    pub host: Option<&'a str>,
    /// The service's name.
    pub service: &'a str,
    /// Its category.
    pub category: &'static str,
    /// Its subcategory, a child of the category.
    pub subcategory: &'static str,
    /// What the billed account is to the provider.
    pub account_type: &'static str,
}

const AI: (&str, &str) = ("AI and Machine Learning", "Generative AI");
const DEVELOPER: (&str, &str) = ("Developer Tools", "Development Environments");

/// Provider, issuer, host, service, category and subcategory, type of account.
type Entry = (
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    (&'static str, &'static str),
    &'static str,
);

#[rustfmt::skip]
const SELLERS: &[Entry] = &[
    ("openai", "OpenAI", "OpenAI", "OpenAI API", AI, "Organization"),
    ("anthropic", "Anthropic", "Anthropic", "Claude API", AI, "Organization"),
    ("bedrock", "Amazon Web Services", "Amazon Web Services", "Amazon Bedrock", AI, "Account"),
    ("bedrock-mantle", "Amazon Web Services", "Amazon Web Services", "Amazon Bedrock", AI, "Account"),
    ("azure", "Microsoft", "Microsoft", "Azure OpenAI", AI, "Subscription"),
    ("google", "Google", "Google", "Gemini API", AI, "Billing Account"),
    ("vertex", "Google", "Google", "Vertex AI", AI, "Billing Account"),
    ("mistral", "Mistral AI", "Mistral AI", "Mistral API", AI, "Organization"),
    ("cohere", "Cohere", "Cohere", "Cohere API", AI, "Organization"),
    ("xai", "xAI", "xAI", "xAI API", AI, "Team"),
    ("groq", "Groq", "Groq", "GroqCloud", AI, "Organization"),
    ("perplexity", "Perplexity", "Perplexity", "Perplexity API", AI, "Organization"),
    ("deepseek", "DeepSeek", "DeepSeek", "DeepSeek API", AI, "Account"),
    // OpenRouter sends a request on to whoever is cheapest: it does not say where it ran.
    ("openrouter", "OpenRouter", "", "OpenRouter API", AI, "Organization"),
    ("github_copilot", "GitHub", "GitHub", "GitHub Copilot", DEVELOPER, "Organization"),
    ("cursor", "Cursor", "Cursor", "Cursor", DEVELOPER, "Team"),
    ("claude_code", "Anthropic", "Anthropic", "Claude Code", DEVELOPER, "Organization"),
    ("vercel", "Vercel", "Vercel", "Vercel", ("Web", "Application Platforms"), "Team"),
    ("mongodb_atlas", "MongoDB", "MongoDB", "MongoDB Atlas", ("Databases", "NoSQL Databases"), "Organization"),
];

/// Services of a cloud, by a word of their name. The first that fits counts; one name has one category.
#[rustfmt::skip]
const CLOUD_SERVICES: &[(&str, (&str, &str))] = &[
    ("bedrock", AI),
    ("openai", AI),
    ("sagemaker", ("AI and Machine Learning", "Machine Learning")),
    ("opensearch", ("Analytics", "Search")),
    ("kendra", ("Analytics", "Search")),
    ("cognitive search", ("Analytics", "Search")),
    ("athena", ("Analytics", "Analytics Platforms")),
    ("glue", ("Analytics", "Data Processing")),
    ("lambda", ("Compute", "Serverless Compute")),
    ("functions", ("Compute", "Serverless Compute")),
    ("elastic compute", ("Compute", "Virtual Machines")),
    ("ec2", ("Compute", "Virtual Machines")),
    ("virtual machines", ("Compute", "Virtual Machines")),
    ("container", ("Compute", "Containers")),
    ("kubernetes", ("Compute", "Containers")),
    ("dynamodb", ("Databases", "NoSQL Databases")),
    ("cosmos", ("Databases", "NoSQL Databases")),
    ("elasticache", ("Databases", "Caching")),
    ("redis", ("Databases", "Caching")),
    ("relational database", ("Databases", "Relational Databases")),
    ("sql", ("Databases", "Relational Databases")),
    ("simple storage", ("Storage", "Object Storage")),
    ("s3", ("Storage", "Object Storage")),
    ("storage", ("Storage", "Other (Storage)")),
    ("cloudwatch", ("Management and Governance", "Observability")),
    ("x-ray", ("Management and Governance", "Observability")),
    ("monitor", ("Management and Governance", "Observability")),
    ("secrets manager", ("Security", "Secret Management")),
    ("key management", ("Security", "Secret Management")),
    ("api gateway", ("Integration", "API Management")),
    ("queue", ("Integration", "Messaging")),
    ("step functions", ("Integration", "Workflow Orchestration")),
    ("cloudfront", ("Networking", "Content Delivery")),
    ("virtual private cloud", ("Networking", "Network Infrastructure")),
];

/// The seller of a line: `service` is the service as the bill names it, for costs around the model.
pub fn seller<'a>(provider: &'a str, service: &'a str) -> Seller<'a> {
    // Azure bills models and all else under one name: a line that names no known model is for some other service.
    let model_seller = provider != "azure" || developer(service).is_some();
    if let Some((_, issuer, host, name, (category, subcategory), account_type)) =
        SELLERS.iter().find(|entry| entry.0 == provider).filter(|_| model_seller)
    {
        let host = (!host.is_empty()).then_some(*host);
        return Seller { issuer, host, service: name, category, subcategory, account_type };
    }
    let cloud = match provider {
        "aws" => Some(("Amazon Web Services", "Account")),
        "azure" => Some(("Microsoft", "Subscription")),
        _ => None,
    };
    let lower = service.to_ascii_lowercase();
    let found = CLOUD_SERVICES.iter().find(|(word, _)| lower.contains(word));
    let (category, subcategory) = found.map_or(("Other", "Other (Other)"), |(_, names)| *names);
    let (issuer, account_type) = cloud.unwrap_or((provider, "Account"));
    Seller { issuer, host: Some(issuer), service, category, subcategory, account_type }
}

/// Who made a model, and its family, by the beginning of its name without a cloud's prefixes.
#[rustfmt::skip]
const DEVELOPERS: &[(&str, &str, &str)] = &[
    ("gpt-", "OpenAI", "GPT"), ("chatgpt", "OpenAI", "GPT"), ("o1", "OpenAI", "o-series"), ("o3", "OpenAI", "o-series"),
    ("o4", "OpenAI", "o-series"), ("text-embedding", "OpenAI", "Text Embedding"),
    ("claude", "Anthropic", "Claude"), ("gemini", "Google", "Gemini"), ("gemma", "Google", "Gemma"),
    ("mistral", "Mistral AI", "Mistral"), ("codestral", "Mistral AI", "Codestral"),
    ("devstral", "Mistral AI", "Devstral"), ("magistral", "Mistral AI", "Magistral"),
    ("ministral", "Mistral AI", "Ministral"), ("command", "Cohere", "Command"), ("rerank", "Cohere", "Rerank"),
    ("grok", "xAI", "Grok"), ("sonar", "Perplexity", "Sonar"), ("deepseek", "DeepSeek", "DeepSeek"),
    ("llama", "Meta", "Llama"), ("qwen", "Alibaba Cloud", "Qwen"), ("nova", "Amazon", "Nova"),
    ("titan", "Amazon", "Titan"), ("kimi", "Moonshot AI", "Kimi"),
];

/// The developer and the family of a model, where its name tells.
pub fn developer(model: &str) -> Option<(&'static str, &'static str)> {
    // `us.anthropic.claude-...`, `meta-llama/llama-...`: the name proper is behind the last separator before it.
    let lower = model.to_ascii_lowercase();
    let starts = std::iter::once(0)
        .chain(lower.match_indices(['.', '/']).map(|(at, separator)| at + separator.len()));
    let names: Vec<&str> = starts.filter_map(|at| lower.get(at..)).collect();
    DEVELOPERS
        .iter()
        .find(|(start, ..)| names.iter().any(|name| name.starts_with(start)))
        .map(|(_, developer, family)| (*developer, *family))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::focus::columns::{SERVICE_CATEGORIES, SERVICE_SUBCATEGORIES};

    #[test]
    fn every_category_is_one_of_focus_and_the_parent_of_its_subcategory() {
        let clouds = CLOUD_SERVICES.iter().map(|entry| entry.1);
        for (category, subcategory) in SELLERS.iter().map(|entry| entry.4).chain(clouds) {
            assert!(SERVICE_CATEGORIES.contains(&category), "{category}");
            assert!(SERVICE_SUBCATEGORIES.contains(&(subcategory, category)), "{subcategory}");
        }
    }

    #[test]
    fn a_cloud_sells_models_of_others_in_its_own_name() {
        let bedrock = seller("bedrock", "anthropic.claude-haiku-4-5");
        assert_eq!((bedrock.issuer, bedrock.service), ("Amazon Web Services", "Amazon Bedrock"));
        assert_eq!(developer("us.anthropic.claude-haiku-4-5-v1:0"), Some(("Anthropic", "Claude")));
        assert_eq!(developer("meta-llama/llama-4-scout"), Some(("Meta", "Llama")));
        assert_eq!(developer("something-else"), None);
        assert_eq!(seller("aws", "Amazon OpenSearch Service").subcategory, "Search");
        assert_eq!(seller("azure", "gpt-4o").service, "Azure OpenAI");
        assert_eq!(seller("azure", "Azure Cosmos DB").subcategory, "NoSQL Databases");
        assert_eq!(seller("new_tool", "New Tool").category, "Other");
    }
}

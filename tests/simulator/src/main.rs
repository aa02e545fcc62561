//! A provider simulator: OpenAI's and Anthropic's APIs over real HTTP and SSE, with faults on request and books of its
//! own. It stands in for the providers at the network; nothing in the gateway knows of it.

mod anthropic;
mod billing;
mod bills;
mod books;
mod clock;
mod control;
mod invoice;
mod money;
mod openai;
mod quirks;
mod reply;
mod usage;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::{DefaultBodyLimit, Query, Request, State};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use clap::Parser;
use serde_json::{Value, json};

use crate::billing::Endpoint;
use crate::books::Books;
use crate::clock::{Clock, Day, Move, Span};
use crate::control::Scripts;
use crate::quirks::Quirks;
use crate::reply::Call;

#[derive(Parser)]
#[command(about = "A provider simulator over real HTTP and SSE, with its own books")]
struct Arguments {
    /// The address to listen on.
    #[arg(long, default_value = "127.0.0.1")]
    host: String,
    /// The port; 0 takes a free one.
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Makes answers differ between runs, and be the same within the same seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// A file to keep in what is billed, so that a simulator that starts again goes on.
    #[arg(long)]
    books: Option<PathBuf>,
}

/// What every request shares.
#[derive(Default)]
pub(crate) struct Shared {
    books: Mutex<Books>,
    scripts: Mutex<Scripts>,
    clock: Mutex<Clock>,
    /// By provider and account.
    quirks: Mutex<BTreeMap<(String, String), Quirks>>,
    seed: u64,
}

impl Shared {
    /// Works on the books. A thread that panicked while it held them left them whole: every change is one statement.
    pub(crate) fn books<T>(&self, work: impl FnOnce(&mut Books) -> T) -> T {
        work(&mut self.books.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Works on the scripts.
    pub(crate) fn scripts<T>(&self, work: impl FnOnce(&mut Scripts) -> T) -> T {
        work(&mut self.scripts.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What time it is here.
    pub(crate) fn now(&self) -> jiff::Timestamp {
        self.clock.lock().unwrap_or_else(PoisonError::into_inner).now()
    }

    /// Works on the quirks of a provider's bills for an account.
    pub(crate) fn quirks<T>(
        &self,
        provider: &str,
        account: &str,
        work: impl FnOnce(&mut Quirks) -> T,
    ) -> T {
        let mut quirks = self.quirks.lock().unwrap_or_else(PoisonError::into_inner);
        let (provider, account) = (provider.to_owned(), account.to_owned());
        work(quirks.entry((provider.clone(), account.clone())).or_insert_with(|| Quirks {
            provider,
            account,
            ..Quirks::default()
        }))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments = Arguments::parse();
    let books = arguments.books.as_deref().map(Books::kept_in).transpose()?.unwrap_or_default();
    let shared = Shared { seed: arguments.seed, books: Mutex::new(books), ..Shared::default() };
    let shared = Arc::new(shared);
    let router = Router::new()
        .route("/_sim/health", get(|| async { "ok" }))
        .route("/_sim/books", get(show_books))
        .route("/_sim/script", post(add_script))
        .route("/_sim/reset", post(reset))
        .route("/_control/clock", get(show_clock).post(move_clock))
        .route("/_control/bills", post(set_quirks))
        .route("/_control/release", post(release))
        .route("/_control/leak", post(leak))
        .route("/_control/invoice", get(show_invoice))
        .fallback(provider)
        .layer(DefaultBodyLimit::disable())
        .with_state(shared);
    let listener = tokio::net::TcpListener::bind((arguments.host.as_str(), arguments.port)).await?;
    println!("simulator listening on http://{}", listener.local_addr()?);
    let listener = axum::serve::ListenerExt::tap_io(listener, |stream| {
        // Chunks go out one by one, as a provider's do; a stream that refuses the option is merely slower.
        let _ = stream.set_nodelay(true);
    });
    axum::serve(listener, router).await?;
    Ok(())
}

#[derive(serde::Deserialize)]
struct BooksQuery {
    credential: Option<String>,
    limit: Option<usize>,
}

async fn show_books(
    State(shared): State<Arc<Shared>>,
    Query(query): Query<BooksQuery>,
) -> axum::Json<Value> {
    let limit = query.limit.unwrap_or(1_000);
    axum::Json(shared.books(|books| books.show(query.credential.as_deref(), limit)))
}

async fn add_script(State(shared): State<Arc<Shared>>, body: String) -> Response {
    match serde_json::from_str(&body) {
        Ok(script) => {
            shared.scripts(|scripts| scripts.add(script));
            axum::Json(json!({})).into_response()
        }
        Err(error) => (StatusCode::BAD_REQUEST, format!("script: {error}")).into_response(),
    }
}

async fn reset(State(shared): State<Arc<Shared>>) -> axum::Json<Value> {
    shared.books(|books| *books = Books::default());
    shared.scripts(|scripts| *scripts = Scripts::default());
    shared.quirks.lock().unwrap_or_else(PoisonError::into_inner).clear();
    *shared.clock.lock().unwrap_or_else(PoisonError::into_inner) = Clock::default();
    axum::Json(json!({}))
}

/// An answer of a control endpoint: a document, or what is wrong with the one that came.
fn controlled(answer: Result<Value, String>) -> Response {
    match answer {
        Ok(document) => axum::Json(document).into_response(),
        Err(problem) => (StatusCode::BAD_REQUEST, problem).into_response(),
    }
}

fn read<T: serde::de::DeserializeOwned>(what: &str, body: &str) -> Result<T, String> {
    serde_json::from_str(body).map_err(|error| format!("{what}: {error}"))
}

async fn show_clock(State(shared): State<Arc<Shared>>) -> axum::Json<Value> {
    let now = shared.now();
    axum::Json(json!({ "now": now.to_string(), "day": Day::of(now) }))
}

async fn move_clock(State(shared): State<Arc<Shared>>, body: String) -> Response {
    controlled(read::<Move>("clock", &body).and_then(|asked| {
        shared.clock.lock().unwrap_or_else(PoisonError::into_inner).set(&asked)?;
        let now = shared.now();
        Ok(json!({ "now": now.to_string(), "day": Day::of(now) }))
    }))
}

async fn set_quirks(State(shared): State<Arc<Shared>>, body: String) -> Response {
    controlled(read::<Quirks>("bills", &body).and_then(|quirks| {
        quirks.check()?;
        shared.books(|books| bills::check_revisions(books.used(), &quirks))?;
        let (provider, account) = (quirks.provider.clone(), quirks.account.clone());
        shared.quirks(&provider, &account, |old| *old = quirks);
        Ok(json!({}))
    }))
}

/// Whose bills.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Whose {
    provider: String,
    #[serde(default)]
    account: String,
}

async fn release(State(shared): State<Arc<Shared>>, body: String) -> Response {
    controlled(read::<Whose>("release", &body).map(|whose| {
        shared.quirks(&whose.provider, &whose.account, Quirks::release);
        json!({})
    }))
}

async fn leak(State(shared): State<Arc<Shared>>, body: String) -> Response {
    controlled(read::<invoice::Leak>("leak", &body).and_then(|leak| {
        let id = shared.books(|books| leak.enter(books))?;
        Ok(json!({ "api_key_id": id }))
    }))
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct InvoiceQuery {
    provider: String,
    #[serde(default)]
    account: String,
    from: Day,
    /// The day after the last.
    to: Day,
}

async fn show_invoice(
    State(shared): State<Arc<Shared>>,
    Query(query): Query<InvoiceQuery>,
) -> Response {
    controlled(Span::new(query.from, query.to).map(|span| {
        let quirks = shared.quirks(&query.provider, &query.account, |quirks| quirks.clone());
        shared.books(|books| invoice::document(books, &quirks, span))
    }))
}

/// Every other path is a provider's.
async fn provider(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    if let Some(endpoint) = Endpoint::of(&parts.uri) {
        return billing::answer(shared, endpoint, &parts.headers, &parts.uri).await;
    }
    let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
    let bearer = header("authorization").and_then(|value| value.strip_prefix("Bearer "));
    let credential = bearer.or(header("x-api-key")).or(header("api-key")).unwrap_or_default();
    let (flavour, endpoint) = place(&parts.uri);
    let headers = parts.headers.keys().map(|name| name.as_str().to_owned()).collect();
    let gateway_request_id = header("x-tallygate-request-id").map(str::to_owned);
    let Ok(bytes) = axum::body::to_bytes(body, usize::MAX).await else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let call = Call {
        flavour,
        endpoint,
        credential: credential.to_owned(),
        headers,
        gateway_request_id,
        bytes,
    };
    reply::answer(shared, call).await
}

/// The flavour of provider and the endpoint of a path: `/groq/v1/chat/completions` is Groq's chat.
fn place(uri: &Uri) -> (String, String) {
    let mut segments: Vec<&str> = uri.path().split('/').filter(|s| !s.is_empty()).collect();
    let known = [
        "openai",
        "anthropic",
        "azure",
        "gemini",
        "mistral",
        "groq",
        "openrouter",
        "perplexity",
        "deepseek",
        "xai",
        "cohere",
        "vllm",
    ];
    let flavour = match segments.first() {
        Some(first) if known.contains(first) => segments.remove(0),
        _ if uri.path().contains("/messages") => "anthropic",
        _ => "openai",
    };
    let endpoints =
        ["chat/completions", "responses", "completions", "embeddings", "moderations", "models"];
    let endpoints = endpoints.iter().chain(&["messages/count_tokens", "messages"]);
    let path = segments.join("/");
    let endpoint = endpoints.copied().find(|endpoint| path.ends_with(endpoint)).unwrap_or_default();
    (flavour.to_owned(), endpoint.to_owned())
}

//! Kinds of applications, and how each usually uses tokens: how much input for each output, how many in a session. What
//! lies outside its kind's band is worth a look; it is no fault by itself.

use serde::{Deserialize, Serialize};

use super::traffic::Traffic;

/// A kind of application.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Archetype {
    /// Single questions, or retrieval-augmented answers.
    QaOrRag,
    /// A conversation of several turns.
    Chat,
    /// Long documents in, findings out.
    DocumentAnalysis,
    /// Agents that call tools in many turns.
    Agentic,
    /// Code.
    Code,
    /// Texts written from short instructions.
    ContentGeneration,
}

/// The usual range of an archetype.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema), schemars(rename = "ArchetypeBand"))]
pub struct Band {
    /// The kind.
    pub archetype: Archetype,
    /// The least input tokens for each output token, in hundredths: 300 is 3:1.
    pub ratio_from: u64,
    /// The most.
    pub ratio_to: u64,
    /// The fewest tokens in a session.
    pub session_from: u64,
    /// The most; more is usual too for agents.
    pub session_to: u64,
}

const fn band(archetype: Archetype, ratio: [u64; 2], session: [u64; 2]) -> Band {
    let ([ratio_from, ratio_to], [session_from, session_to]) = (ratio, session);
    Band {
        archetype,
        ratio_from: ratio_from * 100,
        ratio_to: ratio_to * 100,
        session_from,
        session_to,
    }
}

/// Every band.
pub const BANDS: [Band; 6] = [
    band(Archetype::QaOrRag, [3, 5], [500, 2_000]),
    band(Archetype::Chat, [4, 8], [2_000, 10_000]),
    band(Archetype::DocumentAnalysis, [10, 20], [5_000, 50_000]),
    band(Archetype::Agentic, [2, 4], [10_000, 200_000]),
    band(Archetype::Code, [3, 6], [1_000, 8_000]),
    band(Archetype::ContentGeneration, [1, 2], [1_000, 5_000]),
];

impl Archetype {
    /// The stable name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::QaOrRag => "qa_or_rag",
            Self::Chat => "chat",
            Self::DocumentAnalysis => "document_analysis",
            Self::Agentic => "agentic",
            Self::Code => "code",
            Self::ContentGeneration => "content_generation",
        }
    }

    /// As people say it.
    pub const fn words(self) -> &'static str {
        match self {
            Self::QaOrRag => "Simple Q&A or RAG",
            Self::Chat => "Multi-turn chat",
            Self::DocumentAnalysis => "Document analysis",
            Self::Agentic => "Agentic",
            Self::Code => "Code",
            Self::ContentGeneration => "Content generation",
        }
    }

    /// Its usual range.
    pub const fn band(self) -> Band {
        let [qa, chat, document, agentic, code, content] = BANDS;
        match self {
            Self::QaOrRag => qa,
            Self::Chat => chat,
            Self::DocumentAnalysis => document,
            Self::Agentic => agentic,
            Self::Code => code,
            Self::ContentGeneration => content,
        }
    }
}

/// Something that lies outside its band.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema), schemars(rename = "OutsideBand"))]
#[serde(rename_all = "snake_case")]
pub enum Outside {
    /// Little input for the output.
    RatioBelow,
    /// Much input for the output.
    RatioAbove,
    /// Short sessions.
    SessionBelow,
    /// Long sessions.
    SessionAbove,
}

impl Outside {
    /// What it may mean.
    pub const fn words(self) -> &'static str {
        match self {
            Self::RatioBelow => "more output than usual: answers may be overlong",
            Self::RatioAbove => "more input than usual: prompts may carry what is not needed",
            Self::SessionBelow => "shorter sessions than usual",
            Self::SessionAbove => "longer sessions than usual: conversations may resend everything",
        }
    }
}

/// An application compared with its kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(
    feature = "openapi",
    derive(schemars::JsonSchema),
    schemars(rename = "ArchetypeComparison")
)]
pub struct Comparison {
    /// The feature or app; empty for what has none.
    pub name: String,
    /// Its kind.
    pub archetype: Archetype,
    /// Whether nobody said so: then it is the kind whose band is nearest.
    pub guessed: bool,
    /// Input tokens for each output token, in hundredths; `None` without output.
    pub ratio: Option<u64>,
    /// Tokens in a session, on average; a request of no session is one by itself.
    pub session_tokens: Option<u64>,
    /// Requests.
    pub requests: u64,
    /// Sessions, and requests of none.
    pub sessions: u64,
    /// The band.
    pub band: Band,
    /// What lies outside it.
    pub outside: Vec<Outside>,
}

/// Compares traffic with its declared kind, or with the nearest one.
pub fn compare(name: &str, traffic: &Traffic, declared: Option<Archetype>) -> Comparison {
    let ratio = ratio(traffic);
    let session_tokens = traffic.tokens().checked_div(traffic.conversations());
    let archetype = declared.unwrap_or_else(|| nearest(ratio, session_tokens));
    let band = archetype.band();
    let agents = archetype == Archetype::Agentic;
    let outside = [
        (ratio.is_some_and(|it| it < band.ratio_from), Outside::RatioBelow),
        (ratio.is_some_and(|it| it > band.ratio_to), Outside::RatioAbove),
        (session_tokens.is_some_and(|it| it < band.session_from), Outside::SessionBelow),
        (session_tokens.is_some_and(|it| it > band.session_to) && !agents, Outside::SessionAbove),
    ];
    Comparison {
        name: name.to_owned(),
        archetype,
        guessed: declared.is_none(),
        ratio,
        session_tokens,
        requests: traffic.requests,
        sessions: traffic.conversations(),
        band,
        outside: outside.into_iter().filter_map(|(is_so, what)| is_so.then_some(what)).collect(),
    }
}

/// Input for each output, in hundredths.
fn ratio(traffic: &Traffic) -> Option<u64> {
    let hundredths = u128::from(traffic.input_total()) * 100;
    u64::try_from(hundredths.checked_div(u128::from(traffic.output))?).ok()
}

/// The kind from whose band both figures are the fewest times away; the first of equals.
fn nearest(ratio: Option<u64>, session: Option<u64>) -> Archetype {
    let away = |value: Option<u64>, from: u64, to: u64| -> u128 {
        let Some(value) = value.map(u128::from) else { return 0 };
        let (from, to) = (u128::from(from), u128::from(to));
        if value < from {
            (from * 1_000).checked_div(value).unwrap_or(u128::MAX / 4) - 1_000
        } else if value > to {
            value * 1_000 / to - 1_000
        } else {
            0
        }
    };
    let far = |band: &Band| {
        let session = away(session, band.session_from, band.session_to);
        away(ratio, band.ratio_from, band.ratio_to).saturating_add(session)
    };
    BANDS.iter().min_by_key(|band| far(band)).map_or(Archetype::Chat, |band| band.archetype)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn traffic(requests: u64, sessions: u64, input: u64, output: u64) -> Traffic {
        let turns = if sessions == 0 { 0 } else { requests };
        Traffic { requests, sessions, turns, input, output, ..Traffic::default() }
    }

    #[test]
    fn each_band_s_middle_is_of_its_kind_and_inside() {
        for band in BANDS {
            assert_eq!(band.archetype.band(), band);
            let session = (band.session_from + band.session_to) / 2;
            let ratio = (band.ratio_from + band.ratio_to) / 2;
            let output = session * 100 / (ratio + 100);
            let found = compare(
                "f",
                &traffic(10, 10, (session - output) * 10, output * 10),
                Some(band.archetype),
            );
            assert_eq!((found.outside.as_slice(), found.guessed), (&[][..], false), "{band:?}");
            let guess = compare("f", &traffic(10, 10, (session - output) * 10, output * 10), None);
            assert!(guess.outside.is_empty() && guess.guessed, "{guess:?}");
        }
    }

    #[test]
    fn what_lies_outside_is_said() {
        let found = compare("f", &traffic(4, 1, 40_000, 100), Some(Archetype::Chat));
        assert_eq!((found.ratio, found.session_tokens), (Some(40_000), Some(40_100)));
        assert_eq!(found.outside, [Outside::RatioAbove, Outside::SessionAbove]);
        let found = compare("f", &traffic(1, 1, 900, 900), Some(Archetype::Agentic));
        assert_eq!(found.outside, [Outside::RatioBelow, Outside::SessionBelow]);
        // An agent may go on.
        let found = compare("f", &traffic(9, 1, 900_000, 300_000), Some(Archetype::Agentic));
        assert!(found.outside.is_empty());
        let nothing = compare("", &Traffic::default(), None);
        assert_eq!((nothing.ratio, nothing.session_tokens, nothing.outside.len()), (None, None, 0));
        assert_eq!(
            compare("", &traffic(1, 0, 60_000, 4_000), None).archetype,
            Archetype::DocumentAnalysis
        );
    }
}

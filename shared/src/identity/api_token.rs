//! API tokens: `tga_<scope>_<token id>_<secret>`, what a person or a script holds to administer.
//!
//! The scope is `operator` or a workspace id. A workspace's name has no `_`, so `ws_operator` and `operator` stay apart.

use std::fmt;

use super::secret::{
    Credential, KeyError, SECRET_RANDOM_LEN, SecretHash, check_secret, mint_behind,
};
use crate::ids::{TokenId, WorkspaceId};

/// Random bytes that a new token is made of.
pub const TOKEN_RANDOM_LEN: usize = 10 + SECRET_RANDOM_LEN;

/// What a token administers: the whole installation, or one workspace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenScope {
    /// The installation.
    Operator,
    /// One workspace.
    Workspace(WorkspaceId),
}

/// A well-formed API token with a checksum that fits. Whether it was ever issued, only its [`SecretHash`] knows.
#[derive(Clone)]
pub struct ApiToken {
    scope: TokenScope,
    id: TokenId,
    text: String,
}

impl ApiToken {
    /// A new token: the first 10 bytes become its id, the others its secret.
    pub fn mint(scope: TokenScope, random: &[u8; TOKEN_RANDOM_LEN]) -> Self {
        let mut id = [0; 10];
        let mut secret = [0; SECRET_RANDOM_LEN];
        for (to, from) in id.iter_mut().chain(secret.iter_mut()).zip(random) {
            *to = *from;
        }
        let id = TokenId::mint(&id);
        let text = mint_behind(&format!("tga_{scope}_{id}_"), &secret);
        Self { scope, id, text }
    }

    /// Takes the text of a token. An error never repeats it.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let rest = text.strip_prefix("tga_").ok_or(KeyError::NotAnApiToken)?;
        let malformed = |problem| KeyError::Malformed { problem };
        let form = || malformed("expected tga_, a scope, _, a token id, _ and a secret");
        let (head, secret) = rest.rsplit_once('_').ok_or_else(form)?;
        let (scope, id) = head.rsplit_once('_').ok_or_else(form)?;
        let scope = match scope {
            "operator" => TokenScope::Operator,
            workspace => TokenScope::Workspace(
                WorkspaceId::parse(workspace)
                    .map_err(|_| malformed("the scope is neither operator nor a workspace id"))?,
            ),
        };
        let id = TokenId::parse(id).map_err(|_| malformed("the token id is not 16 characters"))?;
        check_secret(text, secret)?;
        Ok(Self { scope, id, text: text.to_owned() })
    }

    /// What this token says it administers. Believe it only after the hash has matched.
    pub fn scope(&self) -> &TokenScope {
        &self.scope
    }

    /// The part that may be logged.
    pub fn token_id(&self) -> &TokenId {
        &self.id
    }

    /// The hash to store, or to compare with a stored one.
    pub fn secret_hash(&self) -> SecretHash {
        SecretHash::of(&self.text)
    }

    /// The whole token, to be shown once to the one who asked for it.
    pub fn expose(&self) -> &str {
        &self.text
    }
}

impl Credential for ApiToken {
    fn secret_hash(&self) -> SecretHash {
        Self::secret_hash(self)
    }
}

impl fmt::Display for TokenScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Operator => f.write_str("operator"),
            Self::Workspace(id) => id.fmt(f),
        }
    }
}

/// Never the secret: `tga_<scope>_<token id>_***`.
impl fmt::Display for ApiToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tga_{}_{}_***", self.scope, self.id)
    }
}

impl fmt::Debug for ApiToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiToken({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RANDOM: [u8; TOKEN_RANDOM_LEN] = [7; TOKEN_RANDOM_LEN];

    fn check(scope: &str) {
        let scope = match scope {
            "operator" => TokenScope::Operator,
            id => TokenScope::Workspace(WorkspaceId::parse(id).unwrap()),
        };
        let token = ApiToken::mint(scope.clone(), &RANDOM);
        let parsed = ApiToken::parse(token.expose()).unwrap();
        assert_eq!((parsed.scope(), parsed.token_id()), (&scope, token.token_id()));
        assert!(token.secret_hash().matches(&parsed));
    }

    #[test]
    fn a_token_says_what_it_administers_unambiguously() {
        check("operator");
        check("ws_operator");
        check("ws_acme-2");
    }

    #[test]
    fn a_token_of_another_scope_does_not_pass_by_renaming_it() {
        let token = ApiToken::mint(TokenScope::Operator, &RANDOM);
        let renamed = token.expose().replace("operator", "ws_acme");
        assert_eq!(ApiToken::parse(&renamed).err(), Some(KeyError::ChecksumMismatch));
        let key = "tg_0123456789abcdef_x";
        assert_eq!(ApiToken::parse(key).err(), Some(KeyError::NotAnApiToken));
    }

    #[test]
    fn neither_debug_nor_display_shows_the_secret() {
        let token = ApiToken::mint(TokenScope::Operator, &RANDOM);
        let secret = token.expose().rsplit('_').next().unwrap();
        assert!(!format!("{token} {token:?}").contains(secret));
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in "(tga_)?(operator_|ws_a_)?\\PC{0,80}") {
            let _ = ApiToken::parse(&text);
        }
    }
}

//! What the FOCUS export is told of billed accounts: names, and balances that were paid ahead.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{ConfigError, WorkspaceConfig};
use crate::focus::charges::{Account, Prepaid};

/// A billed account, as the FOCUS export names it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BilledAccount {
    /// The provider, as the ledger names it.
    pub provider: String,
    /// The provider's id of the account.
    pub account: String,
    /// Its name.
    #[serde(default)]
    pub name: Option<String>,
    /// The balance that use is drawn from, where the provider never invoices the use.
    #[serde(default)]
    pub prepaid: Option<Prepaid>,
}

impl WorkspaceConfig {
    /// What the export knows of billed accounts, by provider and id.
    pub fn accounts_by_id(&self) -> BTreeMap<(String, String), Account> {
        let of = |known: &BilledAccount| {
            let account = Account { name: known.name.clone(), prepaid: known.prepaid.clone() };
            ((known.provider.clone(), known.account.clone()), account)
        };
        self.billed_accounts.iter().map(of).collect()
    }
}

/// Each account is named once, and a balance has an id and a name.
pub(super) fn check(accounts: &[BilledAccount], field: &str) -> Result<(), ConfigError> {
    let mut named = BTreeSet::new();
    for (row, known) in accounts.iter().enumerate() {
        if !named.insert((&known.provider, &known.account)) {
            let problem = "is there twice: name each account of a provider once";
            return Err(ConfigError::new(format!("{field}[{row}]"), problem));
        }
        let prepaid = known.prepaid.as_ref();
        if prepaid.is_some_and(|balance| balance.id.is_empty() || balance.name.is_empty()) {
            let problem = "has an empty text: give the balance an id and a name";
            return Err(ConfigError::new(format!("{field}[{row}].prepaid"), problem));
        }
    }
    Ok(())
}

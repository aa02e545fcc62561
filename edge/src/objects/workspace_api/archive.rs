//! The archive: for how long events are kept, and how each month's stands.

use serde_json::json;

use super::{Answer, Api};
use crate::admin::call::Step;
use crate::admin::config_archive::ArchiveSettings;
use crate::objects::sql::Sql;

impl<S: Sql> Api<'_, S> {
    pub(super) fn archive(&self) -> Answer {
        let names = self.ledgers(None, None)?;
        let payload = json!({ "ledgers": names }).to_string();
        Ok(Step::Ledgers { names, method: "archive", payload })
    }

    pub(super) fn put_archive_settings(&mut self) -> Answer {
        let settings: ArchiveSettings = self.context.call.body()?;
        self.edit(|config, _| {
            config.archive = settings;
            Ok(json!(settings))
        })
    }
}

//! The lines of estimates as bytes that sort as the lines do.

use std::collections::BTreeMap;

use crate::bill::{ChargeKind, Meter};
use crate::ledger::LineId;

/// The bytes of (provider, account, model, meter, tier, owner): texts end in `00 01`, a zero within one is `00 FF`, a
/// pair of the owner begins with 1 and the owner ends in 0. So bytes compare as the parts do.
#[derive(Clone, Debug, Default)]
pub(super) struct Key {
    bytes: Vec<u8>,
    meter_at: usize,
}

const METERS: [Meter; 6] =
    [Meter::Input, Meter::CacheRead, Meter::CacheWrite, Meter::Output, Meter::Calls, Meter::Whole];

impl Key {
    /// What the keys of a provider begin with.
    pub(super) fn of_provider(provider: &str) -> Self {
        let mut key = Self::default();
        key.text(provider);
        key
    }

    pub(super) fn write<'a>(
        &mut self,
        provider: &str,
        account: &str,
        model: &str,
        meter: Meter,
        tier: &str,
        owner: impl Iterator<Item = (&'static str, &'a str)>,
    ) {
        self.bytes.clear();
        self.text(provider);
        self.text(account);
        self.text(model);
        self.meter_at = self.bytes.len();
        self.bytes.push(meter as u8);
        self.text(tier);
        for (name, value) in owner {
            self.bytes.push(1);
            self.text(name);
            self.text(value);
        }
        self.bytes.push(0);
    }

    pub(super) fn set_meter(&mut self, meter: Meter) {
        if let Some(byte) = self.bytes.get_mut(self.meter_at) {
            *byte = meter as u8;
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn text(&mut self, text: &str) {
        for byte in text.bytes() {
            self.bytes.push(byte);
            if byte == 0 {
                self.bytes.push(0xFF);
            }
        }
        self.bytes.extend_from_slice(&[0, 1]);
    }
}

/// The provider and the line of a key, if wanted without its owner. `None` when the bytes are no key.
pub(super) fn line_of(key: &[u8], with_owner: bool) -> Option<(String, LineId)> {
    let mut parts = Parts(key);
    let provider = parts.text()?;
    let (account, model) = (parts.text()?, parts.text()?);
    let meter = *METERS.get(usize::from(parts.byte()?))?;
    let tier = parts.text()?;
    let mut owner = BTreeMap::new();
    while with_owner && parts.byte()? == 1 {
        owner.insert(parts.text()?, parts.text()?);
    }
    let kind = ChargeKind::Usage;
    Some((provider, LineId { account, model, meter, tier, kind, owner }))
}

struct Parts<'a>(&'a [u8]);

impl Parts<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn text(&mut self) -> Option<String> {
        let mut bytes = Vec::new();
        loop {
            // Up to the next zero at once: zeros within a text are rare.
            let zero = self.0.iter().position(|byte| *byte == 0)?;
            let (plain, rest) = self.0.split_at_checked(zero)?;
            bytes.extend_from_slice(plain);
            self.0 = rest.get(1..)?;
            if self.byte()? == 1 {
                return String::from_utf8(bytes).ok();
            }
            bytes.push(0);
        }
    }
}

//! Alerts: what is found in usage events, budgets and keys, how it is told once, and how a message is signed and sent.
//!
//! # What is looked for, and when
//!
//! | Kind | Raised when | Gone when |
//! |---|---|---|
//! | `budget_threshold` | spending reaches a threshold of the budget | it falls below, or the window ends |
//! | `pace` | a budget burns too fast in a long window *and* in its short one | the short window is calm |
//! | `anomaly` | an hour's spending is far above the same hour of earlier weeks | a whole hour passed without one |
//! | `expensive_request` | a request costs `expensive_request_usd` or more | 24 hours without another |
//! | `provider_errors` | a share of a provider's attempts fails | the share is below half the limit |
//! | `unpriced_model` | a model without a price is asked for | it has a price, or 24 hours without another |
//! | `new_model` | a provider's model is used for the first time | 7 days later |
//! | `key_expiring` | a key expires within `key_expiring_days` | it is renewed, revoked or expired |
//! | `key_unused` | a key was not used for `key_unused_days` | it is used or revoked |
//! | `key_new_network` | a key is used from a /24 or /48 it was not used from before | 7 days later |
//!
//! # Pace: several windows, two at a time
//!
//! A burn rate of 1 spends exactly the budget by the end of its window. These are the windows:
//!
//! | Long window | Short window | Burn rate | Of a 30-day budget | Severity |
//! |---|---|---|---|---|
//! | 1 hour | 5 minutes | 14.4 | 2 % in an hour | critical |
//! | 6 hours | 30 minutes | 6 | 5 % in 6 hours | critical |
//! | 1 day | 2 hours | 3 | 10 % in a day | warning |
//!
//! They are those of the SRE workbook's chapter on alerting by burn rate. The long window keeps a moment's peak from
//! waking anybody; the short one, a twelfth of it, ends the alert soon after the burning ends. A runaway loop that
//! burns at 100 times the pace is found in 9 minutes (14.4 / 100 of an hour), a leak at 4 times the pace in 18 hours.
//! The workbook's slowest pair (3 days at a rate of 1) is left out: a budget, unlike an error budget, is meant to be
//! used up, and five working days out of seven alone are a rate of 1.4.
//!
//! A budget of a day or a week leaves less room: 6 times a day's pace for 6 hours would be 150 % of it. No pair asks for
//! more than half of the budget, and a pair that would then fire below a rate of 2 does not apply. A budget whose window
//! has no end has no pace.
//!
//! # Anomaly: median and MAD
//!
//! An hour is compared with the same hour of the week (UTC) in up to 5 earlier weeks, of which at least 3 must be
//! known. It is an anomaly above `median + max(6 x 1.4826 x MAD, median / 2, 1 USD)`: the MAD does not move when one
//! earlier week was itself an anomaly, and the floors keep a steady series (MAD 0) from making an alert of every cent.
//! The current hour counts while it goes on, so a peak is found before the hour ends.
//!
//! # Bounds
//!
//! 500 budgets, 300 spending scopes, 64 providers, 1,000 models and 2,000 keys with 32 networks each are remembered; what
//! was used longest ago makes room.

pub mod alert;
pub mod bounded;
pub mod detect;
pub mod message;
pub mod rules;
pub mod target;
pub mod webhook;

//! Where a budget's days begin: its time zone, by the IANA database that is compiled in, and the day on which its fiscal
//! months start. A pure function of the moment, daylight saving included.

use std::fmt;

use jiff::tz::{TimeZone, TimeZoneDatabase};
use serde::{Deserialize, Serialize};

use crate::budget::window::Window;
use crate::time::{Date, Timestamp};

/// The last day of the month on which a fiscal month may start: every month has it.
pub const LAST_FISCAL_START: u8 = 28;

/// A time zone by its IANA name, for example `Europe/Berlin`. A name that the database does not know is none.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(try_from = "String", into = "String")]
#[cfg_attr(feature = "openapi", schemars(with = "String"))]
pub struct Zone {
    zone: TimeZone,
}

/// Why a text is no time zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is no time zone of the IANA database, such as \"Europe/Berlin\" or \"UTC\"")]
pub struct ZoneError;

impl Zone {
    /// Coordinated universal time.
    pub const UTC: Self = Self { zone: TimeZone::UTC };

    /// The zone of this name.
    pub fn parse(name: &str) -> Result<Self, ZoneError> {
        if name == "UTC" {
            return Ok(Self::UTC);
        }
        let zone = TimeZoneDatabase::bundled().get(name).map_err(|_| ZoneError)?;
        Ok(Self { zone })
    }

    /// Its IANA name.
    pub fn name(&self) -> &str {
        self.zone.iana_name().unwrap_or("UTC")
    }
}

impl Default for Zone {
    fn default() -> Self {
        Self::UTC
    }
}

impl fmt::Debug for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl TryFrom<String> for Zone {
    type Error = ZoneError;

    fn try_from(name: String) -> Result<Self, ZoneError> {
        Self::parse(&name)
    }
}

impl From<Zone> for String {
    fn from(zone: Zone) -> Self {
        zone.name().to_owned()
    }
}

/// Days and fiscal months as an owner of money counts them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Calendar {
    zone: Zone,
    fiscal_start: u8,
}

impl Calendar {
    /// UTC, and fiscal months that are calendar months.
    pub const UTC: Self = Self { zone: Zone::UTC, fiscal_start: 1 };

    /// A calendar whose fiscal months start on `fiscal_start`, held to 1..=[`LAST_FISCAL_START`].
    pub fn new(zone: Zone, fiscal_start: u8) -> Self {
        Self { zone, fiscal_start: fiscal_start.clamp(1, LAST_FISCAL_START) }
    }

    /// The day that `at` falls on here.
    pub fn date(&self, at: Timestamp) -> Date {
        match jiff::Timestamp::from_millisecond(at.ms()) {
            Ok(moment) => Date::of(self.zone.zone.to_datetime(moment).date()),
            Err(_) => at.date(),
        }
    }

    /// The first moment of a day here. Where daylight saving skips midnight, the day begins later; where midnight comes
    /// twice, it begins with the first.
    pub fn start_of_day(&self, date: Date) -> Timestamp {
        let start = date.civil().to_zoned(self.zone.zone.clone()).and_then(|z| z.start_of_day());
        start.map_or_else(
            |_| date.midnight(),
            |z| Timestamp::from_ms(z.timestamp().as_millisecond()),
        )
    }

    /// The first moment of the window that `at` is in.
    pub fn start(&self, window: Window, at: Timestamp) -> Timestamp {
        let first = window.first_day(self.date(at), self.fiscal_start);
        first.map_or(Timestamp::from_ms(0), |first| self.start_of_day(first))
    }

    /// The first moment after the window that `at` is in; `None` when there is no end.
    pub fn end(&self, window: Window, at: Timestamp) -> Option<Timestamp> {
        let first = window.first_day(self.date(at), self.fiscal_start)?;
        window.next_first_day(first).map(|next| self.start_of_day(next))
    }

    /// A text that is the same for all moments of one window and for no other of this calendar. It is stored.
    pub fn key(&self, window: Window, at: Timestamp) -> String {
        window.key_of(window.first_day(self.date(at), self.fiscal_start))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALL: [Window; 5] =
        [Window::Day, Window::Week, Window::Month, Window::FiscalMonth, Window::Lifetime];

    fn calendar(zone: &str, fiscal_start: u8) -> Calendar {
        Calendar::new(Zone::parse(zone).unwrap(), fiscal_start)
    }

    fn at(text: &str) -> Timestamp {
        Timestamp::parse(text).unwrap()
    }

    #[track_caller]
    fn check(calendar: &Calendar, window: Window, now: &str, key: &str, start: &str, end: &str) {
        assert_eq!(calendar.key(window, at(now)), key);
        assert_eq!(calendar.start(window, at(now)), at(start), "{key} starts");
        assert_eq!(calendar.end(window, at(now)), Timestamp::parse(end), "{key} ends");
    }

    #[test]
    fn days_begin_at_midnight_of_the_zone() {
        let berlin = calendar("Europe/Berlin", 1);
        let day = "day:2026-11-20";
        check(
            &berlin,
            Window::Day,
            "2026-11-19T23:30:00Z",
            day,
            "2026-11-19T23:00:00Z",
            "2026-11-20T23:00:00Z",
        );
        let kathmandu = calendar("Asia/Kathmandu", 1);
        check(
            &kathmandu,
            Window::Day,
            "2026-11-19T18:15:00Z",
            day,
            "2026-11-19T18:15:00Z",
            "2026-11-20T18:15:00Z",
        );
        let apia = calendar("Pacific/Apia", 1);
        assert_eq!(apia.key(Window::Month, at("2026-11-30T11:00:00Z")), "month:2026-12");
    }

    #[test]
    fn a_day_of_daylight_saving_has_23_or_25_hours() {
        let berlin = calendar("Europe/Berlin", 1);
        check(
            &berlin,
            Window::Day,
            "2026-03-29T12:00:00Z",
            "day:2026-03-29",
            "2026-03-28T23:00:00Z",
            "2026-03-29T22:00:00Z",
        );
        check(
            &berlin,
            Window::Day,
            "2026-10-25T12:00:00Z",
            "day:2026-10-25",
            "2026-10-24T22:00:00Z",
            "2026-10-25T23:00:00Z",
        );
    }

    #[test]
    fn a_day_whose_midnight_is_skipped_begins_when_the_clock_goes_on() {
        // Santiago goes from 24:00 to 01:00 on 2026-09-05.
        let santiago = calendar("America/Santiago", 1);
        check(
            &santiago,
            Window::Day,
            "2026-09-06T12:00:00Z",
            "day:2026-09-06",
            "2026-09-06T04:00:00Z",
            "2026-09-07T03:00:00Z",
        );
        assert_eq!(santiago.key(Window::Day, at("2026-09-06T03:59:59.999Z")), "day:2026-09-05");
    }

    #[test]
    fn a_day_that_a_zone_left_out_is_in_no_window() {
        // Samoa went from 2011-12-29 straight to 2011-12-31.
        let apia = calendar("Pacific/Apia", 1);
        let last = at("2011-12-30T09:59:59.999Z");
        assert_eq!(apia.key(Window::Day, last), "day:2011-12-29");
        assert_eq!(apia.key(Window::Day, last.plus_ms(1)), "day:2011-12-31");
        assert_eq!(apia.key(Window::Month, last.plus_ms(1)), "month:2011-12");
    }

    #[test]
    fn fiscal_months_start_on_their_own_day() {
        let utc = calendar("UTC", 15);
        check(
            &utc,
            Window::FiscalMonth,
            "2026-11-20",
            "fiscal_month:2026-11-15",
            "2026-11-15",
            "2026-12-15",
        );
        check(
            &utc,
            Window::FiscalMonth,
            "2026-11-14",
            "fiscal_month:2026-10-15",
            "2026-10-15",
            "2026-11-15",
        );
        check(
            &utc,
            Window::FiscalMonth,
            "2027-01-01",
            "fiscal_month:2026-12-15",
            "2026-12-15",
            "2027-01-15",
        );
        let late = calendar("UTC", 28);
        check(
            &late,
            Window::FiscalMonth,
            "2028-02-29",
            "fiscal_month:2028-02-28",
            "2028-02-28",
            "2028-03-28",
        );
        let new_york = calendar("America/New_York", 26);
        check(
            &new_york,
            Window::FiscalMonth,
            "2026-10-26T04:30:00Z",
            "fiscal_month:2026-10-26",
            "2026-10-26T04:00:00Z",
            "2026-11-26T05:00:00Z",
        );
    }

    #[test]
    fn leap_days_are_days() {
        let berlin = calendar("Europe/Berlin", 1);
        check(
            &berlin,
            Window::Month,
            "2028-02-29T22:59:59Z",
            "month:2028-02",
            "2028-01-31T23:00:00Z",
            "2028-02-29T23:00:00Z",
        );
    }

    #[test]
    fn names_that_are_no_zones_are_refused() {
        for bad in ["", "Berlin", "Europe/Atlantis", "../../etc/passwd", "+02:00", "PST8PDT,M3"] {
            assert_eq!(Zone::parse(bad), Err(ZoneError), "{bad}");
        }
        let zone: Zone = serde_json::from_str("\"America/New_York\"").unwrap();
        assert_eq!(serde_json::to_string(&zone).unwrap(), "\"America/New_York\"");
    }

    fn calendars() -> impl Strategy<Value = Calendar> {
        let zones = prop::sample::select(vec![
            "UTC",
            "Europe/Berlin",
            "America/New_York",
            "America/Santiago",
            "Asia/Kathmandu",
            "Australia/Lord_Howe",
            "Pacific/Apia",
            "Pacific/Chatham",
            "Africa/Casablanca",
            "Asia/Gaza",
            "America/Sao_Paulo",
            "Africa/Cairo",
        ]);
        (zones, 1_u8..=LAST_FISCAL_START).prop_map(|(zone, start)| calendar(zone, start))
    }

    /// From 1970 to 2100.
    fn moments() -> impl Strategy<Value = Timestamp> {
        (0_i64..4_102_444_800_000).prop_map(Timestamp::from_ms)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn windows_always_follow_each_other_without_a_gap(calendar in calendars(), now in moments()) {
            for window in ALL {
                prop_assert!(calendar.start(window, now) <= now);
                let key = calendar.key(window, now);
                prop_assert_eq!(calendar.key(window, calendar.start(window, now)), key.clone());
                let Some(end) = calendar.end(window, now) else { continue };
                prop_assert!(now < end);
                prop_assert_eq!(calendar.key(window, end.plus_ms(-1)), key.clone());
                prop_assert_ne!(calendar.key(window, end), key);
            }
        }

        #[test]
        fn two_moments_share_a_key_exactly_when_they_share_a_start(
            calendar in calendars(), one in moments(), apart in 0_i64..40 * 86_400_000,
        ) {
            let two = one.plus_ms(apart);
            for window in ALL {
                let same_start = calendar.start(window, one) == calendar.start(window, two);
                prop_assert_eq!(calendar.key(window, one) == calendar.key(window, two), same_start);
            }
        }

        #[test]
        fn no_moment_is_beyond_a_calendar(calendar in calendars(), ms in any::<i64>()) {
            for window in ALL {
                let now = Timestamp::from_ms(ms);
                let _ = (calendar.start(window, now), calendar.end(window, now), calendar.key(window, now));
            }
        }
    }
}

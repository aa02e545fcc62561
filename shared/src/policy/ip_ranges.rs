//! Ranges of addresses that may use a key.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};

/// Bits in front of the IPv4 address in an IPv4-mapped IPv6 address.
const MAPPED_BITS: u8 = 96;

/// Ranges of IPv4 and IPv6 addresses; in JSON a list of texts. An empty list contains no address.
///
/// An IPv4-mapped IPv6 address (`::ffff:10.0.0.1`) is the IPv4 address, in a range and in a request. So `::/0` is all
/// of IPv6 and none of IPv4.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct IpRanges(Vec<IpNet>);

/// Why a list is no list of ranges. It names the entry: the list is configuration and no secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IpRangeError {
    /// Neither an address nor a range.
    #[error("{entry:?} is neither an IP address nor a range such as \"10.0.0.0/8\"")]
    NotARange {
        /// The entry, cut to a length that fits a message.
        entry: String,
    },
    /// A range whose address is not its first: likely a mistake, and far more than one address.
    #[error(
        "{entry:?} is not the start of its range: write {range} for the range, or the address alone"
    )]
    NotTheStart {
        /// The entry.
        entry: String,
        /// The range that the entry is in.
        range: IpNet,
    },
}

impl IpRanges {
    /// Takes addresses and ranges in CIDR form.
    pub fn parse<T: AsRef<str>>(entries: &[T]) -> Result<Self, IpRangeError> {
        entries.iter().map(|entry| parse_entry(entry.as_ref())).collect::<Result<_, _>>().map(Self)
    }

    /// Whether the address is in one of the ranges.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|range| range.contains(&address))
    }
}

/// The network of an address: its first 24 bits for IPv4, 48 for IPv6. A subscriber moves within these, seldom between.
pub fn network_of(address: IpAddr) -> String {
    let address = address.to_canonical();
    let bits = if address.is_ipv4() { 24 } else { 48 };
    match IpNet::new(address, bits) {
        Ok(network) => network.trunc().to_string(),
        Err(_) => address.to_string(),
    }
}

fn parse_entry(entry: &str) -> Result<IpNet, IpRangeError> {
    let not_a_range = || IpRangeError::NotARange { entry: entry.chars().take(64).collect() };
    let range = match entry.parse::<IpAddr>() {
        Ok(address) => IpNet::from(address),
        Err(_) => entry.parse().map_err(|_| not_a_range())?,
    };
    if range.trunc() != range {
        return Err(IpRangeError::NotTheStart { entry: entry.to_owned(), range: range.trunc() });
    }
    Ok(unmapped(range))
}

/// A range of IPv4-mapped addresses as the IPv4 range it is.
fn unmapped(range: IpNet) -> IpNet {
    let (IpNet::V6(v6), Some(bits)) = (range, range.prefix_len().checked_sub(MAPPED_BITS)) else {
        return range;
    };
    let v4 = v6.addr().to_ipv4_mapped().and_then(|address| Ipv4Net::new(address, bits).ok());
    v4.map_or(range, IpNet::V4)
}

impl TryFrom<Vec<String>> for IpRanges {
    type Error = IpRangeError;

    fn try_from(entries: Vec<String>) -> Result<Self, IpRangeError> {
        Self::parse(&entries)
    }
}

impl From<IpRanges> for Vec<String> {
    fn from(ranges: IpRanges) -> Self {
        let text = |range: IpNet| match range.prefix_len() == range.max_prefix_len() {
            true => range.addr().to_string(),
            false => range.to_string(),
        };
        ranges.0.into_iter().map(text).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(ranges: &[&str], address: &str, expected: bool) {
        let ranges = IpRanges::parse(ranges).unwrap();
        assert_eq!(ranges.contains(address.parse().unwrap()), expected, "{address} {ranges:?}");
    }

    #[test]
    fn an_address_is_in_its_range_and_in_no_other() {
        check(&["10.0.0.0/8", "2001:db8::/32"], "10.255.0.1", true);
        check(&["10.0.0.0/8", "2001:db8::/32"], "11.0.0.0", false);
        check(&["10.0.0.0/8", "2001:db8::/32"], "2001:db8:1::1", true);
        check(&["203.0.113.7"], "203.0.113.7", true);
        check(&["203.0.113.7"], "203.0.113.8", false);
        check(&["0.0.0.0/0"], "::1", false);
        check(&["::/0"], "10.0.0.1", false);
        check(&[], "10.0.0.1", false);
    }

    #[test]
    fn a_mapped_address_is_the_ipv4_address() {
        check(&["10.0.0.0/8"], "::ffff:10.1.2.3", true);
        check(&["::ffff:10.0.0.0/104"], "10.1.2.3", true);
        check(&["::ffff:10.0.0.0/104"], "11.1.2.3", false);
        check(&["::ffff:10.1.2.3"], "10.1.2.3", true);
        check(&["::/0"], "::ffff:10.1.2.3", false);
    }

    #[test]
    fn a_network_is_the_first_bits() {
        for (address, network) in [
            ("203.0.113.77", "203.0.113.0/24"),
            ("::ffff:203.0.113.77", "203.0.113.0/24"),
            ("2001:db8:1:2::3", "2001:db8:1::/48"),
        ] {
            assert_eq!(network_of(address.parse().unwrap()), network);
        }
    }

    #[test]
    fn an_error_names_the_entry() {
        let error = |entry: &str| IpRanges::parse(&["::1", entry]).unwrap_err().to_string();
        for bad in ["", "10.0.0.0/33", "10.0.0/8", "localhost", "10.0.0.1-10.0.0.9", " ::1"] {
            assert!(error(bad).starts_with(&format!("{bad:?} is neither")), "{bad}");
        }
        assert!(error("10.1.2.3/8").contains("write 10.0.0.0/8"));
    }

    #[test]
    fn a_list_round_trips_through_json() {
        let text = r#"["10.0.0.0/8","203.0.113.7","2001:db8::/32"]"#;
        let ranges: IpRanges = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&ranges).unwrap(), text);
        assert!(serde_json::from_str::<IpRanges>(r#"["x"]"#).is_err());
    }

    proptest! {
        #[test]
        fn a_range_has_exactly_the_addresses_with_its_first_bits(
            base in any::<u32>(), bits in 0_u32..=32, address in any::<u32>(),
        ) {
            let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
            let range = format!("{}/{bits}", std::net::Ipv4Addr::from(base & mask));
            let ranges = IpRanges::parse(&[range]).unwrap();
            let address: std::net::Ipv4Addr = address.into();
            let inside = u32::from(address) & mask == base & mask;
            prop_assert_eq!(ranges.contains(address.into()), inside);
            prop_assert_eq!(ranges.contains(address.to_ipv6_mapped().into()), inside);
        }

        #[test]
        fn parsing_never_panics(text in "\\PC{0,60}") {
            let _ = IpRanges::parse(&[text]);
        }
    }
}

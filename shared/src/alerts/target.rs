//! Where a message may be sent: https to a public name or address, so that no alert setting reaches into a private
//! network or a cloud's metadata service.
//!
//! The address is read strictly: what a URL parser would have to repair is refused, so that what is checked here is
//! what is called later. A name that resolves to a private address is the network's to stop: a Worker has no route to
//! one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// The longest address.
const URL_MAX_BYTES: usize = 2_000;

/// Why a message is not sent there. Each text says what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Not an address this takes.
    #[error("must be an address such as https://hooks.example.com/path, in plain ASCII")]
    NotAUrl,
    /// Not encrypted.
    #[error("must begin with https://")]
    NotHttps,
    /// A user name or password in it.
    #[error(
        "must not contain a user name or password; put the secret into the path or use `secret`"
    )]
    HasCredentials,
    /// A private address or name.
    #[error(
        "must be a public name or address: the operator can allow private ones with \
         TALLYGATE_ALLOW_PRIVATE_DELIVERY=on"
    )]
    Private,
}

/// Checks an address. With `allow_private` the operator takes http and private addresses too.
pub fn check_target(url: &str, allow_private: bool) -> Result<(), TargetError> {
    let is_plain = |b: u8| b.is_ascii_graphic() && !br#""<>\^`{|}"#.contains(&b);
    if url.len() > URL_MAX_BYTES || !url.bytes().all(is_plain) {
        return Err(TargetError::NotAUrl);
    }
    let (scheme, rest) = url.split_once("://").ok_or(TargetError::NotAUrl)?;
    match scheme {
        "https" => {}
        "http" if allow_private => {}
        _ => return Err(TargetError::NotHttps),
    }
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, _) = rest.split_at_checked(end).ok_or(TargetError::NotAUrl)?;
    if authority.contains('@') {
        return Err(TargetError::HasCredentials);
    }
    let host = without_port(authority)?;
    if !allow_private && is_private_host(host)? {
        return Err(TargetError::Private);
    }
    Ok(())
}

fn without_port(authority: &str) -> Result<&str, TargetError> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']').ok_or(TargetError::NotAUrl)?;
            host.parse::<Ipv6Addr>().map_err(|_| TargetError::NotAUrl)?;
            let port = if after.is_empty() { None } else { after.strip_prefix(':') };
            if !after.is_empty() && port.is_none() {
                return Err(TargetError::NotAUrl);
            }
            (host, port)
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    let is_port = |port: &str| {
        port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0)
    };
    if host.is_empty() || port.is_some_and(|port| !is_port(port)) {
        return Err(TargetError::NotAUrl);
    }
    Ok(host)
}

fn is_private_host(host: &str) -> Result<bool, TargetError> {
    if let Ok(address) = host.parse::<Ipv6Addr>() {
        return Ok(is_private(IpAddr::V6(address)));
    }
    let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    let is_name = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    if !name.bytes().all(is_name) || name.split('.').any(str::is_empty) {
        return Err(TargetError::NotAUrl);
    }
    let last = name.rsplit('.').next().unwrap_or_default();
    if last.starts_with("0x") || last.bytes().all(|b| b.is_ascii_digit()) {
        let address = parse_v4(&name).ok_or(TargetError::NotAUrl)?;
        return Ok(is_private(IpAddr::V4(address)));
    }
    // A name without a dot is one of the local network.
    let is_local = ["localhost", "local", "internal", "lan", "home", "corp", "intranet"];
    Ok(!name.contains('.') || is_local.contains(&last) || name.ends_with(".home.arpa"))
}

/// An IPv4 address in any of the forms a browser takes: one to four numbers, decimal, octal or hexadecimal, the last of
/// which fills what is left.
fn parse_v4(host: &str) -> Option<Ipv4Addr> {
    let number = |part: &str| -> Option<u64> {
        if let Some(hex) = part.strip_prefix("0x") {
            return if hex.is_empty() { Some(0) } else { u64::from_str_radix(hex, 16).ok() };
        }
        match part.strip_prefix('0') {
            Some(octal) if !octal.is_empty() => u64::from_str_radix(octal, 8).ok(),
            _ => part.parse().ok(),
        }
    };
    let parts: Vec<u64> = host.split('.').map(number).collect::<Option<_>>()?;
    let (last, head) = parts.split_last()?;
    if head.len() > 3 || head.iter().any(|part| *part > 255) {
        return None;
    }
    let room = 32 - 8 * u32::try_from(head.len()).ok()?;
    if *last >= 1_u64.checked_shl(room)? {
        return None;
    }
    let high = head.iter().fold(0_u64, |bits, part| bits << 8 | part);
    let bits = u32::try_from(high.checked_shl(room).unwrap_or(0) | last).ok()?;
    Some(Ipv4Addr::from_bits(bits))
}

/// Addresses that are not of the public internet.
const PRIVATE_V4: [(Ipv4Addr, u8); 15] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8),
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    // Shared by carriers (CGNAT), and where one cloud keeps its metadata service.
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    // Link-local, and where most clouds keep their metadata service.
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    (Ipv4Addr::new(192, 0, 2, 0), 24),
    (Ipv4Addr::new(192, 88, 99, 0), 24),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    (Ipv4Addr::new(198, 51, 100, 0), 24),
    (Ipv4Addr::new(203, 0, 113, 0), 24),
    (Ipv4Addr::new(224, 0, 0, 0), 4),
    (Ipv4Addr::new(240, 0, 0, 0), 4),
];

fn is_private(address: IpAddr) -> bool {
    let v6 = match address {
        IpAddr::V4(v4) => return is_private_v4(v4),
        IpAddr::V6(v6) => v6,
    };
    // Addresses that carry an IPv4 address are what they carry: mapped, translated (NAT64), 6to4.
    let [a, b, c, _, _, _, g, h] = v6.segments();
    let carried = match (a, b) {
        (0, 0) => Some((g, h)),
        (0x64, 0xff9b) => Some((g, h)),
        (0x2002, _) => Some((b, c)),
        _ => None,
    };
    if let Some((high, low)) = carried {
        return is_private_v4(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)));
    }
    // The public internet is 2000::/3 today; of it, documentation and protocols are not.
    let outside = [(0x2001, 0x0db8, 32), (0x2001, 0, 23), (0x3fff, 0, 20)];
    let is_in = |first: u16, second: u16, bits: u8| {
        let base = Ipv6Addr::new(first, second, 0, 0, 0, 0, 0, 0);
        Ipv6Net::new(base, bits).is_ok_and(|net| net.contains(&v6))
    };
    !is_in(0x2000, 0, 3) || outside.into_iter().any(|(a, b, bits)| is_in(a, b, bits))
}

fn is_private_v4(address: Ipv4Addr) -> bool {
    PRIVATE_V4.iter().any(|(base, bits)| {
        Ipv4Net::new(*base, *bits).is_ok_and(|net| IpNet::V4(net).contains(&IpAddr::V4(address)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn public_https_is_taken() {
        for url in [
            "https://hooks.example.com",
            "https://hooks.example.com:8443/a/b?c=d#e",
            "https://hooks.slack.com/services/T0/B0/xyz",
            "https://example.com./x",
            "https://xn--bcher-kva.example/x",
            "https://8.8.8.8/x",
            "https://[2606:4700:4700::1111]/x",
            "https://[64:ff9b::808:808]/x",
            "https://0x8.example.com/",
        ] {
            assert_eq!(check_target(url, false), Ok(()), "{url}");
        }
    }

    #[test]
    fn private_ones_are_refused_in_every_disguise() {
        for host in [
            "localhost",
            "LOCALHOST",
            "localhost.",
            "a.localhost",
            "printer",
            "nas.local",
            "metadata.google.internal",
            "x.home.arpa",
            "127.0.0.1",
            "127.1",
            "2130706433",
            "0x7f000001",
            "0x7f.1",
            "0177.0.0.1",
            "017700000001",
            "0",
            "0x",
            "10.0.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "169.254.169.254",
            "0xa9fea9fe",
            "100.64.0.1",
            "100.100.100.200",
            "192.0.0.192",
            "224.0.0.1",
            "255.255.255.255",
            "127.0.0.1.",
            "[::1]",
            "[::]",
            "[::ffff:127.0.0.1]",
            "[::ffff:a9fe:a9fe]",
            "[::127.0.0.1]",
            "[fd00:ec2::254]",
            "[fe80::1]",
            "[fc00::1]",
            "[ff02::1]",
            "[64:ff9b::7f00:1]",
            "[2002:7f00:1::]",
            "[2001:db8::1]",
            "[2001::1]",
        ] {
            let url = format!("https://{host}/x");
            assert_eq!(check_target(&url, false), Err(TargetError::Private), "{host}");
            assert_eq!(check_target(&url, true), Ok(()), "{host}");
        }
    }

    #[test]
    fn what_would_have_to_be_repaired_is_refused() {
        for (url, error) in [
            ("http://example.com/", TargetError::NotHttps),
            ("HTTPS://example.com/", TargetError::NotHttps),
            ("file:///etc/passwd", TargetError::NotHttps),
            ("example.com", TargetError::NotAUrl),
            ("", TargetError::NotAUrl),
            ("https://", TargetError::NotAUrl),
            ("https:///x", TargetError::NotAUrl),
            ("https://exa mple.com", TargetError::NotAUrl),
            ("https://example.com\\@127.0.0.1/", TargetError::NotAUrl),
            ("https://example.com@127.0.0.1/", TargetError::HasCredentials),
            ("https://a:b@example.com/", TargetError::HasCredentials),
            ("https://%31%32%37.0.0.1/", TargetError::NotAUrl),
            ("https://１２７.0.0.1/", TargetError::NotAUrl),
            ("https://[fe80::1%25eth0]/", TargetError::NotAUrl),
            ("https://[::1/", TargetError::NotAUrl),
            ("https://example.com:/", TargetError::NotAUrl),
            ("https://example.com:0/", TargetError::NotAUrl),
            ("https://example.com:99999/", TargetError::NotAUrl),
            ("https://a..b/", TargetError::NotAUrl),
            ("https://1.2.3.4.5/", TargetError::NotAUrl),
            ("https://256.1.1.1/", TargetError::NotAUrl),
            ("https://4294967296/", TargetError::NotAUrl),
            ("https://08.0.0.1/", TargetError::NotAUrl),
        ] {
            assert_eq!(check_target(url, false), Err(error), "{url}");
        }
        assert_eq!(check_target("http://127.0.0.1:8080/x", true), Ok(()));
        assert_eq!(check_target("ftp://127.0.0.1/x", true), Err(TargetError::NotHttps));
    }

    proptest! {
        /// Every form of an address is judged as the address itself.
        #[test]
        fn an_address_is_one_address_in_every_form(bits in any::<u32>()) {
            let address = Ipv4Addr::from_bits(bits);
            let [a, b, c, d] = address.octets();
            let plain = check_target(&format!("https://{address}/"), false);
            for host in [
                format!("{bits}"), format!("0x{bits:x}"), format!("0{bits:o}"),
                format!("{a}.{b}.{}", u32::from(c) << 8 | u32::from(d)),
                format!("0x{a:x}.0{b:o}.{c}.{d}"), format!("[::ffff:{address}]"),
            ] {
                prop_assert_eq!(check_target(&format!("https://{host}/"), false), plain, "{}", host);
            }
        }

        #[test]
        fn checking_never_panics(url in "\\PC{0,60}", rest in "\\PC{0,40}") {
            let _ = check_target(&url, false);
            let _ = check_target(&format!("https://{rest}"), false);
        }
    }
}

//! Parsers of `/proc/PID/net`: addresses and routes as people write them.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};

/// IPv4 addresses of a network namespace, from `fib_trie`: an address followed by `host LOCAL`.
pub fn parse_addresses(text: &str) -> BTreeSet<String> {
    let mut addresses = BTreeSet::new();
    let mut last = None;
    for line in text.lines().map(str::trim) {
        if let Some(address) = line.strip_prefix("|-- ") {
            last = address.parse::<Ipv4Addr>().ok();
        } else if line.ends_with("host LOCAL") {
            addresses.extend(last.map(|address| address.to_string()));
        }
    }
    addresses
}

/// IPv6 addresses, from `if_inet6`, as `address/length dev name`.
pub fn parse_addresses6(text: &str) -> BTreeSet<String> {
    let address = |line: &str| {
        let [address, _, length, _, _, name] = *words(line) else {
            return None;
        };
        let length = u8::from_str_radix(length, 16).ok()?;
        Some(format!("{}/{length} dev {name}", ipv6(address)?))
    };
    text.lines().filter_map(address).collect()
}

/// One line of `route` as `destination/length [via gateway] dev name`; `None` for the heading.
pub fn parse_route(line: &str) -> Option<String> {
    let [name, destination, gateway, _, _, _, _, mask, ..] = *words(line) else {
        return None;
    };
    let (destination, gateway) = (ipv4(destination)?, ipv4(gateway)?);
    let length = u32::from(ipv4(mask)?).leading_ones();
    let via = match gateway.is_unspecified() {
        true => String::new(),
        false => format!(" via {gateway}"),
    };
    Some(format!("{destination}/{length}{via} dev {name}"))
}

/// One line of `ipv6_route`, likewise. The kernel's own local, multicast and reject routes are
/// left out: they follow from the addresses.
pub fn parse_route6(line: &str) -> Option<String> {
    const RTF_REJECT: u32 = 0x0200;
    const RTF_LOCAL: u32 = 0x8000_0000;
    let [destination, length, _, _, gateway, _, _, _, flags, name] = *words(line) else {
        return None;
    };
    let (destination, gateway) = (ipv6(destination)?, ipv6(gateway)?);
    let flags = u32::from_str_radix(flags, 16).ok()?;
    if flags & (RTF_REJECT | RTF_LOCAL) != 0 || destination.is_multicast() {
        return None;
    }
    let length = u8::from_str_radix(length, 16).ok()?;
    let via = match gateway.is_unspecified() {
        true => String::new(),
        false => format!(" via {gateway}"),
    };
    Some(format!("{destination}/{length}{via} dev {name}"))
}

fn words(line: &str) -> Vec<&str> {
    line.split_ascii_whitespace().collect()
}

/// `route` prints the four bytes as one number in the machine's own order.
fn ipv4(hex: &str) -> Option<Ipv4Addr> {
    Some(Ipv4Addr::from(
        u32::from_str_radix(hex, 16).ok()?.to_ne_bytes(),
    ))
}

fn ipv6(hex: &str) -> Option<Ipv6Addr> {
    if hex.len() != 32 {
        return None;
    }
    Some(Ipv6Addr::from(u128::from_str_radix(hex, 16).ok()?))
}

//! Which addresses are reached, in every spelling of a URL and from every answer of a resolver.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::{prelude::*, test_runner::TestCaseError};
use serde_json::json;
use toolbay_api::ErrorKind;
use toolbay_http::{AddressRules, HttpClient};

use crate::support::{Names, Server, builder, client, error, kind, ok, send};

/// Nothing opened but plain http, so that only the addresses stand in the way.
fn closed() -> HttpClient {
    HttpClient::builder().allow_plain_http().resolver(Names::default()).build().unwrap()
}

#[test]
fn public_addresses_pass_and_all_others_do_not() {
    let rules = AddressRules::default();
    for public in [
        "1.1.1.1",
        "8.8.8.8",
        "9.255.255.255",
        "11.0.0.0",
        "100.63.255.255",
        "100.128.0.0",
        "126.255.255.255",
        "128.0.0.1",
        "168.63.129.15",
        "168.63.129.17",
        "169.253.255.255",
        "169.255.0.0",
        "172.15.255.255",
        "172.32.0.0",
        "192.0.1.0",
        "192.0.3.0",
        "192.167.255.255",
        "192.169.0.0",
        "198.17.255.255",
        "198.20.0.0",
        "203.0.112.255",
        "203.0.114.0",
        "223.255.255.255",
        "2606:4700:4700::1111",
        "2a00:1450::1",
        "2001:200::1",
        "2001:4860:4860::8888",
        "2003::1",
        "64:ff9b::8.8.8.8",
        "::ffff:8.8.8.8",
    ] {
        assert!(rules.check(public.parse().unwrap()).is_ok(), "{public} is public");
    }
    for refused in [
        "0.0.0.0",
        "0.1.2.3",
        "10.0.0.1",
        "10.255.255.255",
        "100.64.0.1",
        "100.100.100.200",
        "100.127.255.255",
        "127.0.0.1",
        "127.255.255.254",
        "168.63.129.16",
        "169.254.169.254",
        "169.254.170.2",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.192",
        "192.0.2.1",
        "192.88.99.1",
        "192.168.0.1",
        "198.18.0.1",
        "198.19.255.255",
        "198.51.100.7",
        "203.0.113.7",
        "224.0.0.1",
        "239.255.255.255",
        "240.0.0.1",
        "255.255.255.255",
        // The same in IPv6, and what only IPv6 has.
        "::",
        "::1",
        "::127.0.0.1",
        "::8.8.8.8",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "::ffff:0:10.0.0.1",
        "64:ff9b::127.0.0.1",
        "64:ff9b::10.0.0.1",
        "64:ff9b::169.254.169.254",
        "64:ff9b:1::8.8.8.8",
        "100::1",
        "2001::1",
        "2001:0:7f00:1::",
        "2001:2::1",
        "2001:10::1",
        "2001:20::1",
        "2001:db8::1",
        "2002:7f00:1::",
        "2002:808:808::1",
        "3fff::1",
        "4000::1",
        "5f00::1",
        "fc00::1",
        "fd00:ec2::254",
        "fd20:ce::254",
        "fe80::1",
        "fec0::1",
        "ff02::1",
        "ffff::1",
    ] {
        assert!(rules.check(refused.parse().unwrap()).is_err(), "{refused} is refused");
    }
}

#[tokio::test]
async fn a_refused_address_is_refused_in_every_spelling_of_a_url() {
    let client = closed();
    for host in [
        "127.0.0.1",
        "127.0.0.1.",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0X7F.0.0.1",
        "017700000001",
        "0177.0.0.1",
        "127.0x0.0.01",
        "%31%32%37.0.0.1",
        "127%2e0%2e0%2e1",
        "１２７.0.0.1",
        "127。0。0。1",
        "①②⑦.0.0.1",
        "0",
        "0.0.0.0",
        "169.254.169.254",
        "2852039166",
        "0xA9FEA9FE",
        "[::1]",
        "[0:0:0:0:0:0:0:1]",
        "[::ffff:127.0.0.1]",
        "[::FFFF:7F00:1]",
        "[::ffff:a9fe:a9fe]",
        "[64:ff9b::a9fe:a9fe]",
        "[2002:7f00:1::]",
        "[fe80::1]",
        "[FD00:EC2::254]",
    ] {
        for scheme in ["http", "https", "HTTPS"] {
            let result = send(&client, json!({"url": format!("{scheme}://{host}/")}), &["*"]).await;
            assert_eq!(kind(&result), Some(ErrorKind::PermissionDenied), "{scheme}://{host}: {result:?}");
        }
    }
}

#[tokio::test]
async fn a_name_is_refused_for_one_refused_address_among_its_own() {
    for addresses in [&["10.0.0.1"][..], &["127.0.0.1", "10.0.0.1"], &["::ffff:10.0.0.1"], &["127.0.0.1", "::1"]] {
        let server = Server::answering(|_| ok("reached")).await;
        let client = builder().resolver(Names::default().with("x.test", addresses)).build().unwrap();
        let result = send(&client, json!({"url": server.url("x.test", "/")}), &["*"]).await;
        assert_eq!(kind(&result), Some(ErrorKind::PermissionDenied), "{addresses:?}");
        assert_eq!(server.connections(), 0, "{addresses:?}");
    }
}

#[tokio::test]
async fn the_plugin_does_not_learn_the_address_and_the_operator_does() {
    let client = builder().resolver(Names::default().with("db.test", &["10.20.30.40"])).build().unwrap();
    let error = send(&client, json!({"url": "https://db.test/"}), &["*"]).await.unwrap_err();
    assert_eq!(error.message, "the host `db.test` is at an address that plugins must not reach; use another");
    assert!(!format!("{error}{:?}", error.details).contains("10.20"));
    let detail = error.operator_detail().unwrap().to_string();
    assert_eq!(detail, "the address 10.20.30.40 is refused: private, RFC 1918");
}

#[tokio::test]
async fn a_network_that_the_host_names_is_reached_and_the_next_one_is_not() {
    let server = Server::answering(|_| ok("reached")).await;
    let answer = send(&client(), json!({"url": server.url("127.0.0.1", "/")}), &["*"]).await.unwrap();
    assert_eq!(answer.to_json()["body"], "reached");
    let mapped = server.url("[::ffff:127.0.0.1]", "/");
    // The same destination in another spelling. Whether this machine connects to such an address is its own affair.
    assert_ne!(kind(&send(&client(), json!({"url": mapped}), &["*"]).await), Some(ErrorKind::PermissionDenied));
    let result = send(&client(), json!({"url": server.url("127.0.0.2", "/")}), &["*"]).await;
    assert_eq!(kind(&result), Some(ErrorKind::PermissionDenied));
}

#[tokio::test]
async fn localhost_is_reached_only_where_the_host_opens_it() {
    let server = Server::answering(|_| ok("reached")).await;
    for host in ["localhost", "LOCALHOST.", "db.localhost"] {
        let request = json!({"url": server.url(host, "/")});
        let client = HttpClient::builder().allow_plain_http();
        let result = send(&client.build().unwrap(), request.clone(), &["*"]).await;
        assert_eq!(kind(&result), Some(ErrorKind::PermissionDenied), "{host}");
        let client = HttpClient::builder().allow_plain_http().allow_network("127.0.0.0/8".parse().unwrap());
        assert!(send(&client.build().unwrap(), request, &["*"]).await.is_ok(), "{host}");
    }
}

#[tokio::test]
async fn a_name_without_an_address_is_away_for_now() {
    let client = builder().resolver(Names::default().with("empty.test", &[])).build().unwrap();
    let text = "Unavailable (again): the host name `NAME` has no address, or none was found in time; try again later";
    for name in ["unknown.test", "empty.test"] {
        let result = send(&client, json!({"url": format!("https://{name}/")}), &["*"]).await;
        assert_eq!(error(result), text.replace("NAME", name));
    }
}

/// An IPv4 address that the standard library alone shows to be none of the public ones.
fn refused_v4() -> impl Strategy<Value = Ipv4Addr> {
    prop_oneof![
        any::<[u8; 3]>().prop_map(|[b, c, d]| Ipv4Addr::new(127, b, c, d)),
        any::<[u8; 3]>().prop_map(|[b, c, d]| Ipv4Addr::new(10, b, c, d)),
        any::<[u8; 3]>().prop_map(|[b, c, d]| Ipv4Addr::new(0, b, c, d)),
        any::<[u8; 2]>().prop_map(|[c, d]| Ipv4Addr::new(169, 254, c, d)),
        any::<[u8; 2]>().prop_map(|[c, d]| Ipv4Addr::new(192, 168, c, d)),
        (16..32u8, any::<[u8; 2]>()).prop_map(|(b, [c, d])| Ipv4Addr::new(172, b, c, d)),
        (64..128u8, any::<[u8; 2]>()).prop_map(|(b, [c, d])| Ipv4Addr::new(100, b, c, d)),
        (224..=255u8, any::<[u8; 3]>()).prop_map(|(a, [b, c, d])| Ipv4Addr::new(a, b, c, d)),
    ]
}

/// A number in one of the bases that a URL's host may have, with some zeros in front.
fn number(value: u32, base: u8, zeros: u8) -> String {
    let zeros = "0".repeat(usize::from(zeros % 4));
    match base % 4 {
        0 => format!("0x{zeros}{value:x}"),
        1 => format!("0X{zeros}{value:X}"),
        2 => format!("0{zeros}{value:o}"),
        _ => value.to_string(),
    }
}

/// Spells an IPv4 address: in one to four numbers of any base, or inside an IPv6 address, percent-encoded here and
/// there, with or without a dot at the end.
fn spell(address: Ipv4Addr, parts: u8, bases: [u8; 4], zeros: u8, encoded: u32, dot: bool, form: u8) -> String {
    let bits = u32::from(address);
    let [a, b, c, d] = address.octets().map(u32::from);
    let (high, low) = (bits >> 16, bits & 0xffff);
    match form % 10 {
        0 => return format!("[::ffff:{address}]"),
        1 => return format!("[::FFFF:{high:X}:{low:x}]"),
        2 => return format!("[64:ff9b::{address}]"),
        3 => return format!("[2002:{high:x}:{low:x}::1]"),
        4 => return format!("[::{address}]"),
        _ => {}
    }
    let numbers = match parts % 4 {
        0 => vec![bits],
        1 => vec![a, bits & 0xff_ffff],
        2 => vec![a, b, low],
        _ => vec![a, b, c, d],
    };
    let spelt: Vec<_> = numbers.iter().zip(bases).map(|(value, base)| number(*value, base, zeros)).collect();
    let mut text = spelt.join(".");
    if dot {
        text.push('.');
    }
    let encode = |(at, c): (usize, char)| {
        if encoded >> (at % 32) & 1 == 1 { format!("%{:02X}", u32::from(c)) } else { c.to_string() }
    };
    text.chars().enumerate().map(encode).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_spelling_of_a_refused_address_passes(
        address in refused_v4(), parts: u8, bases: [u8; 4], zeros: u8, encoded: u32, dot: bool, form: u8,
    ) {
        let host = spell(address, parts, bases, zeros, encoded, dot, form);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let result = runtime.block_on(send(&closed(), json!({"url": format!("http://{host}/")}), &["*"]));
        prop_assert_eq!(kind(&result), Some(ErrorKind::PermissionDenied), "{}: {:?}", host, result);
    }

    #[test]
    fn what_the_standard_library_calls_special_is_refused_and_ipv4_inside_ipv6_changes_nothing(bits: u32, high: u128) {
        let (rules, v4, v6) = (AddressRules::default(), Ipv4Addr::from(bits), Ipv6Addr::from(high));
        let passes = |address: IpAddr| rules.check(address).is_ok();
        let special = v4.is_private() || v4.is_loopback() || v4.is_link_local() || v4.is_broadcast()
            || v4.is_documentation() || v4.is_multicast() || v4.is_unspecified();
        prop_assert!(!(special && passes(v4.into())), "{}", v4);
        prop_assert_eq!(passes(v4.into()), passes(v4.to_ipv6_mapped().into()));
        let translated = Ipv6Addr::from(0x64_ff9b_u128 << 96 | u128::from(bits));
        prop_assert_eq!(passes(v4.into()), passes(translated.into()));
        let tunnelled = Ipv6Addr::from(0x2002_u128 << 112 | u128::from(bits) << 80);
        prop_assert!(!passes(tunnelled.into()) && !passes(Ipv6Addr::from(u128::from(bits)).into()));
        let special = v6.is_loopback() || v6.is_multicast() || v6.is_unique_local() || v6.is_unicast_link_local();
        prop_assert!(!(special && passes(v6.into())), "{}", v6);
    }

    #[test]
    fn no_answer_of_a_resolver_with_a_refused_address_passes(address in refused_v4(), mapped: bool, last: bool) {
        let refused = if mapped { IpAddr::V6(address.to_ipv6_mapped()) } else { address.into() }.to_string();
        let addresses = if last { ["127.0.0.1", &refused] } else { [&refused, "127.0.0.1"] };
        if address == Ipv4Addr::LOCALHOST {
            return Err(TestCaseError::reject("the one that is opened"));
        }
        let client = builder().resolver(Names::default().with("x.test", &addresses)).build().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let result = runtime.block_on(send(&client, json!({"url": "http://x.test/"}), &["*"]));
        prop_assert_eq!(kind(&result), Some(ErrorKind::PermissionDenied), "{:?}: {:?}", addresses, result);
    }
}
